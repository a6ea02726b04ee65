//! An open directory, and all that may be done in it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, openat};

use super::entries::Entries;
use super::error::FileError;
use super::open::{Links, open_beneath};
use super::path::{Name, RelPath};
use super::replace::{self, Replace};
use super::stat::{FileKind, MountedOn, Stat};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const READ_WRITE: OFlags = OFlags::RDWR.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// An open directory. Whatever is done through it stays below it, wherever the directory is moved meanwhile.
///
/// All methods block; errors are the kernel's, or a [`FileError`].
///
/// Some file systems keep a name for themselves in every directory. A handle that was told of it
/// ([`Dir::reserving`]) refuses that name, and so do the handles that are opened through it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    reserved: Option<&'static str>,
}

/// How much a file system holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// `f_frsize * f_blocks`; the quota's limit where the file system reports it so.
    pub total: u64,
    /// What an unprivileged process can still write: `f_frsize * f_bavail`.
    pub available: u64,
}

// === impl Dir ===

impl Dir {
    /// Opens a directory by a path of the configuration, never by one from a request.
    pub fn open_root(path: &Path) -> io::Result<Dir> {
        if !path.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path must be absolute"));
        }
        Ok(Dir { fd: rustix::fs::open(path, DIRECTORY, Mode::empty())?, reserved: None })
    }

    /// Refuses this name from now on, in every path and as the name of anything new: [`FileError::Reserved`].
    pub fn reserving(self, name: Option<&'static str>) -> Dir {
        Dir { reserved: name, ..self }
    }

    /// Whether every name of a path may be used here.
    pub fn allows(&self, path: &RelPath) -> io::Result<()> {
        path.names().iter().try_for_each(|name| self.allows_name(name))
    }

    fn allows_name(&self, name: &Name) -> io::Result<()> {
        match self.reserved {
            Some(reserved) if reserved.as_bytes() == name.as_bytes() => Err(FileError::Reserved.into()),
            _ => Ok(()),
        }
    }

    /// A handle with the same rules.
    fn with(&self, fd: OwnedFd) -> Dir {
        Dir { fd, reserved: self.reserved }
    }

    /// Opens a directory for reading, following links that stay inside.
    pub fn open_dir(&self, path: &RelPath) -> io::Result<Dir> {
        self.allows(path)?;
        Ok(self.with(open_beneath(self.as_fd(), path, DIRECTORY, Links::Follow)?))
    }

    /// Opens a directory to change something in it: a link anywhere in the path is `ELOOP`.
    pub fn open_dir_nofollow(&self, path: &RelPath) -> io::Result<Dir> {
        self.allows(path)?;
        Ok(self.with(open_beneath(self.as_fd(), path, DIRECTORY, Links::Refuse)?))
    }

    /// Opens a directory in this one; `ELOOP` or `ENOTDIR` when it is a link.
    pub(crate) fn open_child(&self, name: &Name) -> io::Result<Dir> {
        self.allows_name(name)?;
        Ok(self.with(openat(&self.fd, name.as_bytes(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// Opens the directory above this one. The caller must make sure that it is one of its own.
    pub(crate) fn open_parent(&self) -> io::Result<Dir> {
        Ok(self.with(openat(&self.fd, "..", DIRECTORY, Mode::empty())?))
    }

    /// Gives the owner all permissions on a directory of this one, even where they forbid opening it.
    ///
    /// `fchmod` refuses a handle that only looks (`O_PATH`), and by name the kernel would follow a link put in its
    /// place, so the way goes through the handle's own entry in `/proc`.
    pub(crate) fn unlock_child(&self, name: &Name) -> io::Result<()> {
        self.allows_name(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name.as_bytes(), flags, Mode::empty())?;
        let mode = Mode::from_raw_mode(Stat::of(&fd)?.permissions() & 0o777 | 0o700);
        Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)?)
    }

    /// Opens a regular file for reading, following links that stay inside.
    ///
    /// The file is looked at before it is opened, so a device is never touched and a FIFO never waited for; what is
    /// then opened must be what was looked at. A directory is `EISDIR`.
    pub fn open_file(&self, path: &RelPath) -> io::Result<(File, Stat)> {
        self.allows(path)?;
        let seen = Stat::of(open_beneath(self.as_fd(), path, OFlags::PATH, Links::Follow)?)?;
        require_regular(seen.kind)?;
        opened_as_seen(open_beneath(self.as_fd(), path, READ, Links::Follow)?, &seen)
    }

    /// Whether the path leads to a file, and nothing on it is a link.
    pub fn is_reached_without_links(&self, path: &RelPath) -> bool {
        self.allows(path).is_ok() && open_beneath(self.as_fd(), path, OFlags::PATH, Links::Refuse).is_ok()
    }

    /// Opens a regular file of this directory for reading, not following a link.
    pub fn open_file_nofollow(&self, name: &Name) -> io::Result<(File, Stat)> {
        self.open_named(name, READ)
    }

    /// Opens an existing regular file of this directory to go on writing it: no link, and no second name.
    pub fn open_existing_rw(&self, name: &Name) -> io::Result<File> {
        let (file, stat) = self.open_named(name, READ_WRITE)?;
        match stat.nlink {
            1 => Ok(file),
            _ => Err(FileError::HardLinked.into()),
        }
    }

    /// Creates a file that must not exist yet, open for reading and writing; `mode` is subject to the umask.
    pub fn create_new(&self, name: &Name, mode: u32) -> io::Result<File> {
        self.allows_name(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, name.as_bytes(), flags, Mode::from_raw_mode(mode))?))
    }

    /// Looks at a name, not following a link.
    pub fn stat(&self, name: &Name) -> io::Result<Stat> {
        self.allows_name(name)?;
        Stat::at(&self.fd, name.as_bytes(), AtFlags::empty())
    }

    /// Like [`Dir::stat`], but content with what a network file system has cached: for scans.
    pub fn stat_cached(&self, name: &Name) -> io::Result<Stat> {
        self.allows_name(name)?;
        Stat::at(&self.fd, name.as_bytes(), AtFlags::STATX_DONT_SYNC)
    }

    /// Looks at this directory.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Stat::of(&self.fd)
    }

    /// Makes a directory; `mode` is subject to the umask.
    pub fn mkdir(&self, name: &Name, mode: u32) -> io::Result<()> {
        self.allows_name(name)?;
        Ok(rustix::fs::mkdirat(&self.fd, name.as_bytes(), Mode::from_raw_mode(mode))?)
    }

    /// Makes the directories of a path that are missing and opens the last; no link is followed.
    pub fn mkdir_all(&self, path: &RelPath, mode: u32) -> io::Result<Dir> {
        let mut dir = self.try_clone()?;
        for name in path.names() {
            match dir.mkdir(name, mode) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => dir = dir.open_dir_nofollow(&RelPath::from(name.clone()))?,
            }
        }
        Ok(dir)
    }

    /// Renames an entry of this directory to `to_name` in `to`. `EXDEV` is another file system here, never an escape.
    pub fn rename(&self, from: &Name, to: &Dir, to_name: &Name, replace: Replace) -> io::Result<()> {
        self.allows_name(from)?;
        to.allows_name(to_name)?;
        replace::rename(self, from, to, to_name, replace)
    }

    /// Removes anything but a directory.
    pub fn unlink(&self, name: &Name) -> io::Result<()> {
        self.allows_name(name)?;
        Ok(rustix::fs::unlinkat(&self.fd, name.as_bytes(), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &Name) -> io::Result<()> {
        self.allows_name(name)?;
        Ok(rustix::fs::unlinkat(&self.fd, name.as_bytes(), AtFlags::REMOVEDIR)?)
    }

    /// What a link says, as written.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        self.allows_name(name)?;
        Ok(rustix::fs::readlinkat(&self.fd, name.as_bytes(), Vec::new())?.into_bytes())
    }

    /// Makes a symbolic link that says `target`.
    pub fn symlink(&self, target: &[u8], name: &Name) -> io::Result<()> {
        self.allows_name(name)?;
        Ok(rustix::fs::symlinkat(target, &self.fd, name.as_bytes())?)
    }

    /// Gives a file of this directory a second name; a link gets the name itself, not its target.
    pub fn hard_link(&self, name: &Name, to: &Dir, to_name: &Name) -> io::Result<()> {
        self.allows_name(name)?;
        to.allows_name(to_name)?;
        Ok(rustix::fs::linkat(&self.fd, name.as_bytes(), &to.fd, to_name.as_bytes(), AtFlags::empty())?)
    }

    /// Sets this directory's permission bits exactly, whatever the umask.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Another handle of the same directory; both share one read position.
    pub fn try_clone(&self) -> io::Result<Dir> {
        Ok(self.with(self.fd.try_clone()?))
    }

    /// Size and free space of the file system, or of the quota where it reports that.
    pub fn statfs(&self) -> io::Result<Capacity> {
        let figures = rustix::fs::fstatvfs(&self.fd)?;
        Ok(Capacity {
            total: figures.f_frsize.saturating_mul(figures.f_blocks),
            available: figures.f_frsize.saturating_mul(figures.f_bavail),
        })
    }

    /// Whether the mount that the directory lies on cannot be written.
    pub fn is_read_only(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstatvfs(&self.fd)?.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// Which mount the directory lies on, as this host knows it: no server is asked.
    pub fn mounted_on(&self) -> io::Result<MountedOn> {
        MountedOn::of(&self.fd)
    }

    /// Reads the directory from its start, through a handle of its own.
    pub fn entries(&self) -> io::Result<Entries> {
        Ok(Entries::new(openat(&self.fd, ".", DIRECTORY, Mode::empty())?))
    }

    fn open_named(&self, name: &Name, flags: OFlags) -> io::Result<(File, Stat)> {
        let seen = self.stat(name)?;
        require_regular(seen.kind)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        opened_as_seen(openat(&self.fd, name.as_bytes(), flags, Mode::empty())?, &seen)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl Capacity ===

impl Capacity {
    /// What is not available to an unprivileged process: `f_frsize * (f_blocks - f_bavail)`.
    pub fn used(&self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

fn require_regular(kind: FileKind) -> io::Result<()> {
    match kind {
        FileKind::File => Ok(()),
        FileKind::Dir => Err(rustix::io::Errno::ISDIR.into()),
        other => Err(FileError::NotRegular(other).into()),
    }
}

/// Makes sure that the opened file is the one that was looked at, and takes `O_NONBLOCK` off it again: that was
/// only there for the moment in which someone could have put a FIFO in its place.
fn opened_as_seen(fd: OwnedFd, seen: &Stat) -> io::Result<(File, Stat)> {
    let stat = Stat::of(&fd)?;
    if stat.id() != seen.id() || stat.kind != FileKind::File {
        return Err(FileError::Replaced.into());
    }
    // Of the flags that can be changed it was opened with no other.
    rustix::fs::fcntl_setfl(&fd, OFlags::empty())?;
    Ok((File::from(fd), stat))
}
