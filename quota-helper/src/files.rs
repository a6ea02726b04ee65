//! The files that the helper changes: the two project files, and the record and other memory in its state directory.
//!
//! The project files are never replaced by a rename: a service that may write to them but not to `/etc` cannot do that,
//! and other programs hold them open. So a change is an [`Edit`] of a file's end that carries both what was there and
//! what shall be. All edits of a change are noted in the file `intent` before the first one is made: after a failure the
//! old bytes are put back, after a crash a half-written end is told from somebody else's change byte by byte, and
//! finished by the next request or start.

use std::fs::{self, DirBuilder, File, OpenOptions, symlink_metadata};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bincode::config::standard;
use common::protocol::Refusal;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// How long another program may keep a lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// One value for `/etc/projects`, one for `/etc/projid` and one for the record.
pub type Files<T> = [T; 3];

/// What the files hold.
pub type Contents = Files<Vec<u8>>;

/// A change of a file from an offset to its end.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Edit {
    offset: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// Inode, size and times: some of them change when anybody writes to a file or replaces it.
pub type Stamp = (u64, u64, [i64; 4]);

/// A refusal because of what the system refused.
pub fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(Error) -> Refusal + 'a {
    move |error| refusal!(StorageFailed: "cannot {doing} {}: {error}", path.display())
}

/// The file's stamp; `None` where there is no file.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let m = symlink_metadata(path).ok()?;
    Some((m.ino(), m.size(), [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]))
}

/// A file's whole content; a missing file has none.
pub fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let file = open(path, OpenOptions::new().read(true));
    match file.and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("read", path)(error)),
        _ => Ok(bytes),
    }
}

/// Opens a regular file that has this name alone; neither a link nor a FIFO is followed or waited for.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    match file.metadata()? {
        metadata if !metadata.is_file() => Err(Error::other("not a regular file")),
        metadata if metadata.nlink() == 1 => Ok(file),
        _ => Err(Error::other("replaced, or hard-linked; restart quota-helper if it was replaced")),
    }
}

