//! A log file that is renamed when it is full: `name` becomes `name.1`, that `name.2`, and so on.
//!
//! The numbering is that of Python's `RotatingFileHandler`, which existing sites' tools know. Lines are never
//! split between two files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How long a file that could not be written is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// The file. Copies share it.
#[derive(Clone)]
pub(super) struct RotatingFile(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    limit: u64,
    backups: u32,
    /// The open file and its size.
    file: Option<(File, u64)>,
    retry_at: Option<Instant>,
    complained: bool,
}

impl RotatingFile {
    /// Opens the file to append to it, and makes its directory if it is missing. With `limit` 0, or without
    /// backups, it grows without end.
    pub(super) fn open(path: PathBuf, limit: u64, backups: u32) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = Some(append(&path)?);
        let inner = Inner { path, limit, backups, file, retry_at: None, complained: false };
        Ok(RotatingFile(Arc::new(Mutex::new(inner))))
    }

    /// Closes the file; the next line opens, or makes, the one that has its name then.
    pub(super) fn reopen(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.file, inner.retry_at) = (None, None);
    }
}

/// One line for the file; `write` gets all of it at once.
pub(super) struct Line(Arc<Mutex<Inner>>);

impl MakeWriter<'_> for RotatingFile {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Arc::clone(&self.0))
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(line);
        // Lost or not, the line is dealt with.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn put(&mut self, line: &[u8]) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.try_put(line) {
            Ok(()) => (self.retry_at, self.complained) = (None, false),
            Err(error) => self.give_up_for_now(&error),
        }
    }

    fn try_put(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let full = |size: u64| size > 0 && size + length > self.limit;
        if self.limit > 0 && self.backups > 0 && self.file.as_ref().is_some_and(|(_, size)| full(*size)) {
            self.file = None;
            rotate(&self.path, self.backups)?;
        }
        let (file, size) = match &mut self.file {
            Some(open) => open,
            closed => closed.insert(append(&self.path)?),
        };
        file.write_all(line)?;
        *size += length;
        Ok(())
    }

    fn give_up_for_now(&mut self, error: &io::Error) {
        self.file = None;
        self.retry_at = Some(Instant::now() + RETRY);
        if !self.complained {
            self.complained = true;
            // The last place to say it. If that is gone too, nobody listens.
            let _ = writeln!(io::stderr(), "storage-agent: cannot log to {}: {error}", self.path.display());
        }
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn rotate(path: &Path, backups: u32) -> io::Result<()> {
    for number in (0..backups).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_renamed_file_gets_no_more_lines_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("agent.log"), dir.path().join("aside"));
        let log = RotatingFile::open(path.clone(), 0, 0).unwrap();
        log.make_writer().write_all(b"line 1\n").unwrap();
        fs::rename(&path, &aside).unwrap();
        log.reopen();
        log.make_writer().write_all(b"line 2\n").unwrap();
        assert_eq!((read(&aside).as_str(), read(&path).as_str()), ("line 1\n", "line 2\n"));
    }

    #[test]
    fn a_full_file_becomes_number_one_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/agent.log");
        let log = RotatingFile::open(path.clone(), 10, 2).unwrap();
        for line in ["line 1\n", "line 2\n", "line 3\n", "line 4\n"] {
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(read(&path), "line 4\n");
        assert_eq!(read(&numbered(&path, 1)), "line 3\n");
        assert_eq!(read(&numbered(&path, 2)), "line 2\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn what_an_earlier_process_wrote_counts_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        fs::write(&path, "earlier\n").unwrap();
        let log = RotatingFile::open(path.clone(), 12, 1).unwrap();
        log.make_writer().write_all(b"later\n").unwrap();
        assert_eq!((read(&path), read(&numbered(&path, 1))), ("later\n".into(), "earlier\n".into()));
    }

    #[test]
    fn a_file_that_cannot_be_written_loses_lines_and_nothing_else() {
        let log = RotatingFile::open("/dev/full".into(), 0, 0).unwrap();
        log.make_writer().write_all(b"a line for a full disk\n").unwrap();
        let mut inner = log.0.lock().unwrap();
        assert!(inner.retry_at.is_some());
        let dir = tempfile::tempdir().unwrap();
        inner.path = dir.path().join("agent.log");
        inner.put(b"too early\n");
        assert!(!inner.path.exists());
        inner.retry_at = None;
        inner.put(b"again\n");
        assert_eq!(read(&inner.path), "again\n");
    }
}
