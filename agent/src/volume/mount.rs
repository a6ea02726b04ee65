//! Whether what stands at a volume's path is still what was mounted there.
//!
//! When a file system is lost, the directory that it was mounted on is there again, empty and writable, and an agent
//! that did not look would fill it. So a volume is served from the mount point that it was first seen on, or from one
//! below that, and from nothing else; a file system that was mounted there anew is welcome. Nobody can know that of
//! an agent that starts while the mount is missing: a marker, a name that must be in the volume's root, can tell it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::pulse::unescape;
use crate::fs::{Dir, MountedOn, Name};

/// What a volume was last found on.
struct Seen {
    on: MountedOn,
    point: PathBuf,
}

/// The watch over one volume's mount.
pub(super) struct Mount {
    marker: Option<Name>,
    seen: Mutex<Option<Seen>>,
    was_writable: AtomicBool,
}

impl Mount {
    /// Nothing has been seen yet.
    pub(super) fn new(marker: Option<&str>) -> Self {
        let marker = marker.and_then(|marker| Name::new(marker.as_bytes()).ok());
        Mount { marker, seen: Mutex::default(), was_writable: AtomicBool::new(false) }
    }

    /// Fails if the volume's root is another directory than it should be. Asked at every opening: it takes one call
    /// that no server is asked for, until the mount changes.
    pub(super) fn check(&self, root: &Dir) -> io::Result<()> {
        let on = root.mounted_on()?;
        let expected = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match seen.as_ref() {
                Some(seen) if seen.on == on => return Ok(()),
                Some(seen) => Some(seen.point.clone()),
                None => None,
            }
        };
        // Without the lock: a file system that hangs must not keep its successor from being looked at.
        let point = mount_point(on.mount)?;
        if let Some(expected) = expected.filter(|expected| !point.starts_with(expected)) {
            return Err(absent(format!("what was mounted on {} is gone", expected.display())));
        }
        self.look_for_marker(root)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { on, point });
        Ok(())
    }

    fn look_for_marker(&self, root: &Dir) -> io::Result<()> {
        let Some(marker) = &self.marker else { return Ok(()) };
        match root.stat(marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(absent(format!("{marker}, the volume's marker, is not in it")))
            }
            found => found.map(drop),
        }
    }

    /// Whether the file system could be written once and can't any more, as after an error of its disk. One that never
    /// could is meant to be so.
    pub(super) fn has_become_read_only(&self, root: &Dir) -> io::Result<bool> {
        if root.is_read_only()? {
            return Ok(self.was_writable.load(Ordering::Relaxed));
        }
        self.was_writable.store(true, Ordering::Relaxed);
        Ok(false)
    }
}

fn absent(what: String) -> io::Error {
    let reason =
        format!("{what}; nothing is served from the directory below until the file system is mounted again");
    io::Error::new(io::ErrorKind::NotFound, reason)
}

/// Where a mount is, by its id (proc_pid_mountinfo(5)); `/` where the kernel does not tell.
fn mount_point(mount: u64) -> io::Result<PathBuf> {
    let Some(table) = std::fs::read_to_string("/proc/self/mountinfo").ok().filter(|_| mount != 0) else {
        return Ok(PathBuf::from("/"));
    };
    let point = table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let id: u64 = fields.next()?.parse().ok()?;
        (id == mount).then(|| fields.nth(3).map(unescape)).flatten()
    });
    point.map(PathBuf::from).ok_or_else(|| absent("its mount went away while it was looked at".into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_volume_without_its_marker_is_not_served_until_it_is_there() {
        let place = tempfile::tempdir().unwrap();
        let root = || Dir::open_root(place.path()).unwrap();
        let mount = Mount::new(Some(".volume"));
        let error = mount.check(&root()).unwrap_err().to_string();
        assert!(error.contains(".volume, the volume's marker"), "{error}");
        std::fs::write(place.path().join(".volume"), "").unwrap();
        mount.check(&root()).unwrap();
    }

    #[test]
    fn a_mount_point_that_was_seen_must_stay_and_what_is_mounted_deeper_is_taken() {
        let mount = Mount::new(None);
        let (proc, root) =
            (Dir::open_root(Path::new("/proc")).unwrap(), Dir::open_root(Path::new("/")).unwrap());
        mount.check(&root).unwrap();
        mount.check(&proc).unwrap();
        mount.check(&proc).unwrap();
        let error = mount.check(&root).unwrap_err().to_string();
        assert!(error.contains("what was mounted on /proc is gone"), "{error}");
    }

    #[test]
    fn what_was_never_writable_has_not_become_read_only() {
        let place = tempfile::tempdir().unwrap();
        let mount = Mount::new(None);
        assert!(!mount.has_become_read_only(&Dir::open_root(place.path()).unwrap()).unwrap());
        assert!(mount.was_writable.load(Ordering::Relaxed));
    }
}
