//! Which options the volumes on arrays need, and which do not go together.
//!
//! The reference proxy finds a missing option at its first use; here it is a mistake of the file like any other.

use crate::backend::Backend;
use crate::section::Section;
use crate::volume::Options;

/// An option and what to write for it.
type Needed = (&'static str, &'static str);

const NETAPP: &[Needed] = &[
    ("netapp_ontap_endpoint", "write the URL of the management LIF, such as \"https://10.0.0.5\""),
    ("netapp_ontap_user", "name the account that may manage qtrees and quotas"),
    ("netapp_ontap_password", "give the account's password, best by netapp_ontap_password_file"),
    ("netapp_volume_name", "name the ONTAP volume that is mounted at the volume's path"),
];

const NETAPP_QTREE: &[Needed] = &[
    ("netapp_endpoint", "write the URL of the management LIF, such as \"https://10.0.0.5\""),
    ("netapp_admin", "name the account that may manage quotas"),
    ("netapp_password", "give the account's password, best by netapp_password_file"),
    ("netapp_volume_name", "name the ONTAP volume that holds the qtree"),
    ("netapp_qtree_name", "name the qtree as System Manager shows it"),
];

/// What only configurations with a qtree per quota scope have (23.03.5 and later).
const SCOPES_ONLY: &[&str] = &[
    "netapp_ontap_endpoint",
    "netapp_ontap_user",
    "netapp_ontap_password",
    "netapp_nfs_host",
    "netapp_xcp_cmd",
];

/// What only configurations with one qtree as the volume have (22.03 and 22.09).
const QTREE_ONLY: &[&str] = &[
    "netapp_endpoint",
    "netapp_admin",
    "netapp_password",
    "netapp_qtree_name",
    "netapp_xcp_hostname",
    "netapp_xcp_catalog_path",
    "netapp_xcp_container_name",
];

const WEKA: &[Needed] = &[
    (
        "weka_endpoint",
        "write the URL of a backend, such as \"https://weka:14000\", several with commas between them",
    ),
    ("weka_username", "name a local user of the cluster"),
    ("weka_password", "give the user's password, best by weka_password_file"),
    ("weka_fs_name", "name the file system that is mounted at the volume's path"),
];

const PURE_STORAGE: &[Needed] = &[
    ("purity_endpoint", "write the URL of the management VIP, such as \"https://10.0.0.9\""),
    ("purity_api_token", "give the API token of an array user, best by purity_api_token_file"),
    ("purity_fs_name", "name the file system that is mounted at the volume's path"),
];

/// Reports what is missing or contradicts itself.
pub(crate) fn check(backend: Backend, options: &Options, s: &Section<'_>) {
    match backend {
        Backend::NetApp => netapp(options, s),
        Backend::Weka => need(WEKA, options, s),
        Backend::PureStorage => {
            need(PURE_STORAGE, options, s);
            api_version(options, s);
        }
        _ => {}
    }
}

/// Whether the option has a value, right or wrong, from whatever source.
fn given(key: &str, options: &Options, s: &Section<'_>) -> bool {
    options.keys().any(|given| given == key) || s.has(key) || s.has(&format!("{key}_file"))
}

fn need(needed: &[Needed], options: &Options, s: &Section<'_>) {
    for (key, remedy) in needed {
        if !given(key, options, s) {
            s.missing(key, remedy);
        }
    }
}

fn netapp(options: &Options, s: &Section<'_>) {
    let qtree = given("netapp_endpoint", options, s) || given("netapp_qtree_name", options, s);
    if !qtree || given("netapp_ontap_endpoint", options, s) {
        need(NETAPP, options, s);
        odd_ones_out(QTREE_ONLY, "of a qtree as the volume (22.03 and 22.09)", options, s);
    } else {
        need(NETAPP_QTREE, options, s);
        if !given("netapp_svm", options, s) && !given("netapp_svm_name", options, s) {
            s.missing("netapp_svm", "name the SVM of the volume");
        }
        odd_ones_out(SCOPES_ONLY, "of a qtree for each quota scope (23.03.5 and later)", options, s);
    }
    let names = (options.text("netapp_svm"), options.text("netapp_svm_name"));
    if let (Some(first), Some(second)) = names
        && first != second
    {
        s.problem("netapp_svm_name", "differs from netapp_svm; keep one of them");
    }
}

/// Two generations of keys describe two layouts on the array; a mixture describes none.
fn odd_ones_out(odd: &[&str], what: &str, options: &Options, s: &Section<'_>) {
    for key in odd.iter().filter(|key| given(key, options, s)) {
        let message =
            format!("is a key {what} among keys of the other kind; remove it, or use its kind alone");
        s.hidden_problem(key, message);
    }
}

fn api_version(options: &Options, s: &Section<'_>) {
    let Some(version) = options.text("purity_api_version") else { return };
    let numbers = version.split_once('.').map(|(major, minor)| (major.parse::<u8>(), minor.parse::<u8>()));
    let right = version == "auto" || matches!(numbers, Some((Ok(1 | 2), Ok(_))));
    if !right {
        s.problem(
            "purity_api_version",
            "is not a version of the REST API; write \"auto\", \"1.8\" or \"2.12\"",
        );
    }
}
