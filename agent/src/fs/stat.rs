//! What a file is: kind, size, times, identity.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, Statx, StatxFlags, fchmod};
use rustix::io::Errno;
use std::io;

/// What `statx(2)` is always asked for; the mount is filled in by kernels from 5.8 on.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// The kinds of file that this program tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device: never opened.
    Other,
    /// A directory listing that doesn't say; ask with `stat`.
    Unknown,
}

/// Seconds and nanoseconds since 1970-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub secs: i64,
    /// 0 to 999,999,999, counted forward from `secs`.
    pub nanos: u32,
}

/// What tells one file from all others that exist at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// A mount, told from all others that exist at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountedOn {
    /// Id of the mount; 0 where the kernel doesn't tell (before 5.8).
    pub mount: u64,
    /// Device number (`st_dev`).
    pub dev: u64,
}

/// The result of one `statx(2)`, of the link itself where the file is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Which kind of file; never [`FileKind::Unknown`].
    pub kind: FileKind,
    /// The full `st_mode`, type bits included.
    pub mode: u32,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes allocated on the device.
    pub allocated: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Id of the mount; 0 where the kernel doesn't tell (before 5.8).
    pub mount: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

// === impl FileKind ===

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> FileKind {
        match kind {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Symlink,
            FileType::Unknown => FileKind::Unknown,
            _ => FileKind::Other,
        }
    }
}

// === impl MountedOn ===

impl MountedOn {
    /// What this host knows of an open file, without asking a server (`AT_STATX_DONT_SYNC`).
    pub(super) fn of(fd: impl AsFd) -> io::Result<MountedOn> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let Stat { mount, dev, .. } = Stat::from(rustix::fs::statx(fd, c"", flags, WANTED)?);
        Ok(MountedOn { mount, dev })
    }
}

// === impl Stat ===

impl Stat {
    /// Permission, set-id and sticky bits.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Device and inode.
    pub fn id(&self) -> FileId {
        FileId { dev: self.dev, ino: self.ino }
    }

    /// Whether both files lie on the same mount of the same file system.
    pub fn same_mount(&self, other: &Stat) -> bool {
        self.dev == other.dev && self.mount == other.mount
    }

    /// `statx` of the open file itself.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Stat> {
        Ok(Stat::from(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED)?))
    }

    /// `statx` of a name in a directory, not following a link.
    pub(crate) fn at(dir: impl AsFd, name: &[u8], extra: AtFlags) -> io::Result<Stat> {
        Ok(Stat::from(rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | extra, WANTED)?))
    }
}

impl From<Statx> for Stat {
    fn from(statx: Statx) -> Stat {
        let mode = u32::from(statx.stx_mode);
        let time = |time: rustix::fs::StatxTimestamp| Time { secs: time.tv_sec, nanos: time.tv_nsec };
        let has_mount = statx.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Stat {
            kind: FileType::from_raw_mode(mode).into(),
            mode,
            size: statx.stx_size,
            allocated: statx.stx_blocks.saturating_mul(512),
            atime: time(statx.stx_atime),
            mtime: time(statx.stx_mtime),
            ctime: time(statx.stx_ctime),
            dev: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
            ino: statx.stx_ino,
            mount: if has_mount { statx.stx_mnt_id } else { 0 },
            nlink: statx.stx_nlink,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
        }
    }
}
/// Sets the mode of an open file, which has the mode of `now`. `false`: without its set-id bits, which the sandbox
/// refuses.
pub(crate) fn set_mode_as_allowed(file: impl AsFd, now: &Stat, mode: u32) -> io::Result<bool> {
    const SET_ID: u32 = 0o6000;
    // What a directory has inherited need not be set, and then isn't refused.
    if now.permissions() == mode {
        return Ok(true);
    }
    match fchmod(&file, Mode::from_raw_mode(mode)) {
        Err(Errno::PERM) if mode & SET_ID != 0 => {
            fchmod(&file, Mode::from_raw_mode(mode & !SET_ID))?;
            Ok(false)
        }
        other => Ok(other.map(|()| true)?),
    }
}
