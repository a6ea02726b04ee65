//! `[storage-proxy]`: identity, tokens, and what applies to both APIs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::size::BinarySize;

use crate::secrets::{self, Sources};
use crate::section::Section;
use crate::value::{Account, Secret};

/// HS256 keys should have as many bytes as the hash (RFC 7518 section 3.2).
const STRONG_SECRET: usize = 32;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// `[storage-proxy]`.
#[derive(Clone, Debug)]
pub struct StorageProxy {
    /// Name of this node in logs and status; `None` means the host name.
    pub node_id: Option<String>,
    /// HS256 key of upload and download tokens.
    pub secret: Secret,
    /// How long a token is valid.
    pub session_expire: Duration,
    /// Most entries of one listing; `None` means all.
    pub scandir_limit: Option<NonZeroUsize>,
    /// Largest upload.
    pub max_upload_size: BinarySize,
    /// User to switch to when started as root; `None` means stay as started.
    pub user: Option<Account>,
    /// Group to switch to when started as root; `None` means the user's.
    pub group: Option<Account>,
    /// Where to write the process id, if anywhere.
    pub pid_file: Option<PathBuf>,
    /// Worker threads wanted; `None` means one per CPU. May be above the CPU count.
    pub num_proc: Option<NonZeroUsize>,
    /// Whether creating a vfolder creates its missing quota scope.
    pub allow_auto_quota_scope_creation: bool,
    /// How volume performance metrics are observed and kept.
    pub volume_stats: VolumeStats,
}

/// `storage-proxy.volume-stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// Time between two observations.
    pub observe_interval: Duration,
    /// Longest time that one observation may take.
    pub observe_timeout: Duration,
    /// How long an observation is served.
    pub cache_ttl: Duration,
}

impl StorageProxy {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        note_ignored(s);
        Self {
            node_id: s.name("node-id"),
            secret: token_secret(s),
            session_expire: session_expire(s),
            scandir_limit: NonZeroUsize::new(s.value_or("scandir-limit", 1000)),
            max_upload_size: s.value_or("max-upload-size", BinarySize::gib(100)),
            user: s.value("user").flatten(),
            group: s.value("group").flatten(),
            pid_file: s.path("pid-file").filter(|path| path != Path::new("/dev/null")),
            num_proc: num_proc(s),
            allow_auto_quota_scope_creation: auto_creation(s),
            volume_stats: s.child("volume-stats", VolumeStats::read),
        }
    }
}

impl VolumeStats {
    fn read(s: &Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            observe_interval: s.within("observe-interval", seconds(10), SECOND..=DAY),
            observe_timeout: s.within("observe-timeout", seconds(5), SECOND..=DAY),
            cache_ttl: s.within("cache-ttl", seconds(30), SECOND..=DAY),
        }
    }
}

fn token_secret(s: &Section<'_>) -> Secret {
    let sources = Sources { key: "secret", file_key: "secret-file", credential: "storage-proxy.secret" };
    let Some(secret) = secrets::read(s, &sources) else {
        if s.exists() {
            s.missing("secret", &secrets::remedy(&sources));
        }
        return Secret::default();
    };
    if (1..STRONG_SECRET).contains(&secret.expose().len()) {
        s.warn("secret", format!("is shorter than {STRONG_SECRET} bytes; who guesses it can reach every file, so prefer a longer one"));
    }
    secret
}

/// `i64` seconds in a token bound it; a hundred years are far below.
fn session_expire(s: &Section<'_>) -> Duration {
    if !s.has("session-expire") {
        return s
            .required("session-expire", "write how long a token is valid, such as session-expire = \"1d\"");
    }
    s.within("session-expire", DAY, SECOND..=DAY * 36_500)
}

fn num_proc(s: &Section<'_>) -> Option<NonZeroUsize> {
    let count: usize = s.value("num-proc")?;
    if count == 0 {
        s.problem("num-proc", "is too small; write 1 or more, or leave it out for one thread per CPU");
    }
    NonZeroUsize::new(count)
}

/// Upstream's snake_case spelling of this key lacks the first word.
fn auto_creation(s: &Section<'_>) -> bool {
    let (full, short) = ("allow-auto-quota-scope-creation", "auto-quota-scope-creation");
    if s.has(full) && s.has(short) {
        s.problem(short, format!("is another name of {full}; keep one"));
    }
    let short = s.value(short);
    s.value(full).or(short).unwrap_or(true)
}

fn note_ignored(s: &Section<'_>) {
    s.ignored(
        &[
            "event-loop",
            "ipc-base-path",
            "aiomonitor-port",
            "aiomonitor-termui-port",
            "aiomonitor-webui-port",
            "watcher-insock-path-prefix",
            "watcher-outsock-path-prefix",
        ],
        "",
    );
    s.ignored(&["use-watcher"], "the agent needs no root helper for file work, so none is started");
}
