//! Volumes: a mount point, and the parts that know how quotas and figures work there.
//!
//! A volume is composed of a quota model and a gauge; a backend is the choice of parts, one line in the
//! table of `backend`. The directory is opened anew for each operation, so that a file system which was
//! unmounted and mounted again is simply there.

mod backend;
mod gauge;
mod quota;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::id::{QuotaScopeId, VfolderId};

pub use self::backend::{Backend, backend};
pub use self::gauge::{Capacity, FsPerfMetric, Gauge, Hardware};
pub use self::quota::{QuotaModel, ScopeUsage};
use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath};

/// The name of the volume that is always there, never listed, and does nothing.
pub const NOOP: &str = "noop";

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
}

impl Volume {
    /// The volume that the configuration describes, or nothing if its backend is not known.
    pub fn configured(volume: &config::Volume) -> Option<Self> {
        Some(Volume {
            name: volume.name.clone(),
            path: volume.path.clone(),
            fsprefix: volume.fsprefix.clone(),
            backend: backend(&volume.backend_name)?,
        })
    }

    /// Opens the mount point.
    pub fn root(&self) -> Result<Dir, OpError> {
        Dir::open_root(&self.path)
            .map_err(|source| OpError::VolumeUnavailable { volume: self.name.clone(), source })
    }

    /// Opens the directory that holds a bare folder (the mount point) or a scoped one (the scope's directory).
    pub fn holder(&self, scope: Option<&QuotaScopeId>) -> Result<Dir, OpError> {
        let root = self.root()?;
        let Some(scope) = scope else { return Ok(root) };
        let path = scope_path(scope)?;
        match root.open_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpError::ScopeNotFound(*scope)),
            opened => opened.map_err(|e| OpError::fs(e, &path)),
        }
    }

    /// Opens a vfolder. Links in its place are followed while they stay inside the volume.
    pub fn vfolder(&self, id: &VfolderId) -> Result<Dir, OpError> {
        let path = vfolder_path(id)?;
        self.root()?.open_dir(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => OpError::VfolderNotFound(*id),
            _ => OpError::fs(error, &path),
        })
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
