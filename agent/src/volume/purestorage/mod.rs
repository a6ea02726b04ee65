//! Volumes on Pure Storage FlashBlade, through its REST API 1.x or 2.x. Files are served from the NFS mount.

mod blade;
mod examine;
mod figures;
mod rapidfile;
mod scopes;
mod sessions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::blade::Blade;
use self::examine::Checks;
use self::figures::Figures;
use self::rapidfile::RapidFile;
use self::scopes::Measured;
use self::sessions::Sessions;
use super::Backend;
use super::array::{Client, Settings};
use super::quota::Unlimited;

/// The backend of this volume.
pub(super) fn backend(volume: &config::Volume, config: &config::Config) -> Backend {
    let text = |key: &str| volume.options.text(key).map(str::to_owned);
    let settings = Settings::of(volume, "purity", "purity_endpoint", "purity_api_token", "purity_ssl_verify");
    let client = Client::new(settings, Box::new(Sessions));
    let version = text("purity_api_version").filter(|version| version != "auto");
    let blade = Arc::new(Blade::new(client, text("purity_fs_name").unwrap_or_default(), version));
    let toolkit = Arc::new(RapidFile::new(&volume.name, toolkit_path(volume)));
    let capabilities: &[&str] = match toolkit.is_installed() {
        true => &["vfolder", "metric", "fast-fs-size", "fast-scan"],
        false => &["vfolder", "metric", "fast-fs-size"],
    };
    Backend {
        name: "purestorage",
        capabilities,
        quota: Box::new(Measured {
            directories: Unlimited { backend: "purestorage" },
            threads: config.limits.tree_parallelism,
        }),
        trees: Arc::clone(&toolkit) as _,
        gauge: Box::new(Figures::new(Arc::clone(&blade), text("purity_endpoint").unwrap_or_default())),
        examine: Box::new(Checks { blade, toolkit }),
    }
}

fn toolkit_path(volume: &config::Volume) -> Option<PathBuf> {
    volume.options.path("purity_toolkit_path").map(Path::to_owned)
}

/// Whether the RapidFile Toolkit is there.
pub(super) fn has_tool(volume: &config::Volume) -> bool {
    rapidfile::tool(toolkit_path(volume).as_deref(), "pdu").is_some()
}