/// Opens a file and locks it against other writers for as long as it lives. With `create`, it is made with this mode
/// where it is missing.
pub fn lock(path: &Path, write: bool, create: Option<u32>) -> Result<File, Refusal> {
    let place = path.display();
    let open_new = |mode| open(path, OpenOptions::new().read(true).write(true).create_new(true).mode(mode));
    let file = match (open(path, OpenOptions::new().read(true).write(write)), create) {
        (Err(error), Some(mode)) if error.kind() == ErrorKind::NotFound => open_new(mode),
        (opened, _) => opened,
    };
    // A unit with a read-only /etc, and Landlock, show the helper the very files that were there at its start.
    let cure = "if an editor replaced it, restart quota-helper.service, else see quota-helper repair";
    let file = file.map_err(|error| refusal!(FilesDamaged: "cannot open {place}: {error}; {cure}"))?;
    let end = Instant::now() + PATIENCE;
    while file.try_lock().is_err() {
        if Instant::now() > end {
            return Err(refusal!(StorageFailed: "cannot lock {place}: another program has it, see lslocks"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

impl Edit {
    /// Lines at the end of a file, on a line of their own; nothing at all if there are none.
    pub fn append(file: &File, lines: &str) -> io::Result<Self> {
        let (offset, mut last) = (file.metadata()?.len(), [b'\n']);
        if offset > 0 {
            file.read_exact_at(&mut last, offset - 1)?;
        }
        let newline = if last == [b'\n'] || lines.is_empty() { "" } else { "\n" };
        Ok(Edit { offset, old: Vec::new(), new: format!("{newline}{lines}").into_bytes() })
    }

    /// What makes one content of another.
    pub fn between(mut old: Vec<u8>, mut new: Vec<u8>) -> Self {
        let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
        Edit { offset: same as u64, old: old.split_off(same), new: new.split_off(same) }
    }

    /// Finishes the change after a crash, unless the file's end is neither of the two and no mixture of them: then
    /// somebody else has written since, and `false` is given.
    pub fn finish(&self, file: &File) -> io::Result<bool> {
        let (one, other) = (self.old.len(), self.new.len());
        let mut end = vec![0; one.max(other) + 1];
        let length = file.read_at(&mut end, self.offset)?;
        // A file that has grown reads as zeros where data was lost with the power.
        let torn = end.iter().take(length).zip(0..).all(|(byte, at)| {
            let (old, new) = (self.old.get(at), self.new.get(at));
            old == Some(byte) || new == Some(byte) || (old.is_none() && *byte == 0)
        });
        let own = torn && (one.min(other)..=one.max(other)).contains(&length);
        if own {
            self.put(file, &self.new)?;
        }
        Ok(own)
    }

    /// Makes these bytes the file's end, durably.
    fn put(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, self.offset)?;
        file.set_len(self.offset + bytes.len() as u64)?;
        file.sync_all()
    }
}

/// The directory of the helper's memory, which nobody else writes to.
pub struct State(PathBuf);

impl State {
    /// Makes the directory where it is missing; one that others can write to is refused.
    pub fn open(directory: &Path) -> Result<Self, Refusal> {
        // Where it can't be made, there is none to look at either.
        let _ = DirBuilder::new().mode(0o700).create(directory);
        let metadata = symlink_metadata(directory).map_err(failed("make", directory))?;
        let own = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
        if metadata.is_dir() && own && metadata.mode() & 0o022 == 0 {
            return Ok(State(directory.to_path_buf()));
        }
        Err(refusal!(StorageFailed: "{} must be a directory of ours alone", directory.display()))
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Changes all files, which are locked, or none.
    pub fn commit(&self, files: &Files<File>, edits: &[Edit]) -> io::Result<()> {
        self.replace("intent", &bincode::encode_to_vec(edits, standard()).map_err(Error::other)?)?;
        let each = || files.iter().zip(edits).filter(|(_, edit)| edit.old != edit.new);
        let done = each().try_for_each(|(file, edit)| edit.put(file, &edit.new));
        if done.is_err() {
            // Should this fail too, the intent stays, and is finished before anything else is done.
            each().try_for_each(|(file, edit)| edit.put(file, &edit.old))?;
        }
        self.forget_intent().and(done)
    }

    /// The file that is there while a change is unfinished.
    pub fn intent(&self) -> PathBuf {
        self.path("intent")
    }

    /// Finishes an interrupted change. `false`: a file has been written to by others since, and is left alone.
    pub fn recover(&self, files: &Files<File>) -> io::Result<bool> {
        let bytes = fs::read(self.intent())?;
        let decoded = bincode::decode_from_slice::<Vec<Edit>, _>(&bytes, standard());
        let (edits, mut own) = (decoded.map_err(Error::other)?.0, true);
        for (file, edit) in files.iter().zip(&edits) {
            own &= edit.finish(file)?;
        }
        self.forget_intent().and(Ok(own))
    }

    /// Durably, so that none that is long done comes back after a power failure.
    fn forget_intent(&self) -> io::Result<()> {
        fs::remove_file(self.intent())?;
        File::open(&self.0)?.sync_all()
    }

    /// The path of a file with this content, written if it isn't there yet.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Refusal> {
        let path = self.path(name);
        if fs::read(&path).ok().as_deref() != Some(bytes) {
            self.replace(name, bytes).map_err(failed("write", &path))?;
        }
        Ok(path)
    }

    /// Writes a file so that it is there as a whole or not at all.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let new = options.write(true).create(true).truncate(true).mode(0o600).open(self.path("new"));
        new.and_then(|mut new| new.write_all(bytes).and_then(|()| new.sync_all()))?;
        fs::rename(self.path("new"), self.path(name))?;
        File::open(&self.0)?.sync_all()
    }
}
