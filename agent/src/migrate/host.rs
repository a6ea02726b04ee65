//! What the host has of the reference proxy: its unit, its sudo rules, its sockets; and what it needed besides.

use std::fs;
use std::path::{Path, PathBuf};

use config::Config;

use crate::check::holder;
use crate::finding::{Finding, Report};

/// How the reference proxy's program is named on a command line.
const PROGRAM: [&str; 2] = ["ai.backend.storage", "backend.ai-storage-proxy"];
/// What its xfs backend ran by sudo.
const BY_SUDO: &str = "xfs_quota";
/// Where units of the site lie, below the root.
const UNITS: &str = "etc/systemd/system";

/// Tells of ports, units and sudo rules.
pub(super) fn tell(config: &Config, root: &Path, report: &mut Report) {
    for (key, address) in [
        ("api.client.service-addr", &config.api.client.service_addr),
        ("api.manager.service-addr", &config.api.manager.service_addr),
    ] {
        if let Some((name, pid)) = holder(address.port).filter(|(name, _)| name != "storage-agent") {
            report.add(
                Finding::warning(key, format!("{name} (pid {pid}) listens on port {} now", address.port))
                    .cure("stop it before the agent starts: two programs cannot have one port"),
            );
        }
    }
    for unit in files_with(&root.join(UNITS), |line| PROGRAM.iter().any(|name| line.contains(name))) {
        let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.add(
            Finding::warning("host", format!("{} starts the reference proxy", unit.display()))
                .cure(format!("systemctl disable --now {name}")),
        );
    }
    let mut sudoers = files_with(&root.join("etc/sudoers.d"), is_rule);
    sudoers.extend(Some(root.join("etc/sudoers")).filter(|file| mentions(file, is_rule)));
    for file in sudoers {
        report.add(
            Finding::warning(
                "host",
                format!("{} lets the reference proxy change quotas as root", file.display()),
            )
            .cure("remove that rule when all works: nothing here uses sudo"),
        );
    }
}

fn is_rule(line: &str) -> bool {
    !line.trim_start().starts_with('#') && line.contains(BY_SUDO)
}

/// The files of a directory with such a line; nothing where it cannot be read.
fn files_with(directory: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| mentions(path, wanted)).collect();
    files.sort();
    files
}

fn mentions(file: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.lines().any(wanted))
}
