//! Trees on CephFS: their size is known without looking at what is in them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes::{Attributes, Limit, is_foreign};
use crate::fs::Dir;
use crate::tree::{self, Control, Interrupted, Problems, Usage};
use crate::volume::trees::Trees;

/// The directory that CephFS keeps in every other for its snapshots. It is not listed, yet everything can be reached
/// through it, and a directory renamed to this name can never be reached again.
const SNAPSHOTS: &str = ".snap";

/// No device has this number.
const NONE: u64 = u64::MAX;

/// The tree part.
pub(super) struct Recursive {
    attributes: Arc<dyn Attributes>,
    /// The device that was found to be CephFS last.
    known: AtomicU64,
}

impl Recursive {
    pub(super) fn new(attributes: Arc<dyn Attributes>) -> Self {
        Recursive { attributes, known: AtomicU64::new(NONE) }
    }
}

impl Trees for Recursive {
    /// Takes three questions, however large the tree is. What was written in the last seconds may be missing.
    fn usage(&self, dir: &Dir, control: &Control, threads: usize) -> Result<Usage, Interrupted> {
        control.check()?;
        match self.attributes.statistics(dir) {
            Ok(found) => Ok(Usage {
                entries: found.entries,
                files: found.files,
                apparent_bytes: found.bytes,
                // CephFS derives the blocks of a file from its size too.
                allocated_bytes: found.bytes,
                unread: Problems::default(),
            }),
            Err(error) => {
                tracing::warn!(%error, "CephFS does not tell a directory's statistics; it is counted instead");
                tree::usage(dir, control, threads)
            }
        }
    }

    /// The file system's free space says nothing about limits below its root.
    fn room(&self, dir: &Dir) -> io::Result<u64> {
        let free = match dir.statfs()? {
            // Nothing is known of the cluster's size while it has no active manager daemon.
            unknown if unknown.total == 0 => u64::MAX,
            known => known.available,
        };
        match self.attributes.limit(dir, Limit::Bytes)? {
            Some(limit) => Ok(free.min(limit.saturating_sub(self.attributes.bytes(dir)?))),
            None => Ok(free),
        }
    }

    fn inherit(&self, old: &Dir, new: &Dir) -> io::Result<()> {
        for limit in [Limit::Bytes, Limit::Entries] {
            if let Some(value) = self.attributes.limit(old, limit)? {
                self.attributes.set_limit(new, limit, value)?;
            }
        }
        Ok(())
    }

    /// Clients tell sizes and send data separately. What was written and not made durable when a ceph-fuse was killed reads
    /// as zeros, at the full size.
    fn sizes_outrun_data(&self) -> bool {
        true
    }

    fn reserved_name(&self) -> Option<&'static str> {
        Some(SNAPSHOTS)
    }

    /// The servers are asked once for each mount; its device number tells it from any other.
    fn accept(&self, root: &Dir) -> io::Result<()> {
        let device = root.stat_self()?.dev;
        if self.known.load(Ordering::Relaxed) == device {
            return Ok(());
        }
        self.probe(root)?;
        self.known.store(device, Ordering::Relaxed);
        Ok(())
    }

    fn probe(&self, root: &Dir) -> io::Result<()> {
        match self.attributes.bytes(root) {
            Ok(_) => Ok(()),
            Err(error) if is_foreign(&error) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no CephFS is mounted there; mount it, or name the backend \"vfs\"",
            )),
            Err(error) => Err(error),
        }
    }
}
