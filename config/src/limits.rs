//! `[limits]`: what a peer may use up before it is refused. Ours; the reference proxy has next to no limits.
//!
//! Sizes are in bytes, numbers are counts at one moment unless said otherwise.

use std::time::Duration;

use common::size::BinarySize;

use crate::section::{self, Section};
use crate::storage_proxy::SECOND;
use crate::value::IpNetwork;

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All header fields of a request together, without the request line.
    pub header_size: BinarySize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// The request line's URL, query included.
    pub url_size: BinarySize,
    /// A token in a URL.
    pub token_size: BinarySize,
    /// A JSON body.
    pub json_size: BinarySize,
    /// Objects and lists within each other in a JSON body.
    pub json_depth: usize,
    /// Time from the first byte that is waited for to the end of the header.
    pub header_timeout: Duration,
    /// Time without a byte of the body arriving.
    pub body_idle_timeout: Duration,
    /// Time without a byte of the reply being taken.
    pub write_idle_timeout: Duration,
    /// Open connections of each API, so that clients cannot take the manager's.
    pub connections: usize,
    /// Open connections from one IP address.
    pub connections_per_peer: usize,
    /// Networks whose connections are not counted per peer and whose forwarding headers are believed in logs.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Unfinished uploads of one vfolder.
    pub uploads_per_vfolder: usize,
    /// Tasks that wait for their turn.
    pub tasks_queued: usize,
    /// Tasks that run on one volume.
    pub tasks_running: usize,
    /// Pieces of file work on one volume, in progress or waiting for a thread.
    pub blocking_jobs: usize,
    /// How long a volume may leave its file system's questions unanswered before its requests are refused.
    pub volume_timeout: Duration,
    /// Archive downloads from one volume.
    pub archives: usize,
    /// Paths that one archive token may name.
    pub archive_files: usize,
    /// Entries of one archive.
    pub archive_entries: usize,
    /// Directories within each other in one archive.
    pub archive_depth: usize,
    /// Threads for one tree when counting or copying it.
    pub tree_parallelism: usize,
    /// Threads for one tree when deleting it.
    pub delete_parallelism: usize,
}

/// The defaults.
impl Default for Limits {
    fn default() -> Self {
        section::defaults(Limits::read)
    }
}

impl Limits {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        let (kib, mib) = (BinarySize::kib, BinarySize::mib);
        let timeouts = SECOND..=SECOND * 3600;
        let limits = Self {
            header_size: s.within("header-size", kib(16), kib(4)..=mib(1)),
            header_fields: s.within("header-fields", 100, 20..=1000),
            url_size: s.within("url-size", kib(16), kib(2)..=mib(1)),
            token_size: s.within("token-size", kib(8), kib(1)..=mib(1)),
            json_size: s.within("json-size", mib(8), mib(1)..=mib(1024)),
            json_depth: s.within("json-depth", 64, 8..=128),
            header_timeout: s.within("header-timeout", SECOND * 10, timeouts.clone()),
            body_idle_timeout: s.within("body-idle-timeout", SECOND * 60, timeouts.clone()),
            write_idle_timeout: s.within("write-idle-timeout", SECOND * 60, timeouts),
            connections: s.within("connections", 8192, 8..=1_000_000),
            connections_per_peer: s.within("connections-per-peer", 256, 1..=1_000_000),
            trusted_proxies: s.value_or("trusted-proxies", IpNetwork::loopback()),
            uploads_per_vfolder: s.within("uploads-per-vfolder", 10_000, 1..=1_000_000),
            tasks_queued: s.within("tasks-queued", 10_000, 1..=1_000_000),
            tasks_running: s.within("tasks-running", 4, 1..=256),
            blocking_jobs: s.within("blocking-jobs", 1024, 4..=1_000_000),
            volume_timeout: s.within("volume-timeout", SECOND * 5, SECOND..=SECOND * 600),
            archives: s.within("archives", 16, 1..=4096),
            archive_files: s.within("archive-files", 1000, 1..=100_000),
            archive_entries: s.within("archive-entries", 1_000_000, 1..=1_000_000_000),
            archive_depth: s.within("archive-depth", 256, 1..=2000),
            tree_parallelism: s.within("tree-parallelism", 4, 1..=64),
            delete_parallelism: s.within("delete-parallelism", 4, 1..=64),
        };
        limits.check(s);
        limits
    }

    /// Limits that contradict each other. Only a value from the file can, so a problem always has a key to change.
    fn check(&self, s: &Section<'_>) {
        if self.connections_per_peer > self.connections {
            let key = if s.has("connections-per-peer") { "connections-per-peer" } else { "connections" };
            s.problem(key, format!("leaves connections-per-peer ({}) above connections ({}); one peer cannot have more than all", self.connections_per_peer, self.connections));
        }
        if self.token_size >= self.url_size {
            let key = if s.has("token-size") { "token-size" } else { "url-size" };
            s.problem(
                key,
                format!(
                    "leaves token-size ({}) not below url-size ({}); a token is a part of the URL",
                    self.token_size, self.url_size
                ),
            );
        }
    }
}
