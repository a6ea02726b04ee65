//! Opening a path below a directory, contained by the kernel.
//!
//! `openat2(2)` does the whole path in one race-free call. Where it is missing or refused (kernels before 5.6, some
//! container filters), or keeps losing against renames elsewhere on the machine, the path is opened one name at a
//! time instead ([`stepwise`](super::stepwise)), with the same rules.

use std::io;
use std::sync::OnceLock;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::FileError;
use super::path::RelPath;
use super::stepwise;

/// How often a lookup is repeated when a rename somewhere disturbed it (`EAGAIN`, openat2(2)).
const TRIES: u32 = 8;

/// What to do about symbolic links on the way and at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Follow them as long as they stay inside: for reading.
    Follow,
    /// Fail with `ELOOP`: for writing.
    Refuse,
}

/// Opens `path` below `root`; [`FileError::Escape`] when it would leave it.
pub(super) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &RelPath,
    flags: OFlags,
    links: Links,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    if !kernel_resolves() {
        return stepwise::open(root, path, flags, links);
    }
    let bytes = if path.is_root() { b".".to_vec() } else { path.to_bytes() };
    for _ in 0..TRIES {
        match openat2(root, bytes.as_slice(), flags, Mode::empty(), resolve_flags(links)) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            Err(Errno::XDEV) => return Err(FileError::Escape.into()),
            other => return Ok(other?),
        }
    }
    stepwise::open(root, path, flags, links)
}

fn resolve_flags(links: Links) -> ResolveFlags {
    let contained = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match links {
        Links::Follow => contained,
        Links::Refuse => contained | ResolveFlags::NO_SYMLINKS,
    }
}

/// Whether `openat2` may be used at all. Asked once, on a path that can't fail for another reason with these errors.
pub(crate) fn kernel_resolves() -> bool {
    #[cfg(test)]
    if tests::FORCE_STEPWISE.get() {
        return false;
    }
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let probe = openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
        !matches!(probe, Err(Errno::NOSYS | Errno::PERM))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// Makes this thread do without `openat2`.
        pub(crate) static FORCE_STEPWISE: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a test body both ways.
    pub(crate) fn both_ways(body: impl Fn()) {
        body();
        FORCE_STEPWISE.set(true);
        body();
        FORCE_STEPWISE.set(false);
    }
}
