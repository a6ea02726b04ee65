//! What a task needs to go on after a restart, kept beside the data it works on.
//!
//! Each volume and each quota scope has a directory `.trash`. A deleted vfolder is renamed into it under its
//! task's id, a clone is built there; `<id>.json` says what the task was about. Both lie in the same file
//! system and quota as the folders themselves, so a rename is all it takes, and any agent that serves the
//! volume can find them.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Kind, Subject};
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
    /// For a clone: the volume of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume: Option<String>,
    /// For a clone: the vfolder that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Record {
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
                outcome => return outcome.map(|()| trash),
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
        Name::new(format!("{}.json", id.hyphenated()).as_bytes()).map_err(|e| invalid(&e))
    }

    fn write(&self, id: Uuid, record: &Record) -> Result<(), OpError> {
        let text = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        let (draft, name) =
            (Name::new(format!("{}.new", id.hyphenated()).as_bytes()), Self::record_name(id)?);
        let draft = draft.map_err(|e| invalid(&e))?;
        let write = || {
            let mut file = self.dir.create_new(&draft, 0o600)?;
            file.write_all(&text)?;
            file.sync_all()?;
            self.dir.rename(&draft, &self.dir, &name, Replace::Yes)?;
            self.dir.sync()
        };
        write().map_err(|error| {
            drop(self.dir.unlink(&draft));
            failed(error)
        })
    }

    /// Removes a task's record, and the trash directory when it was the last.
    pub fn remove(&self, id: Uuid) -> Result<(), OpError> {
        match self.dir.unlink(&Self::record_name(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // Not empty means that other tasks are at work: then it stays.
        drop(self.holder.rmdir(&trash_name()?));
        Ok(())
    }

    /// The tasks that were begun and not ended, with what is known of them.
    pub fn unfinished(&self) -> Result<Vec<(Uuid, Record)>, OpError> {
        let mut found = Vec::new();
        for entry in self.dir.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = record_id(entry.name.as_bytes()) else { continue };
            match self.read(id) {
                Ok(record) => found.push((id, record)),
                Err(error) => {
                    tracing::warn!(task = %id, %error, "a task's record in the trash is unreadable")
                }
            }
        }
        Ok(found)
    }

    fn read(&self, id: Uuid) -> Result<Record, OpError> {
        let (file, _) = self.dir.open_file_nofollow(&Self::record_name(id)?).map_err(failed)?;
        let mut text = Vec::new();
        file.take(LONGEST_RECORD).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|e| failed(e.into()))
    }
}

fn record_id(name: &[u8]) -> Option<Uuid> {
    std::str::from_utf8(name).ok()?.strip_suffix(".json")?.parse().ok()
}

fn trash_name() -> Result<Name, OpError> {
    Name::new(b".trash").map_err(|e| invalid(&e))
}

fn invalid(error: &PathError) -> OpError {
    OpError::path(b".trash", error)
}

fn failed(source: io::Error) -> OpError {
    OpError::Fs { source, paths: vec![".trash".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            kind: Kind::Clone,
            vfid: "a".into(),
            source_volume: Some("v".into()),
            target: Some("b".into()),
        }
    }

    #[test]
    fn a_record_is_found_again_until_it_is_removed_and_the_trash_goes_with_the_last() {
        let place = tempfile::tempdir().unwrap();
        let trash = Trash::open(Dir::open_root(place.path()).unwrap()).unwrap();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        trash.write(one, &record()).unwrap();
        trash.write(two, &record()).unwrap();
        trash.remove(one).unwrap();
        let again = Trash::existing(Dir::open_root(place.path()).unwrap()).unwrap().unwrap();
        assert_eq!(again.unfinished().unwrap(), vec![(two, record())]);
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
}
