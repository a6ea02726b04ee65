//! The configuration file `storage-proxy.toml`: its schema, its validation and its samples.
//!
//! The file is the reference proxy's, so an existing site's loads unchanged; tables of our own stand beside its
//! tables. One module describes one table. [`load`] finds the file, reads it, and gives either a [`Config`] in which
//! every value is valid, or all mistakes at once. It touches no more of the system than the file itself, secret files
//! and the existence of TLS files.

mod agent;
mod api;
mod arrays;
mod backend;
mod change;
mod etcd;
mod events;
mod limits;
mod logging;
mod report;
#[cfg(test)]
mod samples;
mod secrets;
mod section;
mod source;
mod storage_proxy;
mod suggest;
mod tree;
mod upload;
mod value;
mod volume;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

pub use agent::Agent;
pub use api::{Api, ClientApi, ManagerApi, Tls};
pub use backend::Backend;
pub use etcd::Etcd;
pub use events::{Events, Valkey};
pub use limits::Limits;
pub use logging::{Console, Level, LogFile, LogFormat, Logging};
pub use report::{Notice, NoticeKind, Problem, Problems};
pub use source::Source;
pub use storage_proxy::{StorageProxy, VolumeStats};
pub use upload::{Download, Fsync, Upload};
pub use value::{Account, HostPort, IpNetwork, ManagerVersion, Secret};
pub use volume::{NOOP, Options, Volume};

use report::Report;
use section::{Context, Section};

/// A whole configuration; every value has been checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[storage-proxy]`.
    pub storage_proxy: StorageProxy,
    /// `[api.client]` and `[api.manager]`.
    pub api: Api,
    /// `[volume.<name>]` in the order of the file.
    pub volumes: Vec<Volume>,
    /// `[logging]` and `[debug]`.
    pub logging: Logging,
    /// `[etcd]`.
    pub etcd: Etcd,
    /// `[events]`.
    pub events: Events,
    /// `[agent]`.
    pub agent: Agent,
    /// `[limits]`.
    pub limits: Limits,
    /// `[upload]`.
    pub upload: Upload,
    /// `[download]`.
    pub download: Download,
}

/// A configuration with what should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Unknown keys, keys without effect and warnings, in the order of the file.
    pub notices: Vec<Notice>,
    /// The file that was read, absolute.
    pub path: PathBuf,
    /// That file and all that it names for reading: secrets, certificates, keys. A reload reads them again.
    pub files: Vec<PathBuf>,
}

/// Finds, reads and checks the configuration file.
///
/// # Errors
/// All mistakes at once: that there is no file or it cannot be read, every syntax error, or every wrong value.
pub fn load(source: &Source<'_>) -> Result<Loaded, Problems> {
    let file = source::read(source.find()?)?;
    check(&file.text, &file.path, file.world_readable, source)
}

/// Checks the text of a configuration file as if it stood at `path`.
///
/// # Errors
/// As [`load`], without those about the file itself.
pub fn parse(text: &str, path: &Path, source: &Source<'_>) -> Result<Loaded, Problems> {
    check(text, path, false, source)
}

fn check(text: &str, path: &Path, world_readable: bool, source: &Source<'_>) -> Result<Loaded, Problems> {
    let report = Report::new(path);
    let table = match tree::parse(text) {
        Ok(table) => table,
        Err(errors) => return Err(syntax_problems(report, errors)),
    };
    let context = Context {
        report,
        directory: source.working_directory.join(path).parent().unwrap_or(Path::new("/")).to_owned(),
        working_directory: &source.working_directory,
        env: source.env,
        inline_secret: Cell::new(false),
        files: RefCell::new(vec![path.to_owned()]),
        lenient: source.lenient,
    };
    let config = Section::document(&context, &table, Config::read);
    if world_readable && context.inline_secret.get() {
        let message = format!(
            "holds secrets and can be read by every user of this host; run: chmod o= {}",
            path.display()
        );
        context.report.notice(None, "", NoticeKind::Warning, message);
    }
    let notices = context.report.finish()?;
    Ok(Loaded { config, notices, path: path.to_owned(), files: context.files.into_inner() })
}

/// Values are not judged then, because most of what would be missing stands in the lines that cannot be read.
fn syntax_problems(report: Report, errors: Vec<tree::SyntaxError>) -> Problems {
    for error in errors {
        report.problem(error.line, "", None, format!("is not valid TOML: {}", error.message));
    }
    report.into_problems()
}

impl Config {
    fn read(s: &Section<'_>) -> Self {
        note_absent_features(s);
        let storage_proxy = s.required_child("storage-proxy", StorageProxy::read);
        let debug = s.child("debug", logging::debug_enabled);
        Self {
            api: s.child("api", Api::read),
            volumes: s.required_child("volume", volume::read),
            logging: s.child("logging", |section| Logging::read(section, debug)),
            etcd: s.child("etcd", Etcd::read),
            events: s.child("events", Events::read),
            agent: s.child("agent", Agent::read),
            limits: s.child("limits", Limits::read),
            upload: s.child("upload", |section| Upload::read(section, storage_proxy.session_expire)),
            download: s.child("download", Download::read),
            storage_proxy,
        }
    }
}

fn note_absent_features(s: &Section<'_>) {
    s.ignored(&["pyroscope", "otel", "service-discovery"], "");
    let artifacts =
        ["artifact-storages", "artifact-registries", "storages", "registries", "reservoir-client"];
    s.ignored(&artifacts, "the artifact registry is not provided");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 12] = [
            b"[",
            b"]",
            b"=",
            b"\n",
            b"\"",
            b"\x27\x27\x27",
            b"{ }",
            b"-1",
            b"99999999999999999999",
            b"\"1x\"",
            b"[volume.noop]\n",
            b"inf",
        ];
        // Nothing of the host.
        let source =
            Source { file: None, env: &|_| None, working_directory: "/nonexistent".into(), lenient: true };
        spoil::target(env!("CARGO_MANIFEST_DIR"), "config", &words, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match parse(&text, Path::new("/nonexistent/storage-proxy.toml"), &source) {
                Ok(loaded) => {
                    assert!(!loaded.config.storage_proxy.secret.expose().is_empty());
                    assert!(loaded.config.limits.connections_per_peer <= loaded.config.limits.connections);
                    assert!(loaded.config.volumes.iter().all(|volume| volume.path.is_absolute()));
                }
                Err(problems) => assert!(!problems.problems.is_empty()),
            }
        });
    }
}
