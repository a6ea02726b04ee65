//! What the service needs of the host besides ports and volumes: keys, secrets, descriptors, writable places.

use std::path::Path;

use config::{Config, Secret};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use crate::finding::{Finding, Report};
use crate::listener::tls;
use crate::sandbox::{self, Guard};

/// Shorter secrets can be guessed.
const SHORTEST: usize = 16;
/// Secrets that stand in published samples.
const PUBLISHED: [&str; 3] =
    ["some-secret-private-for-storage-proxy", "some-secret-shared-with-manager", "change-me"];

/// Loads the certificates and keys of listeners that use TLS.
pub(super) fn check_tls(config: &Config, report: &mut Report) {
    for (api, files) in [("api.client", &config.api.client.tls), ("api.manager", &config.api.manager.tls)] {
        let Some(files) = files else { continue };
        match tls::load(api, &files.cert, &files.privkey, files.kernel) {
            Ok(config) => {
                report.add(Finding::ok(
                    format!("{api}.ssl-cert"),
                    "certificate and private key belong together",
                ));
                let used = format!("the kernel encrypts: {}", tls::kernel(&config));
                report.add(Finding::ok(format!("{api}.ssl-kernel"), used));
            }
            Err(error) => report.add(Finding::problem(error.key.clone(), error.to_string())),
        }
    }
}

/// Looks at everything else, as the service's user.
pub(super) fn check(config: &Config, report: &mut Report) {
    let (tokens, manager) = (&config.storage_proxy.secret, &config.api.manager.secret);
    check_secret("storage-proxy.secret", tokens, report);
    check_secret("api.manager.secret", manager, report);
    if tokens.expose() == manager.expose() {
        report.add(
            Finding::warning("api.manager.secret", "is the same as storage-proxy.secret")
                .cure("give each its own: openssl rand -hex 32"),
        );
    }
    check_descriptors(config.limits.connections as u64, report);
    if let Some(file) = &config.logging.file {
        check_writable("logging.file.path", &file.path, report);
    }
}

/// Tells what the service will shut itself out of.
pub(super) fn check_sandbox(config: &Config, report: &mut Report) {
    let wanted = sandbox::intended(config);
    report.add(match wanted.landlock {
        Guard::On => {
            Finding::ok("agent.landlock", "files besides volumes, logs and configuration are out of reach")
        }
        Guard::Off => Finding::warning("agent.landlock", "is switched off: files are not restricted by it"),
        Guard::Missing => Finding::warning("agent.landlock", "this kernel cannot restrict files")
            .cure("use Linux 5.19 or newer with landlock among its security modules (lsm=)"),
    });
    report.add(match wanted.seccomp {
        Guard::On if wanted.programs => {
            Finding::ok("agent.seccomp", "system calls are filtered; the tools of volumes can be started")
        }
        Guard::On => Finding::ok("agent.seccomp", "system calls are filtered; no program can be started"),
        Guard::Off => Finding::warning("agent.seccomp", "is switched off: system calls are not filtered"),
        Guard::Missing => Finding::warning("agent.seccomp", "this kernel cannot filter system calls"),
    });
    if wanted.landlock == Guard::On {
        for volume in sandbox::fixed_volumes(config) {
            report.add(
                Finding::note(format!("volume.{volume}.path"), "is mounted directly below /, so that after it was mounted anew the agent must be restarted")
                    .cure("mount it deeper, such as below /vfroot, or set agent.landlock = false"),
            );
        }
    }
}

/// Says nothing of the secret but that it is weak.
fn check_secret(key: &str, secret: &Secret, report: &mut Report) {
    let weakness = match secret.expose() {
        published if PUBLISHED.contains(&published) => "is the one of a published sample",
        short if short.len() < SHORTEST => "is short enough to be guessed",
        _ => return,
    };
    report.add(Finding::warning(key, weakness).cure("choose a new one: openssl rand -hex 32"));
}

fn check_descriptors(connections: u64, report: &mut Report) {
    // A connection and the file that it transfers.
    let needed = connections * 2;
    report.add(match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < needed => Finding::warning(
            "limits.connections",
            format!("{connections} connections need about {needed} descriptors, and {most} are allowed"),
        )
        .cure(format!("raise LimitNOFILE= of the unit to {needed} or more, or lower limits.connections")),
        _ => Finding::ok("limits.connections", format!("descriptors suffice for {connections} connections")),
    });
}

/// The directory may be missing as long as it can be made.
fn check_writable(key: &str, directory: &Path, report: &mut Report) {
    let there = directory.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    report.add(match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(key, format!("{} can be written", directory.display())),
        Err(error) => Finding::problem(key, format!("{} cannot be written: {error}", there.display()))
            .cure("let the service's user own that directory"),
    });
}
