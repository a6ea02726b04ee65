//! What can go wrong with a file besides an errno.
//!
//! These travel inside an [`io::Error`], because most callers treat them like any other failed call; the few that
//! map them to an answer of their own ask with [`is_escape`] and [`is_not_regular`].

use std::io;

use super::stat::FileKind;

/// A refusal of ours rather than of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The path leads out of the directory it was resolved in, by a link or by a directory moved meanwhile.
    #[error("the path leads outside the folder")]
    Escape,
    /// The file is a FIFO, socket, device or link where a regular file is needed.
    #[error("not a regular file")]
    NotRegular(FileKind),
    /// A file that must have one name only has several.
    #[error("the file has more than one hard link")]
    HardLinked,
    /// Another process put a different file in place between two steps.
    #[error("the file was replaced while it was being opened")]
    Replaced,
    /// The file system keeps this name for itself, for instance CephFS's `.snap`.
    #[error("the file system keeps this name for itself")]
    Reserved,
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> io::Error {
        let kind = match error {
            FileError::Escape | FileError::HardLinked | FileError::Reserved => {
                io::ErrorKind::PermissionDenied
            }
            FileError::NotRegular(_) => io::ErrorKind::InvalidInput,
            FileError::Replaced => io::ErrorKind::ResourceBusy,
        };
        io::Error::new(kind, error)
    }
}

/// Whether the call failed because the path leads outside the directory it was resolved in.
pub fn is_escape(error: &io::Error) -> bool {
    file_error(error) == Some(FileError::Escape)
}

/// Whether the call failed because a name belongs to the file system.
pub fn is_reserved(error: &io::Error) -> bool {
    file_error(error) == Some(FileError::Reserved)
}

/// Whether the call failed because the file is neither a regular file nor a directory (which is `EISDIR`).
pub fn is_not_regular(error: &io::Error) -> bool {
    matches!(file_error(error), Some(FileError::NotRegular(_)))
}

fn file_error(error: &io::Error) -> Option<FileError> {
    error.get_ref()?.downcast_ref::<FileError>().copied()
}
