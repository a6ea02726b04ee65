//! Volumes on NetApp ONTAP, through its REST API.
//!
//! Two generations of configurations exist. From 23.03.5 on a quota scope is a qtree of the ONTAP volume that is mounted;
//! before, one existing qtree was the whole volume. The keys that are given tell which.

mod codes;
mod examine;
mod figures;
mod gate;
mod ontap;
mod qtree;
mod quotas;
mod scopes;
mod xcp;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::examine::Checks;
use self::figures::Figures;
use self::ontap::Ontap;
use self::qtree::QtreeQuota;
use self::scopes::Scopes;
use self::xcp::Xcp;
use super::Backend;
use super::array::{Basic, Client, Settings};
use super::tool::Tool;
use crate::error::OpError;

/// How long a job of the array may take, unless configured.
const JOB_PATIENCE: Duration = Duration::from_secs(120);

/// The backend of this volume.
pub(super) fn backend(volume: &config::Volume, _: &config::Config) -> Backend {
    match volume.options.text("netapp_qtree_name") {
        Some(qtree) => one_qtree(volume, qtree.to_owned()),
        None => qtree_per_scope(volume),
    }
}

fn qtree_per_scope(volume: &config::Volume) -> Backend {
    let options = &volume.options;
    let ontap =
        Arc::new(ontap(volume, ["netapp_ontap_endpoint", "netapp_ontap_user", "netapp_ontap_password"]));
    let settings = xcp::Settings {
        volume: volume.name.clone(),
        command: xcp_command(volume),
        host: options.text("netapp_nfs_host").map(str::to_owned),
        mounted: volume.path.clone(),
        qtree: None,
    };
    let xcp = Arc::new(Xcp::new(settings, Arc::clone(&ontap)));
    let capabilities: &[&str] = match xcp.is_installed() {
        true => &["vfolder", "quota", "metric", "fast-fs-size", "fast-size"],
        false => &["vfolder", "quota", "metric", "fast-fs-size"],
    };
    Backend {
        name: "netapp",
        capabilities,
        quota: Box::new(Scopes::new(Arc::clone(&ontap))),
        trees: Arc::clone(&xcp) as _,
        gauge: Box::new(Figures::new(Arc::clone(&ontap), None)),
        examine: Box::new(Checks { ontap, xcp, qtree: None }),
    }
}

fn one_qtree(volume: &config::Volume, qtree: String) -> Backend {
    let text = |key: &str| volume.options.text(key).map(str::to_owned);
    let ontap = Arc::new(ontap(volume, ["netapp_endpoint", "netapp_admin", "netapp_password"]));
    let is_mounted_itself = data_path(volume) == volume.path;
    let settings = xcp::Settings {
        volume: volume.name.clone(),
        command: xcp_command(volume),
        host: text("netapp_xcp_hostname"),
        mounted: volume.path.clone(),
        qtree: is_mounted_itself.then(|| qtree.clone()),
    };
    let xcp = Arc::new(Xcp::new(settings, Arc::clone(&ontap)));
    Backend {
        name: "netapp",
        capabilities: &["vfolder", "vfhost-quota", "metric"],
        quota: Box::new(QtreeQuota::new(Arc::clone(&ontap), qtree.clone())),
        trees: Arc::clone(&xcp) as _,
        gauge: Box::new(Figures::new(Arc::clone(&ontap), Some(qtree.clone()))),
        examine: Box::new(Checks { ontap, xcp, qtree: Some(qtree) }),
    }
}

/// How XCP is called: the command that the configuration names, else in the container that it names, else by name.
fn xcp_command(volume: &config::Volume) -> Vec<String> {
    let options = &volume.options;
    match (options.list("netapp_xcp_cmd"), options.text("netapp_xcp_container_name")) {
        (Some(command), _) => command.to_vec(),
        (None, Some(container)) => ["docker", "exec", container, "xcp"].map(str::to_owned).to_vec(),
        (None, None) => vec!["xcp".to_owned()],
    }
}

/// Whether XCP is there.
pub(super) fn has_tool(volume: &config::Volume) -> bool {
    Tool::find(&xcp_command(volume)).is_some()
}

/// The directory that holds scopes and folders.
pub(super) fn data_path(volume: &config::Volume) -> PathBuf {
    match volume.options.text("netapp_qtree_name") {
        Some(qtree) => qtree::data_path(&volume.path, qtree),
        None => volume.path.clone(),
    }
}

fn ontap(volume: &config::Volume, [endpoint, user, password]: [&'static str; 3]) -> Ontap {
    let options = &volume.options;
    let text = |key: &str| options.text(key).unwrap_or_default().to_owned();
    let settings = Settings::of(volume, "netapp", endpoint, password, "netapp_verify_ssl");
    let basic = Basic { user: text(user), keys: user_and_password(user), busy: ontap::is_busy };
    let svm = options.text("netapp_svm_name").or(options.text("netapp_svm")).map(str::to_owned);
    let patience = options.duration("netapp_job_timeout").unwrap_or(JOB_PATIENCE);
    Ontap::new(Client::new(settings, Box::new(basic)), text("netapp_volume_name"), svm, patience)
}

fn user_and_password(user: &str) -> &'static str {
    if user == "netapp_admin" {
        "netapp_admin and netapp_password"
    } else {
        "netapp_ontap_user and netapp_ontap_password"
    }
}

fn no_folder_quota() -> OpError {
    OpError::Unsupported { backend: "netapp", what: "quota of a single folder" }
}
