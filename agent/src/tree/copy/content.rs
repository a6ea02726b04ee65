//! Copying what is in a file: by sharing its blocks, inside the kernel, or through a buffer, whichever works.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::fs::Stat;
use crate::tree::control::{Control, Interrupted};
use crate::tree::report::{Problem, TreeError};

/// Below this, sharing blocks is no faster than copying them.
const WORTH_CLONING: u64 = 8 * 1024;
/// Bytes between two looks at whether to stop.
const PIECE: u64 = 64 * 1024 * 1024;
/// Bytes per read and write where the kernel doesn't copy by itself.
const BUFFER: u64 = 256 * 1024;

/// Copies contents, and remembers what the two file systems can't do so that it isn't tried for each file.
pub(super) struct Mover<'a> {
    control: &'a Control,
    clones: AtomicBool,
    kernel_copies: AtomicBool,
    bytes: AtomicU64,
}

/// Why a content was not copied.
pub(super) enum Failure {
    Interrupted(Interrupted),
    Io(io::Error),
}

// === impl Mover ===

impl<'a> Mover<'a> {
    pub(super) fn new(control: &'a Control) -> Mover<'a> {
        Mover {
            control,
            clones: AtomicBool::new(true),
            kernel_copies: AtomicBool::new(true),
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes copied or shared so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Fills `dst`, an empty file, from the start. `stat` is that of `src`; what is appended to it meanwhile is not
    /// copied.
    pub(super) fn copy(&self, src: &File, stat: &Stat, dst: &File) -> Result<(), Failure> {
        if stat.size >= WORTH_CLONING && self.clone(src, dst)? {
            self.advance(stat.size);
            return Ok(());
        }
        if stat.allocated >= stat.size {
            return self.range(src, dst, 0, stat.size);
        }
        self.sparse(src, dst, stat.size)
    }

    /// Shares all blocks of `src` (FICLONE, ioctl_ficlonerange(2)); `false` where that isn't possible.
    fn clone(&self, src: &File, dst: &File) -> io::Result<bool> {
        if !self.clones.load(Relaxed) {
            return Ok(false);
        }
        match ioctl_ficlone(dst, src) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
                self.clones.store(false, Relaxed);
                Ok(false)
            }
            Err(Errno::INVAL | Errno::TXTBSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies only where there is data, so that holes stay holes (lseek(2), SEEK_DATA).
    fn sparse(&self, src: &File, dst: &File, size: u64) -> Result<(), Failure> {
        let mut offset = 0;
        while offset < size {
            let start = match seek(src, SeekFrom::Data(offset)) {
                Ok(start) => start.min(size),
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => return self.range(src, dst, offset, size),
                Err(error) => return Err(error.into()),
            };
            let end = seek(src, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
            self.range(src, dst, start, end)?;
            offset = end.max(start);
        }
        Ok(ftruncate(dst, size)?)
    }

    fn range(&self, src: &File, dst: &File, start: u64, end: u64) -> Result<(), Failure> {
        let mut offset = start;
        while offset < end {
            self.control.check()?;
            let piece = (end - offset).min(PIECE);
            let copied = match self.in_kernel(src, dst, offset, piece)? {
                0 => self.by_buffer(src, dst, offset, piece)?,
                copied => copied,
            };
            if copied == 0 {
                // The file became shorter meanwhile; its end is where it is now.
                return Ok(());
            }
            offset += copied;
            self.advance(copied);
        }
        Ok(())
    }

    /// How many bytes `copy_file_range(2)` copied; 0 where it can't, and at the end of the file.
    fn in_kernel(&self, src: &File, dst: &File, offset: u64, length: u64) -> io::Result<u64> {
        if !self.kernel_copies.load(Relaxed) {
            return Ok(0);
        }
        let (mut from, mut to) = (offset, offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match copy_file_range(src, Some(&mut from), dst, Some(&mut to), length) {
            Ok(copied) => Ok(copied as u64),
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                self.kernel_copies.store(false, Relaxed);
                Ok(0)
            }
            Err(Errno::INTR) => self.in_kernel(src, dst, offset, length as u64),
            Err(error) => Err(error.into()),
        }
    }

    fn by_buffer(&self, src: &File, dst: &File, offset: u64, length: u64) -> io::Result<u64> {
        let length = usize::try_from(length.min(BUFFER)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; length];
        loop {
            match src.read_at(&mut buffer, offset) {
                Ok(read) => {
                    dst.write_all_at(buffer.get(..read).unwrap_or_default(), offset)?;
                    return Ok(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.control.advance(0, bytes);
    }
}

// === impl Failure ===

impl Failure {
    /// Says which file it was.
    pub(super) fn at(self, problem: impl FnOnce(io::Error) -> Problem) -> TreeError {
        match self {
            Failure::Interrupted(interrupted) => interrupted.into(),
            Failure::Io(cause) => problem(cause).into(),
        }
    }
}

impl From<Interrupted> for Failure {
    fn from(interrupted: Interrupted) -> Failure {
        Failure::Interrupted(interrupted)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Io(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_with(kernel_copies: bool, content: &[u8], size_told: u64) -> Vec<u8> {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::write(&from, content).unwrap();
        let (src, dst) = (File::open(&from).unwrap(), File::create_new(&to).unwrap());
        let stat = Stat { size: size_told, allocated: size_told, ..Stat::of(&src).unwrap() };
        let control = Control::new();
        let mover = Mover::new(&control);
        mover.clones.store(false, Relaxed);
        mover.kernel_copies.store(kernel_copies, Relaxed);
        assert!(mover.copy(&src, &stat, &dst).is_ok());
        assert_eq!(mover.bytes(), control.progress().bytes_done);
        std::fs::read(&to).unwrap()
    }

    #[test]
    fn contents_are_the_same_whoever_copies() {
        let content: Vec<u8> = (0..700_001_u32).map(|number| (number % 251) as u8).collect();
        for kernel_copies in [true, false] {
            assert_eq!(copy_with(kernel_copies, &content, content.len() as u64), content);
            assert_eq!(copy_with(kernel_copies, b"", 0), b"");
        }
    }

    #[test]
    fn a_file_that_shrank_is_copied_to_its_end_and_one_that_grew_up_to_the_size_it_had() {
        for kernel_copies in [true, false] {
            assert_eq!(copy_with(kernel_copies, b"short", 1_000_000), b"short");
            assert_eq!(copy_with(kernel_copies, b"longer than told", 6), b"longer");
        }
    }
}
