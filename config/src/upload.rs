//! `[upload]` and `[download]`: how transfers behave. Ours; the reference proxy has these rules built in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::section::{self, Section};
use crate::storage_proxy::{DAY, SECOND};
use crate::value::Choice;

/// `[upload]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// How long a request waits for a session that another request holds.
    pub lock_wait: Duration,
    /// Silence after which a request that holds a session counts as dead and is preempted.
    pub holder_idle: Duration,
    /// When received bytes are forced to the disk.
    pub fsync: Fsync,
    /// How long a finished session is remembered, so that a client that lost the last reply learns of its success.
    pub done_retention: Duration,
    /// Age after which an unfinished upload is removed: `stale-factor` times `session-expire`.
    pub stale_after: Duration,
}

/// When received bytes are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before every reply that acknowledges an offset.
    EveryPatch,
    /// Before the reply that acknowledges the whole file.
    LastPatch,
    /// Left to the file system: an acknowledged upload can be lost with the power.
    Never,
}

impl Choice for Fsync {
    const WORDS: &'static [(&'static str, Self)] =
        &[("every-patch", Self::EveryPatch), ("last-patch", Self::LastPatch), ("never", Self::Never)];
}

/// `[download]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Directories below which a token's `unmanaged_path` may lie, absolute; empty means that it is not honoured.
    pub unmanaged_roots: Vec<PathBuf>,
    /// Whether files are sent by `sendfile(2)` where there is no TLS or the kernel does it, instead of through buffers.
    pub zero_copy: bool,
    /// The path of the web server's internal location that holds each volume's directory under the volume's name,
    /// without a slash at its end. None: the agent sends every file itself.
    pub accel_redirect: Option<String>,
}

/// The defaults, for tokens that are valid for a day.
impl Default for Upload {
    fn default() -> Self {
        section::defaults(|section| Upload::read(section, DAY))
    }
}

/// The defaults.
impl Default for Download {
    fn default() -> Self {
        section::defaults(Download::read)
    }
}

impl Upload {
    pub(crate) fn read(s: &Section<'_>, session_expire: Duration) -> Self {
        let factor: u32 = s.within("stale-factor", 2, 1..=100);
        Self {
            lock_wait: s.within("lock-wait", SECOND * 10, Duration::ZERO..=SECOND * 60),
            holder_idle: s.within("holder-idle", SECOND * 5, SECOND..=SECOND * 600),
            fsync: s.value_or("fsync", Fsync::EveryPatch),
            done_retention: s.within("done-retention", session_expire, SECOND..=DAY * 36_500),
            stale_after: session_expire.saturating_mul(factor),
        }
    }
}

impl Download {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        let unmanaged_roots: Vec<PathBuf> = s.value_or("unmanaged-roots", Vec::new());
        if unmanaged_roots.iter().any(|root| !root.is_absolute() || root == Path::new("/")) {
            s.hidden_problem(
                "unmanaged-roots",
                "may only list absolute paths other than \"/\", because all below them can be downloaded",
            );
        }
        Self { unmanaged_roots, zero_copy: s.value_or("zero-copy", true), accel_redirect: location(s) }
    }
}

/// `accel-redirect`: a path of plain characters, since nothing in it is escaped.
fn location(s: &Section<'_>) -> Option<String> {
    let path: String = s.value("accel-redirect")?;
    let path = path.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.len() < 2 || !path.starts_with('/') || path.contains("..") || !path.bytes().all(plain) {
        s.hidden_problem(
            "accel-redirect",
            "must be the path of an internal location of nginx, of letters, digits, and the characters \"/._-\", such as \
             \"/storage-agent-volumes\"",
        );
        return None;
    }
    Some(path.to_owned())
}
