//! What a task needs to go on after a restart, kept beside the data it works on.
//!
//! Each volume and each quota scope has a directory `.trash`. A deleted vfolder is renamed into it under its
//! task's id, a clone is built there; `<id>.json` says what the task is about and whose it is, `<id>.ended` how it
//! ended, until managers know. All lies in the same file system and quota as the folders themselves, so a rename is
//! all it takes, and any agent that serves the volume can find it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use common::id::VfolderId;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Kind, State, Subject};
use crate::error::OpError;
use crate::fs::{Dir, Name, PathError, RelPath, Replace};

/// A record is a few hundred bytes; whatever is longer was not written by us.
const LONGEST_RECORD: u64 = 16 * 1024;

/// What stands in a task's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the task does.
    pub kind: Kind,
    /// The vfolder concerned.
    pub vfid: String,
    /// The process that does it, by the name of its mark (`marks`). Nil in records of releases before 0.2.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub owner: Uuid,
    /// When it was begun, in milliseconds since 1970.
    #[serde(default)]
    pub begun: u64,
    /// There was nothing to do; the record only keeps the end until managers know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nothing: bool,
    /// For a clone: the volume of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume: Option<String>,
    /// For a clone: the vfolder that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// For a clone: the copy is complete, and on its way to its place or there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built: bool,
    /// For a deletion: the folder could not be moved here and is purged where it stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
}

impl Record {
    /// Of a new task; nobody's yet.
    pub fn new(kind: Kind, vfid: &str) -> Self {
        Record {
            kind,
            vfid: vfid.into(),
            owner: Uuid::nil(),
            begun: millis(SystemTime::now()),
            nothing: false,
            source_volume: None,
            target: None,
            built: false,
            in_place: false,
        }
    }

