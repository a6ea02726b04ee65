//! Why an upload does not go on.

use std::io;

use thiserror::Error;

use crate::error::OpError;
use crate::fs::RelPath;

/// A situation that keeps bytes from being stored or a file from being finished.
#[derive(Debug, Error)]
pub enum UploadError {
    /// No staging file and no sign of an end: never begun, terminated, or swept away.
    #[error("the upload session does not exist or was terminated")]
    NoSession,
    /// The client's idea of the offset is wrong.
    #[error("Upload-Offset does not match: the session stands at {actual} bytes")]
    OffsetMismatch {
        /// The session's offset.
        actual: u64,
    },
    /// Someone else is writing to the session.
    #[error("another request is writing to the session")]
    Held,
    /// Another request took the session over while this one was waiting for its client.
    #[error("another request took the session over")]
    TakenOver {
        /// What was stored before.
        offset: u64,
    },
    /// The client sends more than the size it announced.
    #[error("the body passes the announced size of {size} bytes")]
    TooLong {
        /// The session's offset.
        offset: u64,
        /// The announced size.
        size: u64,
    },
    /// The bytes do not have the sum that the client stated.
    #[error("the checksum does not match; nothing of the request was kept")]
    Checksum {
        /// The session's offset, as before the request.
        offset: u64,
    },
    /// The client went away or stopped sending.
    #[error("the request's body ended too early")]
    Broken {
        /// The session's offset.
        offset: u64,
    },
    /// The disk or the quota is full. The session can go on when there is space again.
    #[error("no space is left on the volume or in its quota")]
    Full {
        /// The session's offset.
        offset: u64,
    },
    /// The staging file cannot be written.
    #[error("the data cannot be stored: {source}")]
    Storage {
        /// The session's offset.
        offset: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory stands where the file is to go.
    #[error("{0} is a directory; an upload cannot replace it")]
    TargetIsDirectory(RelPath),
    /// The file cannot go where the token and `dst_dir` say.
    #[error("{path:?} cannot be uploaded to: {reason}")]
    Target {
        /// The path, with what is not UTF-8 replaced.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything that can also happen elsewhere.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl UploadError {
    /// What a failed call on the staging file means for the session.
    pub(super) fn storage(source: io::Error, offset: u64) -> Self {
        if is_full(&source) { UploadError::Full { offset } } else { UploadError::Storage { offset, source } }
    }

    /// A failure of the program itself, of which nothing is known.
    pub fn failed_inside() -> Self {
        let source = io::Error::other("the upload failed inside the storage agent; see its log");
        UploadError::Op(OpError::Fs { source, paths: Vec::new() })
    }

    /// The session's offset, where it is known.
    pub fn offset(&self) -> Option<u64> {
        match self {
            UploadError::OffsetMismatch { actual: offset }
            | UploadError::TakenOver { offset }
            | UploadError::TooLong { offset, .. }
            | UploadError::Checksum { offset }
            | UploadError::Broken { offset }
            | UploadError::Full { offset }
            | UploadError::Storage { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
