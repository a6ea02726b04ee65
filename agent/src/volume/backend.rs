//! The table of backends. Adding one is a line here and a folder for its parts.

use super::gauge::{Gauge, Mounted};
use super::quota::{QuotaModel, Unlimited};

/// The parts that make a volume what it is.
pub struct Backend {
    /// The name that the configuration and managers use.
    pub name: &'static str,
    /// What managers are told that the volume can do.
    pub capabilities: &'static [&'static str],
    /// Whether the backend's own features are provided, or the volume is served as a plain directory.
    pub native: bool,
    /// The quota part.
    pub quota: Box<dyn QuotaModel>,
    /// The measuring part.
    pub gauge: Box<dyn Gauge>,
}

/// The names that existing configurations use. All can be served through their mount point.
const SERVED_AS_PLAIN_DIRECTORY: &[&str] = &[
    "xfs",
    "cephfs",
    "netapp",
    "weka",
    "purestorage",
    "gpfs",
    "spectrumscale",
    "vast",
    "dellemc-onefs",
    "exascaler",
    "hammerspace",
    "hammerspace-base",
];

/// The backend of this name, or nothing if there is none.
pub fn backend(name: &str) -> Option<Backend> {
    if name == "vfs" {
        return Some(plain("vfs", true));
    }
    SERVED_AS_PLAIN_DIRECTORY.iter().find(|known| **known == name).map(|known| plain(known, false))
}

fn plain(name: &'static str, native: bool) -> Backend {
    Backend {
        name,
        capabilities: &["vfolder"],
        native,
        quota: Box::new(Unlimited { backend: name }),
        gauge: Box::new(Mounted { backend: name }),
    }
}
