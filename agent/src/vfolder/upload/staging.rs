//! The staging file of one session: finding, locking and recovering it.
//!
//! The file's size is the session's offset. Bytes whose checksum is still to be checked are the exception, and on some
//! file systems bytes that are not durable yet: while they arrive, a second file says where they begin, and whoever
//! opens the session after a crash cuts them off.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::UploadError;
use super::session::{SessionId, StagingName, staging};
use crate::error::OpError;
use crate::fs::{Dir, FileError, FileKind, Name, RelPath, is_not_regular};

/// How often a session is looked up again when it changed between finding and locking it.
const TRIES: usize = 3;

/// A session's staging file, locked against other processes.
pub(super) struct Staging {
    pub(super) file: Arc<File>,
    pub(super) area: Arc<Dir>,
    pub(super) session: SessionId,
    pub(super) offset: u64,
}

/// The file that says from where on the bytes of a session do not count yet.
pub(super) struct Mark(File);

/// What there is of a session.
pub(super) enum Found {
    /// Its staging file, locked.
    Open(Staging),
    /// Its staging file, locked by another process, at this offset.
    Locked(u64),
    /// The sign that it is finished.
    Done,
    /// Nothing.
    Missing,
}

impl Staging {
    /// Finds a session of at most `size` bytes and makes sure that its file holds good bytes only.
    pub(super) fn find(folder: &Dir, session: SessionId, size: u64) -> io::Result<Found> {
        let Some(area) = absent(folder.open_dir_nofollow(&RelPath::from(staging()?)))? else {
            return Ok(Found::Missing);
        };
        let data = StagingName::Data(session).name()?;
        for _ in 0..TRIES {
            let Some(file) = openable(&area, &data)? else {
                let done = absent(area.stat(&StagingName::Done(session).name()?))?;
                return Ok(if done.is_some() { Found::Done } else { Found::Missing });
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(Found::Locked(verified(&area, session, &file)?)),
                locked => locked?,
            }
            if is_same(&area, &data, &file)? {
                return Staging::recover(file, area, session, size).map(Found::Open);
            }
        }
        Ok(Found::Missing)
    }

    /// Looks at a session without touching it, for when another process may be writing that no lock shows.
    pub(super) fn look(folder: &Dir, session: SessionId) -> io::Result<Found> {
        let Some(area) = absent(folder.open_dir_nofollow(&RelPath::from(staging()?)))? else {
            return Ok(Found::Missing);
        };
        if let Some(file) = openable(&area, &StagingName::Data(session).name()?)? {
            return Ok(Found::Locked(verified(&area, session, &file)?));
        }
        let done = absent(area.stat(&StagingName::Done(session).name()?))?;
        Ok(if done.is_some() { Found::Done } else { Found::Missing })
    }

    fn recover(file: File, area: Dir, session: SessionId, size: u64) -> io::Result<Staging> {
        let length = file.metadata()?.len();
        let offset = verified(&area, session, &file)?.min(size);
        let staging = Staging { file: Arc::new(file), area: Arc::new(area), session, offset };
        if offset < length {
            staging.truncate(offset)?;
        }
        staging.forget_unverified()?;
        Ok(staging)
    }

    /// Cuts off what was stored from `offset` on, durably.
    pub(super) fn truncate(&self, offset: u64) -> io::Result<()> {
        self.file.set_len(offset)?;
        self.file.sync_data()
    }

    /// Notes that the bytes from the offset on count only once [`Staging::forget_unverified`] was called.
    pub(super) fn begin_unverified(&self) -> io::Result<Mark> {
        let name = StagingName::Unverified(self.session).name()?;
        let mark = Mark(self.area.create_new(&name, 0o644)?);
        mark.advance(self.offset)?;
        self.area.sync()?;
        Ok(mark)
    }

    /// All bytes are good.
    pub(super) fn forget_unverified(&self) -> io::Result<()> {
        absent(self.area.unlink(&StagingName::Unverified(self.session).name()?)).map(drop)
    }

    /// A look at whether another process wants the session.
    pub(super) fn watch(&self) -> io::Result<Watch> {
        Ok(Watch { area: Arc::clone(&self.area), name: StagingName::Wanted(self.session).name()? })
    }