    /// What the task is about, once the volume is known that the record was found on.
    pub fn subject(&self, volume: &str) -> Subject {
        Subject {
            kind: self.kind,
            volume: volume.to_owned(),
            vfid: self.vfid.clone(),
            target: self.target.clone(),
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// How.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether managers know. The record only stays, then, because the work is to be tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// The final states of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "message")]
pub enum Outcome {
    /// It did what it was for.
    Done,
    /// It did not; why, in a sentence.
    Failed(String),
    /// Somebody asked for its end.
    Cancelled,
}

impl Ended {
    /// A task that ended now in this state; one that has not ended counts as failed.
    pub fn now(state: &State) -> Self {
        let outcome = match state {
            State::Done => Outcome::Done,
            State::Cancelled => Outcome::Cancelled,
            State::Failed(message) => Outcome::Failed(message.clone()),
            State::Queued | State::Running => Outcome::Failed("interrupted".into()),
        };
        Ended { at: millis(SystemTime::now()), outcome, told: false }
    }
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A task that was begun and whose record is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its id.
    pub id: Uuid,
    /// What it is about.
    pub record: Record,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
}

/// The trash directory of a volume or of a quota scope.
pub struct Trash {
    holder: Dir,
    dir: Dir,
}

impl Trash {
    /// Opens it, making it where there is none. Only its owner may look into it.
    pub fn open(holder: Dir) -> Result<Self, OpError> {
        let name = trash_name()?;
        loop {
            match holder.open_dir_nofollow(&RelPath::root().child(&name).map_err(|e| invalid(&e))?) {
                Ok(dir) => return Ok(Trash { holder, dir }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match holder.mkdir(&name, 0o700) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => {}
                },
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Opens it and writes a task's record, before the task's work begins. From then on it is not empty, so the end of
    /// another task can't remove it; until then it can, and both are done again.
    pub fn begin(holder: &Dir, id: Uuid, record: &Record) -> Result<Self, OpError> {
        const TRIES: usize = 100;
        let mut tries = 0;
        loop {
            tries += 1;
            let trash = Trash::open(holder.try_clone().map_err(failed)?)?;
            match trash.write(id, record) {
                Err(error) if error.is_not_found() && tries < TRIES => {}
                Err(error) => {
                    trash.remove_if_empty();
                    return Err(error);
                }
                Ok(()) => return Ok(trash),
            }
        }
    }

    /// Opens it where it is; nothing where there is none.
    pub fn existing(holder: Dir) -> Result<Option<Self>, OpError> {
        let path = RelPath::root().child(&trash_name()?).map_err(|e| invalid(&e))?;
        match holder.open_dir_nofollow(&path) {
            Ok(dir) => Ok(Some(Trash { holder, dir })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The directory that holds what tasks work on.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The name of a task's directory.
    pub fn entry(id: Uuid) -> Result<Name, OpError> {
        Name::new(id.hyphenated().to_string().as_bytes()).map_err(|e| invalid(&e))
    }

    fn record_name(id: Uuid) -> Result<Name, OpError> {
        name(&format!("{}.json", id.hyphenated()))
    }

    fn ended_name(id: Uuid) -> Result<Name, OpError> {
        name(&format!("{}.ended", id.hyphenated()))
    }

    /// Writes a task's record durably, replacing an earlier one.
    pub fn write(&self, id: Uuid, record: &Record) -> Result<(), OpError> {
        self.put(&Self::record_name(id)?, &draft_name(id, record.owner, "new")?, record, true)
    }

    /// Notes how a task ended. Not durably: whoever finds the record without the note does the work again, which takes
    /// no time where nothing is left to do.
    pub fn write_ended(&self, id: Uuid, ended: &Ended) -> Result<(), OpError> {
        self.put(&Self::ended_name(id)?, &draft_name(id, self.read(id)?.owner, "new")?, ended, false)
    }

    fn put(&self, to: &Name, draft: &Name, content: &impl Serialize, durable: bool) -> Result<(), OpError> {
        let text = serde_json::to_vec(content).map_err(|e| failed(e.into()))?;
        let write = || {
            // A process that died in here may have left one.
            drop(self.dir.unlink(draft));
            let mut file = self.dir.create_new(draft, 0o600)?;
            file.write_all(&text)?;
            if durable {
                file.sync_all()?;
            }
            self.dir.rename(draft, &self.dir, to, Replace::Yes)?;
            if durable { self.dir.sync() } else { Ok(()) }
        };
        write().map_err(|error| {
            drop(self.dir.unlink(draft));
            failed(error)
        })
    }

    /// Takes a clone's target for a task, whose record has been written. If another task that is not over makes the
    /// same clone, in whatever process, its id; another clone to the same target is refused.
    pub fn claim(&self, target: &VfolderId, id: Uuid, subject: &Subject) -> Result<Option<Uuid>, OpError> {
        const TRIES: usize = 100;
        let (claim, draft) = (claim_name(target)?, draft_name(id, self.read(id)?.owner, "claim")?);
        drop(self.dir.unlink(&draft));
        // A claim appears as a whole: its content is what others go by.
        let mut file = self.dir.create_new(&draft, 0o600).map_err(failed)?;
        let written = file.write_all(id.hyphenated().to_string().as_bytes()).map_err(failed);
        let mut outcome = written.and(Err(OpError::Inside));
        for _ in 0..TRIES {
            outcome = match self.dir.hard_link(&draft, &self.dir, &claim) {
                Ok(()) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.holder_of(&claim) {
                    Some(other) if other == id => Ok(None),
                    Some(other) => match self.read(other) {
                        Ok(record) if record.vfid == subject.vfid => Ok(Some(other)),
                        Err(error) if error.is_not_found() => {
                            drop(self.dir.unlink(&claim));
                            continue;
                        }
                        outcome => outcome.and(Err(failed(Errno::EXIST.into()))),
                    },
                    // It went just now.
                    None => continue,
                },
                Err(error) => Err(failed(error)),
            };
            break;
        }
        drop(self.dir.unlink(&draft));
        outcome
    }

    fn holder_of(&self, claim: &Name) -> Option<Uuid> {
        std::str::from_utf8(&self.content(claim).ok()?).ok()?.parse().ok()
    }

    fn give_up_claim(&self, id: Uuid) -> Result<(), OpError> {
        let target = self.read(id).ok().and_then(|record| record.target?.parse().ok());
        let Some(claim) = target.map(|target| claim_name(&target)).transpose()? else { return Ok(()) };
        if self.holder_of(&claim) == Some(id) {
            self.dir.unlink(&claim).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes a task's record, and the trash directory when it was the last.
    pub fn remove(&self, id: Uuid) -> Result<(), OpError> {
        self.give_up_claim(id)?;
        for name in [Self::record_name(id)?, Self::ended_name(id)?] {
            match self.dir.unlink(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        self.remove_if_empty();
        Ok(())
    }

    /// Removes the trash directory if nothing is in it.
    pub fn remove_if_empty(&self) {
        // Not empty means that other tasks are at work: then it stays.
        if let Ok(name) = trash_name() {
            drop(self.holder.rmdir(&name));
        }
    }

    /// The tasks that were begun, with what is known of them.
    pub fn unfinished(&self) -> Result<Vec<Left>, OpError> {
        let mut found = Vec::new();
        for entry in self.dir.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = id_before(entry.name.as_bytes(), ".json") else { continue };
            match self.read(id) {
                Ok(record) => found.push(Left { id, record, ended: self.read_ended(id) }),
                // Its task ended just now.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(task = %id, %error, "a task's record in the trash is unreadable")
                }
            }
        }
        Ok(found)
    }

    /// The processes that are named by records, or by drafts of which nothing has become yet.
    pub fn owners(&self) -> Result<BTreeSet<Uuid>, OpError> {
        let mut owners: BTreeSet<_> = self.unfinished()?.iter().map(|left| left.record.owner).collect();
        for entry in self.dir.entries().map_err(failed)? {
            owners.extend(drafter(entry.map_err(failed)?.name.as_bytes()));
        }
        Ok(owners)
    }

    /// Removes what processes left that died between two steps: drafts, and notes of ends whose record is gone.
    pub fn clean(&self, dead: &BTreeSet<Uuid>) -> Result<(), OpError> {
        for entry in self.dir.entries().map_err(failed)? {
            let name = entry.map_err(failed)?.name;
            let is_draft = drafter(name.as_bytes()).is_some_and(|owner| dead.contains(&owner));
            let is_orphan = || match id_before(name.as_bytes(), ".ended") {
                Some(id) => self.read(id).is_err_and(|error| error.is_not_found()),
                None => false,
            };
            if is_draft || is_orphan() {
                match self.dir.unlink(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
        }
        self.remove_if_empty();
        Ok(())
    }

    /// Reads a task's record.
    pub fn read(&self, id: Uuid) -> Result<Record, OpError> {
        serde_json::from_slice(&self.content(&Self::record_name(id)?)?).map_err(|e| failed(e.into()))
    }

    /// How a task ended; nothing if it did not, or if the note is torn.
    pub fn read_ended(&self, id: Uuid) -> Option<Ended> {
        serde_json::from_slice(&self.content(&Self::ended_name(id).ok()?).ok()?).ok()
    }

    fn content(&self, name: &Name) -> Result<Vec<u8>, OpError> {
        let (file, _) = self.dir.open_file_nofollow(name).map_err(failed)?;
        let mut text = Vec::new();
        file.take(LONGEST_RECORD).read_to_end(&mut text).map_err(failed)?;
        Ok(text)
    }
}

fn id_before(name: &[u8], suffix: &str) -> Option<Uuid> {
    std::str::from_utf8(name).ok()?.strip_suffix(suffix)?.parse().ok()
}

/// A file that is being written for a task. It names the process, so that it can be told when nobody writes it any more.
fn draft_name(id: Uuid, owner: Uuid, kind: &str) -> Result<Name, OpError> {
    name(&format!("{}.{}.{kind}", id.hyphenated(), owner.hyphenated()))
}

/// The process that writes, or wrote, a draft.
fn drafter(name: &[u8]) -> Option<Uuid> {
    let (drafted, kind) = std::str::from_utf8(name).ok()?.rsplit_once('.')?;
    let (id, owner) = drafted.split_once('.')?;
    let is_draft = matches!(kind, "new" | "claim") && id.parse::<Uuid>().is_ok();
    owner.parse().ok().filter(|_| is_draft)
}

fn trash_name() -> Result<Name, OpError> {
    name(".trash")
}

/// The file that says which task makes a vfolder by cloning.
fn claim_name(target: &VfolderId) -> Result<Name, OpError> {
    name(&format!("{}.clone", target.dir_names().concat()))
}

/// A name in the trash.
pub(super) fn name(text: &str) -> Result<Name, OpError> {
    Name::new(text.as_bytes()).map_err(|e| invalid(&e))
}

fn invalid(error: &PathError) -> OpError {
    OpError::path(b".trash", error)
}

pub(super) fn failed(source: io::Error) -> OpError {
    OpError::Fs { source, paths: vec![".trash".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let (source_volume, target) = (Some("v".into()), Some("b".into()));
        Record { source_volume, target, ..Record::new(Kind::Clone, "a") }
    }

    #[test]
    fn a_record_is_found_again_until_it_is_removed_and_the_trash_goes_with_the_last() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let record = record();
        trash.write(one, &record).unwrap();
        trash.write(two, &record).unwrap();
        trash.write_ended(one, &Ended::now(&State::Done)).unwrap();
        trash.remove(one).unwrap();
        let again = Trash::existing(Dir::open_root(place.path()).unwrap()).unwrap().unwrap();
        assert_eq!(again.unfinished().unwrap(), vec![Left { id: two, record: record.clone(), ended: None }]);
        let ended = Ended::now(&State::Failed("no".into()));
        again.write_ended(two, &ended).unwrap();
        assert_eq!(again.unfinished().unwrap(), vec![Left { id: two, record, ended: Some(ended) }]);
        trash.remove(two).unwrap();
        assert!(!place.path().join(".trash").exists());
        assert!(Trash::existing(Dir::open_root(place.path()).unwrap()).unwrap().is_none());
    }

    #[test]
    fn tasks_that_begin_and_end_at_once_do_not_take_the_trash_from_each_other() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let holder = Dir::open_root(place.path()).unwrap();
                    for _ in 0..100 {
                        let id = Uuid::new_v4();
                        Trash::begin(&holder, id, &record()).unwrap().remove(id).unwrap();
                    }
                });
            }
        });
        assert!(!place.path().join(".trash").exists());
    }

    #[test]
    fn of_two_tasks_that_make_the_same_clone_the_second_learns_of_the_first_until_it_is_over() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let vfid = format!("{:032x}", 7);
        let (target, record) = (vfid.parse().unwrap(), Record { target: Some(vfid), ..record() });
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let subject = record.subject("v");
        trash.write(one, &record).unwrap();
        trash.write(two, &record).unwrap();
        assert_eq!(trash.claim(&target, one, &subject).unwrap(), None);
        assert_eq!(trash.claim(&target, one, &subject).unwrap(), None, "it may ask again");
        assert_eq!(trash.claim(&target, two, &subject).unwrap(), Some(one));
        let other_source = Subject { vfid: "c".into(), ..subject.clone() };
        assert!(trash.claim(&target, two, &other_source).is_err());
        trash.remove(one).unwrap();
        assert_eq!(trash.claim(&target, two, &subject).unwrap(), None);
        trash.remove(two).unwrap();
        assert!(!place.path().join(".trash").exists(), "claims go with their records");
    }

    #[test]
    fn a_torn_note_of_an_end_counts_as_none() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let id = Uuid::new_v4();
        trash.write(id, &record()).unwrap();
        std::fs::write(place.path().join(format!(".trash/{id}.ended")), "{\"at\":1,").unwrap();
        assert_eq!(trash.unfinished().unwrap()[0].ended, None);
    }

    #[test]
    fn what_the_dead_left_half_written_goes_and_what_the_living_write_stays() {
        let place = tempfile::tempdir().unwrap();
        let holder = || Dir::open_root(place.path()).unwrap();
        let trash = Trash::open(holder()).unwrap();
        let (task, dead, living) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let names = [
            format!("{task}.{dead}.new"),
            format!("{task}.{dead}.claim"),
            format!("{task}.ended"),
            format!("{task}.{living}.new"),
        ];
        names.iter().for_each(|name| std::fs::write(place.path().join(".trash").join(name), "{").unwrap());
        assert_eq!(trash.owners().unwrap(), BTreeSet::from([dead, living]));
        trash.clean(&BTreeSet::from([dead])).unwrap();
        let left: Vec<_> = std::fs::read_dir(place.path().join(".trash")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        trash.clean(&BTreeSet::from([living])).unwrap();
        assert!(!place.path().join(".trash").exists());
        let (trash, record) = (Trash::open(holder()).unwrap(), record());
        trash.write(task, &record).unwrap();
        trash.write_ended(task, &Ended::now(&State::Done)).unwrap();
        trash.clean(&BTreeSet::from([record.owner])).unwrap();
        assert!(trash.unfinished().unwrap()[0].ended.is_some(), "a note stays with its record");
    }

    #[test]
    fn records_of_earlier_releases_are_read_as_nobodys() {
        let old: Record = serde_json::from_str(r#"{"kind":"delete","vfid":"a"}"#).unwrap();
        assert_eq!(old, Record { begun: 0, ..Record::new(Kind::Delete, "a") });
    }

    #[test]
    fn what_is_no_record_of_ours_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let id = Uuid::new_v4();
        for (name, text) in [("notes.json", "{}"), (&*format!("{id}.json"), "rubbish"), ("x", "")] {
            std::fs::write(place.path().join(".trash").join(name), text).unwrap();
        }
        assert_eq!(trash.unfinished().unwrap(), vec![]);
        assert!(place.path().join(".trash/notes.json").exists());
    }

    #[test]
    fn a_link_in_place_of_the_trash_is_not_followed() {
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join(".trash")).unwrap();
        assert!(Trash::open(Dir::open_root(place.path()).unwrap()).is_err());
    }

    #[test]
    fn fuzzed() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let id = Uuid::new_v4();
        let words: [&[u8]; 7] = [b"null", b"{}", b"\"kind\":\"clone\"", b"-1", b"1e999", b"\0", b"\"../..\""];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "journal", &words, |text| {
            for suffix in ["json", "ended"] {
                std::fs::write(place.path().join(format!(".trash/{id}.{suffix}")), text).unwrap();
            }
            // Whatever stands there, at most that one task is left over, and reading it leaves the file.
            assert!(trash.unfinished().unwrap().len() <= 1);
            let _ = trash.read_ended(id);
            if let Ok(record) = trash.read(id) {
                let _ = record.subject("local");
            }
        });
    }
}
