//! Whether a part of a file is in the page cache, and how to get it there.
//!
//! `sendfile(2)` on a non-blocking socket still waits for the disk. So the cache is asked first, and filled on the
//! blocking pool where it has to be. Asked twice: how many of the pages are there (cachestat), and whether some of them
//! have arrived (reads that return instead of waiting: `RWF_NOWAIT`, preadv2(2)).

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, fadvise, fstatfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::buffers::Buffer;
use crate::fs::TMPFS_MAGIC;
use crate::kernel::cached_pages;

/// The distance between the places that are read where the number of pages is not known. The cache is filled and
/// emptied in larger units, so that what lies between two cached places is nearly always cached too; where it is not, one
/// read waits.
const STRIDE: u64 = 128 * 1024;

/// The same where all pages are there, and what was asked for last may still be on its way.
const STRIDE_OF_PRESENT: u64 = 2 << 20;

/// How far ahead the disk is told to read.
const AHEAD: u64 = 8 << 20;

/// Where a part of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory.
    Cached,
    /// Not all of it in memory.
    OnDisk,
    /// The file system does not tell (most network file systems).
    Unknown,
}

/// Fills the buffer from this place of the file if all of that is in memory. Does not wait.
pub(super) fn read(file: &File, start: u64, buffer: &mut [u8]) -> bool {
    let length = buffer.len();
    match preadv2(file, &mut [IoSliceMut::new(buffer)], start, ReadWriteFlags::NOWAIT) {
        Ok(read) => read == length,
        Err(Errno::OPNOTSUPP) if is_memory(file) => file.read_exact_at(buffer, start).is_ok(),
        Err(_) => false,
    }
}

/// Where this part of the file is. Does not wait.
pub(super) fn place(file: &File, range: &Range<u64>) -> Place {
    let stride = match present(file, range) {
        Present::All => STRIDE_OF_PRESENT,
        Present::Some => return Place::OnDisk,
        Present::Unknown => STRIDE,
    };
    let last = range.end.saturating_sub(1);
    let mut at = range.start;
    while at < last {
        match peek(file, at) {
            Place::Cached => at = at.saturating_add(stride),
            other => return other,
        }
    }
    peek(file, last)
}

/// How much of a part of a file has pages in memory.
enum Present {
    All,
    Some,
    /// Nothing has, or the kernel does not tell. Memory that is not cached, as that of tmpfs(5), may be there all the same.
    Unknown,
}

fn present(file: &File, range: &Range<u64>) -> Present {
    let page = rustix::param::page_size() as u64;
    // A short part is read at both ends, which is as close as places are elsewhere.
    let Some(length) = range.end.checked_sub(range.start).filter(|length| *length > STRIDE) else {
        return Present::Unknown;
    };
    let wanted = (range.end - 1) / page - range.start / page + 1;
    match cached_pages(file, range.start, length) {
        Ok(0) | Err(_) => Present::Unknown,
        Ok(there) if there < wanted => Present::Some,
        Ok(_) => Present::All,
    }
}

fn peek(file: &File, at: u64) -> Place {
    let mut byte = [0];
    match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
        // What lies behind the end is nowhere to wait for.
        Ok(_) => Place::Cached,
        Err(Errno::AGAIN | Errno::INTR) => Place::OnDisk,
        Err(_) if is_memory(file) => Place::Cached,
        Err(_) => Place::Unknown,
    }
}

/// tmpfs(5) takes no `RWF_NOWAIT`, and has no other place than memory.
fn is_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|figures| figures.f_type as u64 == TMPFS_MAGIC)
}

/// Reads this part of the file into the cache and has the disk begin with the next. Blocks.
pub(super) fn fill(file: &File, range: Range<u64>) -> io::Result<()> {
    let length = (range.end - range.start).saturating_add(AHEAD);
    // Advice only: where it is not taken, the reads below are slower.
    let _ = fadvise(file, range.start, std::num::NonZeroU64::new(length), Advice::WillNeed);
    let mut rest = range;
    while !rest.is_empty() {
        let part = super::take(&mut rest, super::buffers::CHUNK);
        let mut scrap = Buffer::take((part.end - part.start) as usize);
        scrap.read(file, part.start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_dropped_from_the_cache_is_on_disk_until_it_is_filled_again() {
        // Not in /tmp, which may be a file system without a disk.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        let length = 3 << 20;
        file.write_all(&vec![7; length as usize]).unwrap();
        assert_eq!(place(&file, &(0..length)), Place::Cached);
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        assert_eq!(place(&file, &(0..length)), Place::OnDisk);
        fill(&file, 0..length).unwrap();
        assert_eq!(place(&file, &(0..length)), Place::Cached);
    }

    #[test]
    fn a_hole_in_the_cache_is_seen() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        let length = 2 << 20;
        // What is written at once may be dropped at once only.
        for _ in 0..length / 4096 {
            file.write_all(&[7; 4096]).unwrap();
        }
        file.sync_all().unwrap();
        let Ok(all) = cached_pages(&file, 0, length) else { return };
        assert_eq!(all, length / rustix::param::page_size() as u64);
        // Between the places that would be read.
        fadvise(&file, 200 << 10, std::num::NonZeroU64::new(40 << 10), Advice::DontNeed).unwrap();
        assert_eq!(place(&file, &(0..length)), Place::OnDisk);
        fill(&file, 0..length).unwrap();
        assert_eq!(place(&file, &(0..length)), Place::Cached);
    }

    #[test]
    fn nothing_behind_the_end_is_waited_for() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(place(&file, &(5..70_000)), Place::Cached);
    }
}
