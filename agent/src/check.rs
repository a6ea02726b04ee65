//! `storage-agent check`: everything that the service will need, tried out and told in plain words.
//!
//! The check looks as the user that the service will be: started as root with `storage-proxy.user`, it switches like
//! the service does. It changes nothing but for probe files and directories on volumes, which it removes at once.

mod host;
mod ports;
mod volume;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use config::{Account, Config, Loaded, Notice, NoticeKind, Source};
use nix::unistd::{Gid, Uid};

pub(crate) use self::ports::holder;
use crate::cli;
use crate::finding::{Finding, Report};
use crate::identity::{self, IdentityError, Target};
use crate::volume::Volume;

/// Something is wrong that the configuration file alone does not show.
const PROBLEMS: u8 = 1;
/// The configuration is wrong (sysexits(3)).
const CONFIG: u8 = 78;

/// Checks, prints what was found, and says by the exit status whether the service can run.
pub fn from_command_line(options: &cli::Check) -> ExitCode {
    let source = Source::of_process(options.config.file.clone(), options.config.lenient);
    let mut report = Report::default();
    let code = match config::load(&source) {
        Ok(loaded) => {
            examine(&loaded, options.online, &mut report);
            if report.has_problems() { PROBLEMS } else { 0 }
        }
        Err(problems) => {
            add_notices(&problems.notices, &mut report);
            for problem in problems.problems {
                let subject =
                    if problem.key.is_empty() { "configuration".to_owned() } else { problem.key.clone() };
                report.add(Finding::problem(subject, problem.to_string()));
            }
            CONFIG
        }
    };
    report.print(options.json, |problems, warnings| match problems {
        0 => format!("The service can run; {warnings} warning(s)."),
        _ => format!("{problems} problem(s) to solve, {warnings} warning(s)."),
    });
    ExitCode::from(code)
}

fn examine(loaded: &Loaded, online: bool, report: &mut Report) {
    let config = &loaded.config;
    report.add(Finding::ok("configuration", format!("{} is valid", loaded.path.display())));
    add_notices(&loaded.notices, report);
    // Ports and keys are opened before the service switches to its user, all else after.
    ports::check(config, report);
    host::check_tls(config, report);
    become_the_service(loaded, report);
    host::check(config, report);
    host::check_sandbox(config, report);
    for configured in &config.volumes {
        volume::check(configured, report);
    }
    if let Err(error) = ask_backends(config, online, report) {
        report.add(Finding::problem("backends", format!("cannot be asked: {error}")));
    }
}

/// Lets each volume's backend say what it needs and does not have.
fn ask_backends(config: &Config, online: bool, report: &mut Report) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for volume in config.volumes.iter().filter_map(|volume| Volume::configured(volume, config)) {
        let volume = Arc::new(volume);
        for finding in runtime.block_on(volume.backend.examine.examine(&volume, online)) {
            report.add(finding);
        }
    }
    // A probe of a file system that hangs is left behind.
    runtime.shutdown_background();
    Ok(())
}

fn add_notices(notices: &[Notice], report: &mut Report) {
    for notice in notices {
        let (subject, message) =
            (subject(&notice.key), format!("{}{}", place(&notice.file, notice.line), notice.message));
        report.add(match notice.kind {
            NoticeKind::Warning => Finding::warning(subject, message),
            NoticeKind::Unknown | NoticeKind::Ignored => Finding::note(subject, message),
        });
    }
}

fn subject(key: &str) -> &str {
    if key.is_empty() { "configuration" } else { key }
}

fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("line {line}: "),
        None => format!("{}: ", file.display()),
    }
}

/// Becomes who the service will be. Root that is told nothing looks as the owner of the first volume: that is who
/// the service should run as. It joins the group of the configuration then, as the unit's samples make the service do.
pub(crate) fn become_the_service(loaded: &Loaded, report: &mut Report) {
    let config = &loaded.config;
    let proxy = &config.storage_proxy;
    if let Err(error) = identity::look_up(proxy.user.as_ref(), proxy.group.as_ref()) {
        let IdentityError::Unknown { key, what, name } = &error else {
            report.add(Finding::problem("identity", error.to_string()));
            return;
        };
        let finding = Finding::problem(*key, format!("there is no {what} {name:?} on this host"));
        report.add(finding.cure("create it, correct the name, or give a numeric id"));
        return;
    }
    let guessed = if proxy.user.is_none() && !config.agent.allow_root { owner(config) } else { None };
    let user = proxy.user.clone().or(guessed.map(Account::Id));
    let reading = guessed.and_then(|_| readers(&loaded.path));
    let outcome = Target::choose(user.as_ref(), proxy.group.as_ref(), true)
        .and_then(|target| target.joining(reading).assume());
    if let Err(error) = outcome {
        report.add(Finding::problem("identity", error.to_string()));
        return;
    }
    let who = identity::description();
    report.add(match guessed {
        _ if Uid::effective().is_root() => Finding::warning("identity", format!("checked as root ({who})"))
            .cure("the service should not run as root: give the volumes to a user of their own, and run both as that user"),
        Some(_) => Finding::note(
            "identity",
            format!("started as root, so all else is checked as {who}, the owner of the first volume"),
        )
        .cure("start the service as that user (User= of the unit), or set storage-proxy.user"),
        _ => Finding::ok("identity", format!("checked as {who}, without any capability")),
    });
}

/// The group that may read a file, unless it is root's.
fn readers(file: &Path) -> Option<Gid> {
    let about = std::fs::metadata(file).ok()?;
    (about.mode() & 0o040 != 0 && about.gid() != 0).then(|| Gid::from_raw(about.gid()))
}

/// Who owns the first volume, if the process is root and could become anybody.
fn owner(config: &Config) -> Option<u32> {
    let path = &config.volumes.first()?.path;
    let owner = std::fs::metadata(path).ok()?.uid();
    (Uid::effective().is_root() && owner != 0).then_some(owner)
}
