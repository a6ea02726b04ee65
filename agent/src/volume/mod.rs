//! Volumes: a mount point, and the parts that know how quotas and figures work there.
//!
//! A volume is composed of parts: a quota model, a tree engine, a gauge, an examiner. A backend is the choice of
//! parts, one line in the table of `backend`. The directory is opened anew for each operation, so that a file system
//! which was unmounted and mounted again is simply there.

pub(crate) mod array;
mod backend;
mod cephfs;
mod examine;
mod gauge;
mod mount;
mod netapp;
mod pulse;
mod purestorage;
mod quota;
mod tool;
mod trees;
mod weka;
mod work;
mod xfs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::id::{QuotaScopeId, ScopeKind, VfolderId};
use config::{Agent, Config, Limits};

pub use self::array::ArrayError;
pub use self::backend::{Backend, is_native};
pub use self::examine::Examine;
pub use self::gauge::{Capacity, FsPerfMetric, Gauge, Hardware};
use self::mount::Mount;
pub use self::quota::{Allowance, Drift, DriftKind, EntryUsage, QuotaModel, Room, ScopeUsage};
pub use self::trees::Trees;
use self::work::Bounds;
use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath, Stat, cached};

/// What a new directory may be used for by whom, before the umask: everybody reads, the owner writes.
pub const DIR_MODE: u32 = 0o755;

/// The name of the volume that is always there, never listed, and does nothing.
pub const NOOP: &str = "noop";

/// The mount points in a mount table (proc_pid_mountinfo(5)).
pub(crate) fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().map(pulse::mount_point)
}

/// Whether a volume uses a vendor's tool that is installed, so that programs have to be started.
pub(crate) fn runs_programs(config: &Config) -> bool {
    config.volumes.iter().any(|volume| match volume.backend {
        config::Backend::NetApp => netapp::has_tool(volume),
        config::Backend::PureStorage => purestorage::has_tool(volume),
        _ => false,
    })
}

/// Where the tools of vendors write besides volumes, as far as their own variables say.
pub(crate) fn tool_directories() -> impl Iterator<Item = PathBuf> {
    tool::directories()
}

/// One configured volume.
pub struct Volume {
    /// The name under `[volume.<name>]`.
    pub name: String,
    /// The configured path of the mount point.
    pub path: PathBuf,
    /// What managers are told as `fsprefix`; no path is built from it.
    pub fsprefix: String,
    /// The parts.
    pub backend: Backend,
    bounds: Bounds,
    mount: Mount,
}

impl Volume {
    /// The volume that the configuration describes, or nothing if its backend is not known.
    pub fn configured(volume: &config::Volume, config: &Config) -> Option<Self> {
        let path = backend::data_path(volume);
        Some(Volume {
            name: volume.name.clone(),
            fsprefix: volume.fsprefix.clone(),
            backend: Backend::of(volume, config)?,
            mount: Mount::new(volume.marker.as_deref()),
            bounds: Bounds::new(&volume.name, &path, &config.agent, &config.limits),
            path,
        })
    }

    /// A plain directory, whatever it lies on.
    pub fn plain(name: &str, path: PathBuf) -> Self {
        let bounds = Bounds::new(name, &path, &Agent::default(), &Limits::default());
        let (backend, mount) = (Backend::plain("vfs"), Mount::new(None));
        Volume { name: name.into(), path, fsprefix: ".".into(), backend, bounds, mount }
    }

    /// Opens the mount point, where the backend's file system must be, and still the one that was.
    pub fn root(&self) -> Result<Dir, OpError> {
        let trees = &self.backend.trees;
        let open = || {
            let root = Dir::open_root(&self.path)?;
            self.mount.check(&root)?;
            trees.accept(&root)?;
            Ok(root.reserving(trees.reserved_name()))
        };
        open().map_err(|source| OpError::VolumeUnavailable { volume: self.name.clone(), source })
    }

    /// Why the file system that stands at the path is not the volume's, if it is so. Blocks.
    pub fn is_absent(&self) -> Option<io::Error> {
        Dir::open_root(&self.path).and_then(|root| self.mount.check(&root)).err()
    }

