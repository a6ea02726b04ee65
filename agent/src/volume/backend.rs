//! The table of backends. Adding one is a line here and a folder for its parts.

use std::path::PathBuf;
use std::sync::Arc;

use config::Config;

use super::cephfs;
use super::examine::{Examine, NothingMore};
use super::gauge::{Gauge, Mounted};
use super::netapp;
use super::purestorage;
use super::quota::{QuotaModel, Unlimited};
use super::trees::{Common, Trees};
use super::weka;
use super::xfs;

/// The parts that make a volume what it is.
pub struct Backend {
    /// The name that the configuration and managers use.
    pub name: &'static str,
    /// What managers are told that the volume can do.
    pub capabilities: &'static [&'static str],
    /// The quota part.
    pub quota: Box<dyn QuotaModel>,
    /// The part that works on whole trees.
    pub trees: Arc<dyn Trees>,
    /// The measuring part.
    pub gauge: Box<dyn Gauge>,
    /// The part that tells the operator what is missing.
    pub examine: Box<dyn Examine>,
}

type Build = fn(&config::Volume, &Config) -> Backend;

/// The backends whose own features are provided.
const NATIVE: &[(&str, Build)] = &[
    ("vfs", |_, _| Backend::plain("vfs")),
    ("xfs", xfs::backend),
    ("cephfs", cephfs::backend),
    ("netapp", netapp::backend),
    ("weka", weka::backend),
    ("purestorage", purestorage::backend),
];

/// The other names that existing configurations use. All can be served through their mount point.
const SERVED_AS_PLAIN_DIRECTORY: &[&str] =
    &["gpfs", "spectrumscale", "vast", "dellemc-onefs", "exascaler", "hammerspace", "hammerspace-base"];

/// Whether the backend's own features are provided; otherwise the volume is served as a plain directory.
pub fn is_native(name: &str) -> bool {
    NATIVE.iter().any(|(native, _)| *native == name)
}

/// Where scopes and folders lie: the mount point, but for a backend that keeps them in a directory of its own there.
pub(super) fn data_path(volume: &config::Volume) -> PathBuf {
    match volume.backend {
        config::Backend::NetApp => netapp::data_path(volume),
        _ => volume.path.clone(),
    }
}

impl Backend {
    /// The backend that the volume names, or nothing if there is none.
    pub(super) fn of(volume: &config::Volume, config: &Config) -> Option<Self> {
        let name = volume.backend_name.as_str();
        if let Some((_, build)) = NATIVE.iter().find(|(native, _)| *native == name) {
            return Some(build(volume, config));
        }
        SERVED_AS_PLAIN_DIRECTORY.iter().find(|known| **known == name).map(|known| Backend::plain(known))
    }

    /// A mounted directory without abilities of its own.
    pub(super) fn plain(name: &'static str) -> Self {
        Backend {
            name,
            capabilities: &["vfolder"],
            quota: Box::new(Unlimited { backend: name }),
            trees: Arc::new(Common),
            gauge: Box::new(Mounted { backend: name }),
            examine: Box::new(NothingMore),
        }
    }
}
