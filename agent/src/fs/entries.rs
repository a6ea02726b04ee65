//! Reading a directory, one `getdents64(2)` buffer at a time.
//!
//! Only the names of one buffer are in memory, however large the directory. Each entry carries the position after
//! it, so that reading can go on there after the handle was closed and opened anew.

use std::io;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{RawDir, SeekFrom};

use super::path::Name;
use super::stat::FileKind;

/// Bytes per `getdents64`: fewer calls than the C library's 32 KiB, small enough to keep per directory.
const BUFFER: usize = 64 * 1024;

/// A name in a directory, in the directory's own order; `.` and `..` are left out.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// The kind, [`FileKind::Unknown`] where the file system doesn't tell.
    pub kind: FileKind,
    /// Where the next entry starts; only good for the same directory.
    pub(crate) next: u64,
}

/// Iterator over a directory's entries with its own handle; ends after the first error.
#[derive(Debug)]
pub struct Entries {
    fd: OwnedFd,
    batch: Batch,
}

/// The part of a directory that has been read but not yet handed out.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In reverse, so that the next one is popped off the end.
    entries: Vec<Entry>,
    ended: bool,
    failure: Option<io::Error>,
}

// === impl Entries ===

impl Entries {
    /// Reads from the handle's current position, which it then owns.
    pub(super) fn new(fd: OwnedFd) -> Entries {
        Entries { fd, batch: Batch::default() }
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        use rustix::fd::AsFd as _;
        self.batch.next(self.fd.as_fd())
    }
}

// === impl Batch ===

impl Batch {
    /// The next entry; reads on from `fd`'s position when there is none left.
    pub(crate) fn next(&mut self, fd: BorrowedFd<'_>) -> Option<io::Result<Entry>> {
        if let Some(error) = self.failure.take() {
            self.ended = true;
            return Some(Err(error));
        }
        if self.entries.is_empty() && !self.ended {
            match read_batch(fd) {
                Ok(entries) => self.entries = entries,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.ended = self.entries.is_empty();
        }
        self.entries.pop().map(Ok)
    }

    /// Continues at `position` of a handle that was opened anew; a failure is what `next` then returns.
    pub(crate) fn resuming(fd: BorrowedFd<'_>, position: u64) -> Batch {
        let failure = rustix::fs::seek(fd, SeekFrom::Start(position)).err().map(io::Error::from);
        Batch { failure, ..Batch::default() }
    }
}

/// The entries of one buffer, last first; none at the end of the directory.
fn read_batch(fd: BorrowedFd<'_>) -> io::Result<Vec<Entry>> {
    let mut buffer = Vec::<u8>::with_capacity(BUFFER);
    let mut entries = Vec::new();
    // A buffer may hold nothing but "." and "..": then read another, so that "none" always means the end.
    while entries.is_empty() {
        let mut raw = RawDir::new(fd, buffer.spare_capacity_mut());
        loop {
            match raw.next() {
                None => return Ok(entries),
                Some(entry) => entries.extend(convert(entry?)?),
            }
            if raw.is_buffer_empty() {
                break;
            }
        }
    }
    entries.reverse();
    Ok(entries)
}

fn convert(raw: rustix::fs::RawDirEntry<'_>) -> io::Result<Option<Entry>> {
    let bytes = raw.file_name().to_bytes();
    if matches!(bytes, b"." | b"..") {
        return Ok(None);
    }
    // The kernel refuses NUL and '/' itself; a foreign file system could still have longer names than Linux opens.
    let name = Name::new(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Entry { name, kind: raw.file_type().into(), next: raw.next_entry_cookie() }))
}
