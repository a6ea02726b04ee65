//! What belongs to a file besides its content: owner, mode, attributes, times.
//!
//! The order matters: a change of owner clears the set-id bits, and writing an attribute or a mode would change the
//! time of change anyway, so owner comes first and times come last.

use std::io;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, Gid, Timespec, Timestamps, Uid, XattrFlags, chownat, fchown, fgetxattr, flistxattr, fsetxattr,
    futimens, utimensat,
};
use rustix::io::Errno;

use crate::fs::{Dir, Name, Stat, Time, set_mode_as_allowed};

/// Largest value that an attribute can have (xattr(7)).
const MAX_XATTR: usize = 64 * 1024;

/// Something of a file that its copy doesn't have.
pub(super) struct Lost {
    pub(super) what: &'static str,
    pub(super) cause: io::Error,
}

/// Gives the open copy, of which `made` says what it is like so far, the metadata of its source. Fails when mode or times
/// can't be set; the rest is best effort.
pub(super) fn apply(src: impl AsFd, stat: &Stat, dst: impl AsFd, made: &Stat) -> io::Result<Vec<Lost>> {
    let (src, dst) = (src.as_fd(), dst.as_fd());
    let mut lost = Vec::new();
    let mode = stat.permissions() & keep_owner(stat, dst, made, &mut lost);
    copy_xattrs(src, dst, &mut lost);
    if !set_mode_as_allowed(dst, made, mode)? {
        lost.push(Lost { what: "keep the set-id bits", cause: Errno::PERM.into() });
    }
    futimens(dst, &times(stat))?;
    Ok(lost)
}

/// Gives the copy its source's owner and group; which bits of the mode the copy may then have. What is right already is
/// not set: the packaged unit forbids the system call, as it is one of privileged programs.
fn keep_owner(stat: &Stat, dst: BorrowedFd<'_>, made: &Stat, lost: &mut Vec<Lost>) -> u32 {
    if (made.uid, made.gid) == (stat.uid, stat.gid) {
        return !0;
    }
    let Err(error) = fchown(dst, owner(stat), group(stat)) else { return !0 };
    lost.push(Lost { what: "keep the owner", cause: error.into() });
    // Without the owner the bits would give away somebody else's rights: the group if that can be had.
    let grouped = made.gid == stat.gid || fchown(dst, None, group(stat)).is_ok();
    if grouped { !0o4000 } else { !0o6000 }
}

/// Gives the link `name` the owner and times of its source; links have no mode on Linux.
pub(super) fn apply_to_link(stat: &Stat, dir: &Dir, name: &Name) -> Vec<Lost> {
    let owned = match dir.stat(name) {
        Ok(copy) if (copy.uid, copy.gid) == (stat.uid, stat.gid) => Ok(()),
        _ => chownat(dir, name.as_bytes(), owner(stat), group(stat), AtFlags::SYMLINK_NOFOLLOW),
    };
    let name = name.as_bytes();
    let timed = utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW);
    [("keep the owner", owned), ("keep the times", timed)]
        .into_iter()
        .filter_map(|(what, result)| result.err().map(|cause| Lost { what, cause: cause.into() }))
        .collect()
}

/// Copies the attributes that users set themselves; other name spaces carry rights or belong to the file system.
fn copy_xattrs(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, lost: &mut Vec<Lost>) {
    let mut names = Vec::new();
    // Most files have none, and then this is the only call.
    let listed = match rustix::fs::flistxattr_query(src) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return,
        Ok(size) => {
            names.reserve_exact(size);
            flistxattr(src, rustix::buffer::spare_capacity(&mut names))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = listed {
        lost.push(Lost { what: "read the attributes", cause: error.into() });
        return;
    }
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        if let Err(error) = copy_xattr(src, dst, name) {
            lost.push(Lost { what: "keep an attribute", cause: error.into() });
        }
    }
}

fn copy_xattr(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut value = Vec::with_capacity(MAX_XATTR);
    fgetxattr(src, name, rustix::buffer::spare_capacity(&mut value))?;
    fsetxattr(dst, name, &value, XattrFlags::empty())
}

fn owner(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.uid))
}

fn group(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.gid))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time(stat.atime), last_modification: time(stat.mtime) }
}
