//! Whole project files: reading them within bounds, line by line.
//!
//! A file is read to its end before anything is made of it, so that two passes see the same lines. What can't be a
//! project file (a FIFO, a directory, something huge) is refused instead of being waited for.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::entry::{Entry, LineError};

/// The largest file that is read, in bytes: room for about 60,000 projects.
pub const LARGEST: u64 = 8 << 20;

/// Something at a line; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered<T> {
    /// The line's number.
    pub line: usize,
    /// What is there.
    pub value: T,
}

/// The lines of a file that say something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<E> {
    /// Where it came from.
    pub path: PathBuf,
    /// Entries in the file's order.
    pub entries: Vec<Numbered<E>>,
    /// Lines that are no entries.
    pub malformed: Vec<Numbered<LineError>>,
}

/// Why a file couldn't be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, FIFO, socket or device.
    #[error("{} is not a regular file; give the path of a project file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Longer than [`LARGEST`].
    #[error("{} is larger than {LARGEST} bytes, which no project file is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl<E: Entry> Table<E> {
    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = read_bounded(path)?;
        Ok(Self::parse(path, &bytes))
    }

    /// Like [`Table::read`], but a missing file is one without entries.
    pub fn read_if_exists(path: &Path) -> Result<Self, FileError> {
        match Self::read(path) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::parse(path, b""))
            }
            other => other,
        }
    }

    /// Parses a file's content. `path` is for messages alone.
    pub fn parse(path: &Path, bytes: &[u8]) -> Self {
        let mut table = Table { path: path.to_path_buf(), entries: Vec::new(), malformed: Vec::new() };
        for (index, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = index + 1;
            match E::parse(text) {
                Ok(Some(value)) => table.entries.push(Numbered { line, value }),
                Ok(None) => {}
                Err(value) => table.malformed.push(Numbered { line, value }),
            }
        }
        table
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    let io = |source| FileError::Io { path: path.to_path_buf(), source };
    // Opening a FIFO waits for a writer, so the kind is asked for before as well as of the open file.
    require_regular(path, &fs::metadata(path).map_err(io)?)?;
    let file = File::open(path).map_err(io)?;
    require_regular(path, &file.metadata().map_err(io)?)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge { path: path.to_path_buf() });
    }
    Ok(bytes)
}

fn require_regular(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    if metadata.is_file() { Ok(()) } else { Err(FileError::NotRegular { path: path.to_path_buf() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{ProjectName, ProjectPath};

    fn lines<T>(numbered: &[Numbered<T>]) -> Vec<usize> {
        numbered.iter().map(|n| n.line).collect()
    }

    #[test]
    fn entries_and_mistakes_keep_their_line_numbers() {
        let content = b"# projects\n\n1:/a\nnonsense\n2:/b";
        let table = Table::<ProjectPath>::parse(Path::new("projects"), content);
        assert_eq!(lines(&table.entries), [3, 5]);
        assert_eq!(lines(&table.malformed), [4]);
    }

    #[test]
    fn a_missing_file_is_empty_only_where_it_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("projid");
        assert!(Table::<ProjectName>::read_if_exists(&path).unwrap().entries.is_empty());
        let error = Table::<ProjectName>::read(&path).unwrap_err().to_string();
        assert!(error.contains("projid: No such file"), "{error}");
    }

    #[test]
    fn a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Table::<ProjectName>::read_if_exists(folder.path()).unwrap_err();
        assert!(matches!(error, FileError::NotRegular { .. }), "{error}");
    }

    #[test]
    fn the_largest_file_is_read_and_one_byte_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("projects");
        fs::write(&path, vec![b'\n'; LARGEST as usize]).unwrap();
        assert!(Table::<ProjectPath>::read(&path).is_ok());
        fs::write(&path, vec![b'\n'; LARGEST as usize + 1]).unwrap();
        let error = Table::<ProjectPath>::read(&path).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { .. }), "{error}");
    }
}
