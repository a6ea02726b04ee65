//! Error replies of `/upload`.

use std::io;

use warp::http::StatusCode;

use crate::api::problem::{Problem, read_only};
use crate::error::OpError;
use crate::vfolder::upload::UploadError;

const CONFLICT: &str = "storage-proxy_update_conflict";

/// The reply to an upload that does not go on.
pub(super) fn refusal(error: UploadError) -> Problem {
    let msg = error.to_string();
    if let UploadError::Storage { source, .. } = &error {
        tracing::error!(error = %source, "an upload could not be stored");
    }
    let problem = match error {
        UploadError::NoSession => Problem::new(
            StatusCode::NOT_FOUND,
            "storage/tus-session-not-found",
            "TUS upload session not found",
        )
        .code("storage-proxy_read_not-found"),
        UploadError::OffsetMismatch { .. } => {
            Problem::new(StatusCode::CONFLICT, "storage/upload-offset-mismatch", "Upload Offset Mismatch")
                .code(CONFLICT)
        }
        UploadError::Held => Problem::new(
            StatusCode::CONFLICT,
            "storage/tus-lease-held",
            "TUS session lease is held by another storage-proxy",
        )
        .code(CONFLICT),
        UploadError::TakenOver { .. } => {
            Problem::new(StatusCode::CONFLICT, "storage/tus-lease-lost", "TUS session lease lost mid-write")
                .code(CONFLICT)
        }
        UploadError::TooLong { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "storage/upload-too-long", "Upload Too Long")
        }
        UploadError::Checksum { .. } => {
            Problem::new(checksum_mismatch(), "storage/checksum-mismatch", "Checksum Mismatch")
        }
        UploadError::Broken { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "storage/malformed-request", "Incomplete request body")
        }
        UploadError::Full { .. } => full(),
        UploadError::Storage { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            return read_only();
        }
        UploadError::Storage { .. } => Problem::internal(""),
        UploadError::TargetIsDirectory(_) => {
            Problem::new(StatusCode::CONFLICT, "storage/fs/refused", "Filesystem Operation Refused")
                .code("vfolder_access_invalid-parameters")
        }
        UploadError::Target { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "storage/subpath/invalid", "Invalid Subpath")
                .code("vfolder_access_invalid-parameters")
        }
        UploadError::Op(error) => return operation(error),
    };
    problem.msg(msg)
}

/// Elsewhere a failed file operation is the caller's mistake; here the caller named no file that could fail.
fn operation(error: OpError) -> Problem {
    match &error {
        OpError::Fs { .. } if error.is_full() => full().msg(error.to_string()),
        OpError::Fs { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => read_only(),
        // Whoever uses the folder may remove the staging directory, or put something else in its place, at any time.
        OpError::Fs { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            refusal(UploadError::NoSession)
        }
        OpError::Fs { source, .. } if is_in_the_way(source) => Problem::from(error),
        OpError::Fs { .. } => Problem::from(error).with_status(StatusCode::INTERNAL_SERVER_ERROR),
        _ => Problem::from(error),
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || error.kind() == io::ErrorKind::NotADirectory
}

fn full() -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "storage/no-space", "Insufficient Storage")
}

/// 460, which tus defines for this and HTTP does not know.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
}
