//! `[agent]`: how the process runs. Ours; the reference proxy does not know this table.

use std::path::PathBuf;
use std::time::Duration;

use crate::section::{self, Section};
use crate::storage_proxy::{DAY, HOUR, MINUTE, SECOND};
use crate::value::ManagerVersion;

/// Where the packages put the quota helper's socket.
const QUOTA_HELPER: &str = "/run/storage-agent/quota-helper.sock";

/// `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Serve as uid 0 instead of refusing to.
    pub allow_root: bool,
    /// Shut the process out of all files but those that the configuration names, where the kernel can.
    pub landlock: bool,
    /// Refuse system calls that the agent does not need.
    pub seccomp: bool,
    /// Directories that may be written besides volumes and logs, for vendors' tools.
    pub writable_paths: Vec<PathBuf>,
    /// Most threads for file work on one volume.
    pub blocking_threads: usize,
    /// How long a stopping agent lets transfers finish.
    pub shutdown_timeout: Duration,
    /// How long the reply to a clone request waits for the copy.
    pub clone_wait: Duration,
    /// The manager's release, where known.
    pub manager_version: Option<ManagerVersion>,
    /// How long a finished task can be asked for.
    pub task_retention: Duration,
    /// Where the quota helper of XFS volumes listens.
    pub quota_helper: PathBuf,
    /// How often XFS volumes are looked through for limits that do not hold; zero is never.
    pub quota_audit_interval: Duration,
}

/// The defaults.
impl Default for Agent {
    fn default() -> Self {
        section::defaults(Agent::read)
    }
}

impl Agent {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        Self {
            allow_root: s.value_or("allow-root", false),
            landlock: s.value_or("landlock", true),
            seccomp: s.value_or("seccomp", true),
            writable_paths: s.paths("writable-paths"),
            blocking_threads: s.within("blocking-threads", 128, 4..=4096),
            shutdown_timeout: s.within("shutdown-timeout", MINUTE, Duration::ZERO..=DAY),
            // A manager gives up after 300 s, so a longer wait would only look like a failure to it.
            clone_wait: s.within("clone-wait", SECOND * 20, Duration::ZERO..=SECOND * 240),
            manager_version: s.value("manager-version"),
            task_retention: s.within("task-retention", DAY, MINUTE..=DAY * 365),
            quota_helper: s.path("quota-helper").unwrap_or_else(|| PathBuf::from(QUOTA_HELPER)),
            quota_audit_interval: s.within("quota-audit-interval", HOUR, Duration::ZERO..=DAY * 365),
        }
    }
}
