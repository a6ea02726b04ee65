//! Which files the process may get at, as Landlock rules (landlock(7)).
//!
//! A rule holds for a directory and all that is below it, mounts included, by the directory itself and not by its name. So
//! a volume that is mounted is allowed by the directory above its mount point: the rule outlives the mount, and a volume
//! that was gone comes back by itself. A file that others replace by renaming is allowed by its directory, too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use config::Config;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use crate::kernel::{Handled, Ruleset};
use crate::volume;

// Rights on files, from linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// All that the first version knows, and REFER of the second.
const FIRST: u64 = (1 << 14) - 1;
/// What can be allowed on something that is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const READ: u64 = READ_FILE | READ_DIR;
/// A volume: everything but devices and programs.
const VOLUME: u64 = READ
    | WRITE_FILE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER;
/// A directory of log files.
const LOG: u64 = READ | WRITE_FILE | TRUNCATE | REMOVE_FILE | MAKE_REG | MAKE_DIR | REFER;

// Rights on ports, since version 4, and what is kept within the process, since version 6.
const BIND_TCP: u64 = 1;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// Version 2 (Linux 5.19) is the first in which files can be moved between directories.
pub(super) const OLDEST: u32 = 2;

/// What the resolver and TLS of outgoing connections read: where names are looked up, the libraries that do it, and the
/// authorities that the system trusts.
const FOR_CONNECTIONS: [&str; 9] = [
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/dev/null",
];

/// The places with their rights.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    rights: BTreeMap<PathBuf, u64>,
    /// Volumes that would not be found again if they were unmounted and mounted again.
    pub(super) fixed: Vec<String>,
}

impl Places {
    /// What this configuration needs. `read` are the files that belong to it; `mounts` is the text of
    /// `/proc/self/mountinfo`; `programs`, whether tools of vendors are run.
    pub(super) fn of(config: &Config, read: &[PathBuf], mounts: &str, programs: bool) -> Self {
        let mut places = Places::default();
        for volume in &config.volumes {
            let path = real(&volume.path);
            let (anchors, outlive) = anchors(&path, mounts, volume.marker.is_some());
            if !outlive {
                places.fixed.push(volume.name.clone());
            }
            anchors.into_iter().for_each(|place| places.add(place, VOLUME));
        }
        for path in read {
            // As it is named, and where links lead.
            for path in [path.clone(), real(path)] {
                places.add(path.parent().unwrap_or(Path::new("/")).to_owned(), READ);
            }
        }
        if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|name| !name.is_empty()) {
            places.add(directory.into(), READ);
        }
        if let Some(file) = &config.logging.file {
            places.add(real(&file.path), LOG);
        }
        if let Some(directory) = config.storage_proxy.pid_file.as_ref().and_then(|file| file.parent()) {
            places.add(directory.to_owned(), REMOVE_FILE);
        }
        // The own figures, and the table of mounts.
        places.add("/proc".into(), READ);
        if dials_out(config) {
            FOR_CONNECTIONS.iter().for_each(|place| places.add(place.into(), READ));
        }
        if programs {
            places.add("/".into(), READ | EXECUTE);
            places.add("/dev/null".into(), READ | WRITE_FILE);
            volume::tool_directories().for_each(|place| places.add(place, VOLUME));
        }
        for root in &config.download.unmanaged_roots {
            places.add(real(root), READ);
        }
        for path in &config.agent.writable_paths {
            places.add(real(path), VOLUME | IOCTL_DEV);
        }
        places
    }

    fn add(&mut self, place: PathBuf, rights: u64) {
        *self.rights.entry(place).or_default() |= rights;
    }

    /// Puts the rules in force with a kernel of this version. A place that is not there is left out.
    pub(super) fn enforce(&self, version: u32) -> io::Result<()> {
        let handled = handled(version);
        let rules = Ruleset::new(&handled)?;
        for (place, rights) in &self.rights {
            let fd = match openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => fd,
                Err(error) => {
                    tracing::debug!(place = %place.display(), %error, "not allowed by the sandbox");
                    continue;
                }
            };
            let directory = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Directory;
            let possible = if directory { handled.files } else { handled.files & OF_FILES };
            rules.allow(&fd, rights & possible)?;
        }
        rules.enforce()
    }
}

