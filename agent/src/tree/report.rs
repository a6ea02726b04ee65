//! What went wrong in a tree, and where.

use std::fmt;
use std::io;

use super::control::Interrupted;

/// How many problems are kept word by word; the rest is only counted.
const KEPT: usize = 100;

/// One file or directory that made trouble.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {action}: {cause}")]
pub struct Problem {
    /// The path relative to the operation's root, escaped for people; `.` is the root.
    pub path: String,
    /// What was being tried, such as `remove`.
    pub action: &'static str,
    /// Why it failed.
    pub cause: io::Error,
}

/// The first problems of an operation, and how many there were.
#[derive(Debug, Default)]
pub struct Problems {
    first: Vec<Problem>,
    count: u64,
}

/// Why an operation ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It was told to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// It could not go on.
    #[error(transparent)]
    Failed(#[from] Problem),
}

// === impl Problems ===

impl Problems {
    /// The first hundred.
    pub fn first(&self) -> &[Problem] {
        &self.first
    }

    /// All of them, those not kept included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The problem is only built when it is one of the first.
    pub(super) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(problem());
        }
    }

    pub(super) fn merge(&mut self, other: Problems) {
        self.count += other.count;
        let room = KEPT.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }
}

impl fmt::Display for Problems {
    /// One per line, then how many more there were.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.first.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.count.saturating_sub(self.first.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
