//! Why an operation on volumes, scopes, folders or files did not happen.
//!
//! One variant is one situation. Operations return it, the two APIs translate it into their replies
//! (`api::problem`), and nothing in between builds sentences. Paths in it are relative to the vfolder.

use std::io;

use common::id::{QuotaScopeId, VfolderId};
use thiserror::Error;

use crate::fs::{PathError, RelPath, is_escape, is_reserved};
use crate::tree::{Interrupted, TreeError};
use crate::volume::ArrayError;

/// A situation that kept an operation from being done.
#[derive(Debug, Error)]
pub enum OpError {
    /// The volume is not in the configuration.
    #[error("volume {0:?} is not configured on this storage node")]
    UnknownVolume(String),
    /// The volume's directory cannot be opened: unmounted, removed or forbidden.
    #[error("volume {volume:?} cannot be used at the moment: {source}")]
    VolumeUnavailable {
        /// The volume's name.
        volume: String,
        /// What opening its directory said.
        source: io::Error,
    },
    /// No directory stands at the folder's place.
    #[error("VFolder not found")]
    VfolderNotFound(VfolderId),
    /// No directory stands at the scope's place.
    #[error("quota scope {0} does not exist")]
    ScopeNotFound(QuotaScopeId),
    /// The scope is there already.
    #[error("Volume already exists with given quota scope.")]
    ScopeExists(QuotaScopeId),
    /// Something is still in the scope.
    #[error("quota scope {0} still holds folders; delete them first")]
    ScopeNotEmpty(QuotaScopeId),
    /// The limit cannot be set.
    #[error("Invalid quota config option")]
    QuotaConfig,
    /// What enforces the limits did not do it.
    #[error("{0}")]
    QuotaFailed(String),
    /// The backend has no such ability.
    #[error("the {backend} backend has no {what}")]
    Unsupported {
        /// The backend's name as the configuration writes it.
        backend: &'static str,
        /// The missing ability.
        what: &'static str,
    },
    /// The path leaves the folder, or can never name something in it.
    #[error("Invalid vfolder subpath {path:?}: {reason}")]
    Subpath {
        /// The path as it was given, with what is not UTF-8 replaced.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused a file operation.
    #[error("{}", errno_text(.source))]
    Fs {
        /// The kernel's answer.
        source: io::Error,
        /// The entries concerned.
        paths: Vec<String>,
    },
    /// The operation makes no sense for these entries, whatever the kernel would say.
    #[error("{reason}")]
    Refused {
        /// What is wrong and what would be right.
        reason: String,
        /// The entries concerned.
        paths: Vec<String>,
    },
    /// A limit of the configuration is reached; the same request may succeed later.
    #[error("{what} (limit {key})")]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// The configuration key that sets the limit.
        key: &'static str,
    },
    /// A copy would not fit.
    #[error("Not enough space available for clone.")]
    NoSpaceForClone {
        /// Bytes that the source holds.
        needed: u64,
        /// Bytes that are free at the target.
        free: u64,
    },
    /// The storage has no performance figures at the moment.
    #[error("the storage of volume {0:?} has no performance figures at the moment")]
    NoMetric(String),
    /// The array behind the volume could not do it, or not be asked.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The program itself failed; what happened is in its log.
    #[error("the operation failed inside the storage agent; see its log")]
    Inside,
    /// Somebody asked for the work to stop.
    #[error("cancelled")]
    Cancelled,
    /// The work was given up because it took too long.
    #[error("took too long")]
    TimedOut,
}

impl OpError {
    /// The kernel's answer about one entry. An attempt to leave the folder, or to use a name that is the file system's
    /// own, becomes [`OpError::Subpath`].
    pub fn fs(source: io::Error, path: &RelPath) -> Self {
        if is_escape(&source) {
            OpError::Subpath { path: path.to_string(), reason: "it leads out of the folder".into() }
        } else if is_reserved(&source) {
            OpError::Subpath { path: path.to_string(), reason: source.to_string() }
        } else {
            OpError::Fs { source, paths: vec![path.to_string()] }
        }
    }

    /// The sentence with the entries concerned, for places that show nothing else of the error.
    pub fn with_paths(&self) -> String {
        match self {
            OpError::Fs { paths, .. } if !paths.is_empty() => format!("{self}: {}", paths.join(", ")),
            _ => self.to_string(),
        }
    }

    /// A path that cannot be.
    pub fn path(given: &[u8], reason: &PathError) -> Self {
        OpError::Subpath { path: String::from_utf8_lossy(given).into_owned(), reason: reason.to_string() }
    }

    /// Whether there was no room, on the disk or within a limit.
    pub fn is_full(&self) -> bool {
        matches!(self, OpError::Fs { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether what was named is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            OpError::VfolderNotFound(_) | OpError::ScopeNotFound(_) => true,
            OpError::Fs { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl From<Interrupted> for OpError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Cancelled => OpError::Cancelled,
            Interrupted::Deadline => OpError::TimedOut,
        }
    }
}

impl From<TreeError> for OpError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Interrupted(interrupted) => interrupted.into(),
            TreeError::Failed(problem) => OpError::Fs { source: problem.cause, paths: vec![problem.path] },
        }
    }
}

/// The kernel's sentence for an error, as C's `strerror` words it: without Rust's "(os error N)".
pub fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}