/// What is taken away, as far as the kernel's version knows it.
fn handled(version: u32) -> Handled {
    let since = |first: u32, what: u64| if version >= first { what } else { 0 };
    Handled {
        files: FIRST | since(3, TRUNCATE) | since(5, IOCTL_DEV),
        ports: since(4, BIND_TCP),
        scoped: since(6, SCOPE_SIGNAL),
    }
}

/// Whether the agent connects to others than systemd and the helper.
fn dials_out(config: &Config) -> bool {
    let array = |volume: &config::Volume| {
        use config::Backend::{NetApp, PureStorage, Weka};
        matches!(volume.backend, NetApp | PureStorage | Weka)
    };
    config.events.valkey.is_some() || config.volumes.iter().any(array)
}

/// The directories that allow a volume, and whether they still do when it was mounted anew. One that is known by a marker
/// (`marked`) may be mounted only after the start.
fn anchors(path: &Path, mounts: &str, marked: bool) -> (Vec<PathBuf>, bool) {
    let mounted = volume::mount_points(mounts)
        .filter(|point| path.starts_with(point))
        .max_by_key(|p| p.as_os_str().len())
        // The root file system is never mounted anew.
        .filter(|point| point != Path::new("/"));
    let points: Vec<_> = mounted.into_iter().chain(marked.then(|| path.to_owned())).collect();
    if points.is_empty() {
        return (vec![path.to_owned()], true);
    }
    // Where the directory above would be all there is, the volume has to do.
    let above = |point: &PathBuf| point.parent().filter(|above| *above != Path::new("/")).map(Path::to_owned);
    let anchors: Vec<_> = points.iter().map(above).collect();
    let outlive = anchors.iter().all(Option::is_some);
    (anchors.into_iter().map(|anchor| anchor.unwrap_or_else(|| path.to_owned())).collect(), outlive)
}

/// The path without links, or as it is where it can't be followed.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        50 22 0:45 / /vfroot/nas rw shared:9 - nfs4 filer:/a rw\n51 22 8:2 / /data rw - xfs /dev/sdb rw,prjquota\n";

    #[test]
    fn a_mounted_volume_is_allowed_by_the_directory_above_its_mount_point() {
        let of = |path: &str, marked| {
            let (anchors, outlive) = anchors(Path::new(path), MOUNTS, marked);
            (anchors.iter().map(|anchor| anchor.to_str().unwrap()).collect::<Vec<_>>().join(" "), outlive)
        };
        assert_eq!(of("/vfroot/nas", false), ("/vfroot".into(), true));
        assert_eq!(of("/vfroot/nas/vfolders", false), ("/vfroot".into(), true));
        assert_eq!(of("/srv/vfolders", false), ("/srv/vfolders".into(), true), "no mount of its own");
        assert_eq!(of("/srv/vfolders", true), ("/srv".into(), true), "it may come");
        assert_eq!(
            of("/data/vfolders", false),
            ("/data/vfolders".into(), false),
            "the root is never given away"
        );
        assert_eq!(of("/vfolders", true), ("/vfolders".into(), false));
    }

    #[test]
    fn older_kernels_are_asked_for_what_they_know() {
        assert_eq!(handled(2), Handled { files: FIRST, ports: 0, scoped: 0 });
        assert_eq!(handled(3).files & TRUNCATE, TRUNCATE);
        assert_eq!(handled(4), Handled { files: FIRST | TRUNCATE, ports: BIND_TCP, scoped: 0 });
        assert_eq!(handled(6).scoped, SCOPE_SIGNAL);
    }
}
