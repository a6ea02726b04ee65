//! How a long operation is watched and stopped from outside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Why an operation ended before its work did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// [`Control::cancel`] was called.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The deadline passed.
    #[error("the operation took longer than it may")]
    Deadline,
}

/// Shared by reference between whoever waits for an operation and the threads that do it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
    entries_done: AtomicU64,
    bytes_done: AtomicU64,
    entries_total: AtomicU64,
    bytes_total: AtomicU64,
}

/// A snapshot of how far an operation is; a total of 0 means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files and directories dealt with.
    pub entries_done: u64,
    /// Bytes of content dealt with.
    pub bytes_done: u64,
    /// Files and directories in all.
    pub entries_total: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

// === impl Control ===

impl Control {
    /// Without a deadline.
    pub fn new() -> Control {
        Control::default()
    }

    /// Ends with [`Interrupted::Deadline`] soon after this instant.
    pub fn with_deadline(deadline: Instant) -> Control {
        Control { deadline: Some(deadline), ..Control::default() }
    }

    /// Ends the operation soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// What is to be done in all, as far as the caller knows.
    pub fn set_totals(&self, entries: u64, bytes: u64) {
        self.entries_total.store(entries, Relaxed);
        self.bytes_total.store(bytes, Relaxed);
    }

    /// How far the operation is.
    pub fn progress(&self) -> Progress {
        Progress {
            entries_done: self.entries_done.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            entries_total: self.entries_total.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
        }
    }

    /// Called by an operation before each entry and between the pieces of a large file.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.cancelled.load(Relaxed) {
            return Err(Interrupted::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Interrupted::Deadline),
            _ => Ok(()),
        }
    }

    /// Called by an operation when something is done.
    pub fn advance(&self, entries: u64, bytes: u64) {
        self.entries_done.fetch_add(entries, Relaxed);
        self.bytes_done.fetch_add(bytes, Relaxed);
    }
}