    /// Whether somebody has removed or replaced the staging file.
    pub(super) fn is_gone(&self) -> bool {
        let name = StagingName::Data(self.session).name();
        !name.and_then(|name| is_same(&self.area, &name, &self.file)).unwrap_or(false)
    }

    /// Removes the session and all its files.
    pub(super) fn remove(self) -> io::Result<()> {
        self.area.unlink(&StagingName::Data(self.session).name()?)?;
        self.forget_unverified()
    }
}

/// A process that holds a session looks at this while it hears nothing of its client: perhaps that one has come to
/// another process, which can't reach into this one.
pub(super) struct Watch {
    area: Arc<Dir>,
    name: Name,
}

impl Watch {
    /// Whether someone wants the session. Blocks.
    pub(super) fn is_wanted(&self) -> bool {
        self.area.stat(&self.name).is_ok()
    }

    /// The session is given up.
    pub(super) fn answer(&self) {
        if let Err(error) = absent(self.area.unlink(&self.name)) {
            tracing::debug!(name = %self.name, %error, "the sign that a session is wanted could not be removed");
        }
    }
}

/// Asks the process that holds a session to leave it if it does not hear of its client.
pub(super) struct Wanted(Watch);

impl Wanted {
    /// Puts up the sign. Blocks.
    pub(super) fn post(folder: &Dir, session: SessionId) -> io::Result<Self> {
        let area = folder.open_dir_nofollow(&RelPath::from(staging()?))?;
        let watch = Watch { area: Arc::new(area), name: StagingName::Wanted(session).name()? };
        match watch.area.create_new(&watch.name, 0o644) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Wanted(watch)),
        }
    }

    /// Takes the sign down. Blocks.
    pub(super) fn withdraw(self) {
        self.0.answer();
    }
}

impl Mark {
    /// Lets the bytes up to `offset` count, which must be durable. Always the same length, so that a crash leaves the old
    /// text or the new.
    pub(super) fn advance(&self, offset: u64) -> io::Result<()> {
        self.0.write_all_at(format!("{offset:020}").as_bytes(), 0)?;
        self.0.sync_all()
    }
}

/// Makes the staging directory where it is missing and opens it; a link in its place is refused.
pub(super) fn make_area(folder: &Dir) -> Result<Dir, OpError> {
    let path = RelPath::from(staging().map_err(|error| OpError::fs(error, &RelPath::root()))?);
    folder.mkdir_all(&path, 0o755).map_err(|error| OpError::fs(error, &path))
}

/// Nothing where the file or directory does not exist.
pub(super) fn absent<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The staging file, unless it is missing or something of that name is none: a link, a second name of some
/// other file, a FIFO, a directory. We make no such thing, so there is no session then.
fn openable(area: &Dir, data: &Name) -> io::Result<Option<File>> {
    match area.open_existing_rw(data) {
        Err(error) if is_not_regular(&error) || error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) if is_hard_linked(&error) => Ok(None),
        opened => absent(opened),
    }
}

fn is_hard_linked(error: &io::Error) -> bool {
    matches!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(FileError::HardLinked))
}

fn is_same(area: &Dir, name: &Name, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let opened = file.metadata()?;
    let named = absent(area.stat(name))?;
    Ok(named.is_some_and(|named| {
        named.kind == FileKind::File && (named.dev, named.ino) == (opened.dev(), opened.ino())
    }))
}

/// How many bytes of a staging file are good.
fn verified(area: &Dir, session: SessionId, file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let name = StagingName::Unverified(session).name()?;
    let Some((mark, _)) = absent(area.open_file_nofollow(&name))? else { return Ok(length) };
    let mut text = String::new();
    mark.take(32).read_to_string(&mut text)?;
    // An empty or torn mark was not durable before the first byte was written: none has been.
    Ok(text.parse::<u64>().map_or(length, |begin| begin.min(length)))
}

impl Found {
    /// The session's offset if it is finished or underway.
    pub(super) fn offset(&self, size: u64) -> Result<u64, UploadError> {
        match self {
            Found::Open(staging) => Ok(staging.offset),
            Found::Locked(offset) => Ok(*offset),
            Found::Done => Ok(size),
            Found::Missing => Err(UploadError::NoSession),
        }
    }
}
