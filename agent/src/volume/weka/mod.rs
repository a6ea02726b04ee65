//! Volumes on a Weka cluster, through its REST API v2. Files are served from the mounted file system.

mod cluster;
mod examine;
mod figures;
mod login;
mod scopes;

use std::sync::Arc;

use self::cluster::Cluster;
use self::examine::Checks;
use self::figures::Figures;
use self::login::Tokens;
use self::scopes::Scopes;
use super::Backend;
use super::array::{Client, Settings};
use super::trees::Common;

/// The organization of whoever is in none.
const ROOT: &str = "Root";

/// The backend of this volume.
pub(super) fn backend(volume: &config::Volume, _: &config::Config) -> Backend {
    let text = |key: &str| volume.options.text(key).map(str::to_owned);
    let settings = Settings::of(volume, "weka", "weka_endpoint", "weka_password", "weka_verify_ssl");
    let tokens = Tokens {
        user: text("weka_username").unwrap_or_default(),
        password: settings.secret.clone(),
        organization: text("weka_organization").unwrap_or_else(|| ROOT.to_owned()),
    };
    let by_rpc = volume.options.text("weka_quota_api") == Some("v1");
    let name = text("weka_fs_name").unwrap_or_default();
    let cluster = Arc::new(Cluster::new(Client::new(settings, Box::new(tokens)), name, by_rpc));
    Backend {
        name: "weka",
        capabilities: &["vfolder", "quota", "metric", "fast-fs-size"],
        quota: Box::new(Scopes::new(Arc::clone(&cluster))),
        trees: Arc::new(Common),
        gauge: Box::new(Figures::new(Arc::clone(&cluster))),
        examine: Box::new(Checks { cluster }),
    }
}