    /// Opens the directory that holds a bare folder (the mount point) or a scoped one (the scope's directory).
    pub fn holder(&self, scope: Option<&QuotaScopeId>) -> Result<Dir, OpError> {
        let root = self.root()?;
        let Some(scope) = scope else { return Ok(root) };
        let path = scope_path(scope)?;
        match root.open_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpError::ScopeNotFound(*scope)),
            opened => opened.map_err(|e| OpError::fs(e, &path)),
        }
    }

    /// The scopes that have a directory. Their kind is not known, and no part of the directory's name.
    pub fn scopes(&self) -> Result<Vec<QuotaScopeId>, OpError> {
        let mut scopes = Vec::new();
        for entry in self.root()?.entries().map_err(|e| OpError::fs(e, &RelPath::root()))? {
            let entry = entry.map_err(|e| OpError::fs(e, &RelPath::root()))?;
            let name = std::str::from_utf8(entry.name.as_bytes()).ok().filter(|name| name.len() == 32);
            scopes.extend(
                name.and_then(|name| name.parse().ok()).map(|uuid| QuotaScopeId::new(ScopeKind::User, uuid)),
            );
        }
        Ok(scopes)
    }

    /// Makes the scope's directory. Whether it was missing.
    pub fn make_scope_dir(&self, scope: &QuotaScopeId) -> Result<bool, OpError> {
        let path = scope_path(scope)?;
        let root = self.root()?;
        let Some((_, name)) = path.split_last() else { return Ok(false) };
        match root.mkdir(name, DIR_MODE) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(OpError::fs(error, &path)),
        }
    }

    /// Removes the scope's directory, which must be empty.
    pub fn remove_scope_dir(&self, scope: &QuotaScopeId) -> Result<(), OpError> {
        let path = scope_path(scope)?;
        let root = self.root()?;
        let Some((_, name)) = path.split_last() else { return Ok(()) };
        root.rmdir(name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpError::ScopeNotFound(*scope),
            io::ErrorKind::DirectoryNotEmpty => OpError::ScopeNotEmpty(*scope),
            _ => OpError::fs(error, &path),
        })
    }

    /// Opens a vfolder. Links in its place are followed while they stay inside the volume.
    pub fn vfolder(&self, id: &VfolderId) -> Result<Dir, OpError> {
        let path = vfolder_path(id)?;
        self.root()?.open_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpError::VfolderNotFound(*id),
            _ => OpError::fs(error, &path),
        })
    }

    /// Opens a file of a vfolder if that takes no waiting, for an async worker; see [`cached`].
    pub fn open_cached(&self, id: &VfolderId, path: &RelPath) -> Option<(File, Stat)> {
        cached::open_file(&self.path, &[&vfolder_path(id).ok()?, path]).ok()
    }

    /// The limit in bytes that the folder counts against, where that can be told without asking somebody else.
    pub fn quota_of(&self, id: &VfolderId) -> Result<Option<u64>, OpError> {
        self.backend.quota.limit_above(self, id)
    }

    /// The absolute path of a vfolder as managers hand it to agents, links resolved.
    pub fn absolute(&self, id: &VfolderId) -> Result<PathBuf, OpError> {
        self.vfolder(id)?;
        let path = path_below(&self.path, &vfolder_path(id)?);
        std::fs::canonicalize(path).map_err(|e| OpError::fs(e, &RelPath::root()))
    }
}

/// The names of a path below a directory of the configuration. For showing it, never for opening it.
fn path_below(root: &Path, path: &RelPath) -> PathBuf {
    let mut all = root.to_owned();
    all.extend(path.names().iter().map(Name::as_os_str));
    all
}

/// The scope's directory, from the mount point.
pub fn scope_path(scope: &QuotaScopeId) -> Result<RelPath, OpError> {
    relative(&scope.dir_name())
}

/// The folder's directory, from the mount point.
pub fn vfolder_path(id: &VfolderId) -> Result<RelPath, OpError> {
    let below = id.dir_names().join("/");
    match id.scope() {
        Some(scope) => relative(&format!("{}/{below}", scope.dir_name())),
        None => relative(&below),
    }
}

fn relative(path: &str) -> Result<RelPath, OpError> {
    RelPath::parse(path.as_bytes()).map_err(|e| OpError::path(path.as_bytes(), &e))
}

/// A volume that a request named.
#[derive(Clone)]
pub enum VolumeRef {
    /// The volume that does nothing.
    Noop,
    /// A configured one.
    Real(Arc<Volume>),
}

/// All volumes of this storage node.
#[derive(Default)]
pub struct Volumes {
    by_name: BTreeMap<String, Arc<Volume>>,
}

impl Volumes {
    /// The volumes in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.by_name.values()
    }

    /// Takes leave of all storage, at the end of the service.
    pub async fn close(&self) {
        let closing = self.iter().map(|volume| volume.backend.gauge.close());
        futures_util::future::join_all(closing).await;
    }

    /// The volume of this name.
    pub fn get(&self, name: &str) -> Result<VolumeRef, OpError> {
        if let Some(volume) = self.by_name.get(name) {
            return Ok(VolumeRef::Real(Arc::clone(volume)));
        }
        if name == NOOP { Ok(VolumeRef::Noop) } else { Err(OpError::UnknownVolume(name.to_owned())) }
    }

    /// The configured volume of this name; the one that does nothing is refused.
    pub fn real(&self, name: &str) -> Result<Arc<Volume>, OpError> {
        match self.get(name)? {
            VolumeRef::Real(volume) => Ok(volume),
            VolumeRef::Noop => Err(OpError::UnknownVolume(name.to_owned())),
        }
    }
}

impl FromIterator<Volume> for Volumes {
    fn from_iter<I: IntoIterator<Item = Volume>>(volumes: I) -> Self {
        let by_name = volumes.into_iter().map(|volume| (volume.name.clone(), Arc::new(volume))).collect();
        Volumes { by_name }
    }
}
