//! Opening a file on an async worker: only if the kernel can do it from memory, without asking a disk or a network.
//!
//! Most files that are asked for were asked for a moment ago, and opening such a file takes less time than handing the
//! work to another thread. The whole path is resolved in one call that follows no link, so that it leads nowhere else
//! than it says. Whatever is in the way is an error that means nothing: the file has to be opened as always then.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, major, openat2};

use super::path::RelPath;
use super::stat::{FileKind, Stat};

/// `RESOLVE_CACHED` is known to Linux from 5.12 on; older kernels refuse the call.
const RESOLVE: ResolveFlags = ResolveFlags::CACHED.union(ResolveFlags::NO_SYMLINKS);

/// File systems that open a known file without a word to anyone else: ext2 to ext4, XFS, Btrfs, tmpfs (statfs(2)).
const LOCAL: [u64; 4] = [0xef53, XFS_MAGIC, 0x9123_683e, TMPFS_MAGIC];

/// What fstatfs(2) calls XFS.
pub(crate) const XFS_MAGIC: u64 = 0x5846_5342;
/// What fstatfs(2) calls tmpfs.
pub(crate) const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Opens a regular file for reading, by a directory of the configuration and relative paths one after the other.
///
/// As everywhere, the file is looked at before it is opened, so that nothing else than a regular file ever is.
pub(crate) fn open_file(root: &Path, below: &[&RelPath]) -> io::Result<(File, Stat)> {
    let mut path = root.as_os_str().as_bytes().to_vec();
    for part in below {
        path.push(b'/');
        path.extend_from_slice(&part.to_bytes());
    }
    let handle = open(&path, OFlags::PATH)?;
    let seen = Stat::of(&handle)?;
    if seen.kind != FileKind::File || !is_local(&handle, &seen)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // Whatever takes its place now is not waited for, and O_NONBLOCK means nothing to these file systems' files.
    let fd = open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = Stat::of(&fd)?;
    match stat.id() == seen.id() && stat.kind == FileKind::File {
        true => Ok((File::from(fd), stat)),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Asked once for a disk: as long as it is mounted, its number is its own. Those of other file systems are given to the
/// next one that is mounted.
fn is_local(handle: &OwnedFd, seen: &Stat) -> io::Result<bool> {
    thread_local! { static LAST_DISK: Cell<Option<u64>> = const { Cell::new(None) } }
    if LAST_DISK.get() == Some(seen.dev) {
        return Ok(true);
    }
    let is_local = LOCAL.contains(&(fstatfs(handle)?.f_type as u64));
    if is_local && major(seen.dev) != 0 {
        LAST_DISK.set(Some(seen.dev));
    }
    Ok(is_local)
}

fn open(path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(path: &str) -> RelPath {
        RelPath::parse(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_known_file_is_opened_and_nothing_else() {
        // Not in /tmp, which may be any file system.
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let root = place.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "content").unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        std::os::unix::fs::symlink("file", root.join("a/b/alias")).unwrap();
        rustix::fs::mknodat(CWD, root.join("a/b/fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for (path, expected) in [
            ("a/b/file", true),
            ("a/b", false),
            ("a/b/fifo", false),
            ("a/b/alias", false),
            ("a/b/missing", false),
            ("link/b/file", false),
        ] {
            let opened = open_file(&root, &[&relative(path)]);
            assert_eq!(opened.is_ok(), expected, "{path}: {opened:?}");
        }
        let (file, stat) = open_file(&root, &[&relative("a"), &relative("b/file")]).unwrap();
        assert_eq!((stat.size, std::io::read_to_string(file).unwrap().as_str()), (7, "content"));
    }
}
