//! Which processes live, as all agents of a volume can see it.
//!
//! A record in the trash names the process whose task it is. That process keeps a mark, the file `<name>.agent` in
//! the trash of the volume's root, locked (flock(2)) as long as it lives and has records there; the kernel, or the
//! server of a network file system, lets the lock go when it dies. Whoever can lock the mark of another has its tasks
//! from then on, and nobody else has. So one lock stands for any number of tasks.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use uuid::Uuid;

use super::journal::{Trash, failed, name};
use super::lock;
use crate::error::OpError;
use crate::volume::Volume;

const SUFFIX: &str = ".agent";

/// How often a mark is looked up again when it changed between finding and locking it.
const TRIES: usize = 100;

/// The marks that this process holds: its own and those of the dead whose tasks it has.
pub struct Marks {
    own: Uuid,
    volumes: Mutex<HashMap<String, Arc<Mutex<Held>>>>,
    /// Whether the file systems have locks. Without them nobody can be known to be dead.
    lockable: AtomicBool,
}

type Held = HashMap<Uuid, Mark>;

struct Mark {
    /// Open for its lock.
    _file: File,
    /// Records that name it.
    records: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { own: Uuid::new_v4(), volumes: Mutex::default(), lockable: AtomicBool::new(true) }
    }
}

impl Marks {
    /// The name of this process.
    pub fn own(&self) -> Uuid {
        self.own
    }

    /// Makes this process's mark, if it is not there, for one more record.
    pub fn hold(&self, volume: &Volume) -> Result<Uuid, OpError> {
        let table = self.table(volume);
        let mut held = lock(&table);
        if !self.count(&mut held, self.own) {
            let file = self.lock_mark(volume, self.own)?.ok_or(OpError::Inside)?;
            held.insert(self.own, Mark { _file: file, records: 1 });
        }
        Ok(self.own)
    }

    /// Takes the place of another process if it is dead. Then its records are looked for and [`Marks::add`]ed, and at
    /// last [`Marks::release`] is called once.
    pub fn adopt(&self, volume: &Volume, owner: Uuid) -> Result<bool, OpError> {
        let table = self.table(volume);
        let mut held = lock(&table);
        if held.contains_key(&owner) || owner == self.own {
            return Ok(false);
        }
        let Some(file) = self.lock_mark(volume, owner)? else { return Ok(false) };
        held.insert(owner, Mark { _file: file, records: 1 });
        Ok(true)
    }

    /// Counts one more record of a mark that is held.
    pub fn add(&self, volume: &Volume, owner: Uuid) {
        self.count(&mut lock(&self.table(volume)), owner);
    }

    /// Counts one record less, and removes the mark with the last.
    pub fn release(&self, volume: &Volume, owner: Uuid) {
        let table = self.table(volume);
        let mut held = lock(&table);
        let Some(mark) = held.get_mut(&owner) else { return };
        mark.records = mark.records.saturating_sub(1);
        if mark.records > 0 {
            return;
        }
        if let Err(error) = remove(volume, owner) {
            tracing::warn!(volume = volume.name, %error, "the mark of an agent could not be removed");
        }
        held.remove(&owner);
    }

    /// The other processes that have marks on the volume, dead or alive; none where nothing can tell which: neither
    /// locks nor `leases`.
    pub fn others(&self, volume: &Volume, leases: bool) -> Result<Vec<Uuid>, OpError> {
        let told = leases || self.lockable.load(Ordering::Relaxed);
        let Some(trash) = Trash::existing(volume.root()?)?.filter(|_| told) else { return Ok(vec![]) };
        let table = self.table(volume);
        let mut found = Vec::new();
        for entry in trash.dir().entries().map_err(failed)? {
            let name = entry.map_err(failed)?.name;
            found.extend(owner_of(name.as_bytes()).filter(|owner| !lock(&table).contains_key(owner)));
        }
        Ok(found)
    }

    fn count(&self, held: &mut Held, owner: Uuid) -> bool {
        held.get_mut(&owner).map(|mark| mark.records += 1).is_some()
    }

    fn table(&self, volume: &Volume) -> Arc<Mutex<Held>> {
        Arc::clone(lock(&self.volumes).entry(volume.name.clone()).or_default())
    }

    /// Locks a mark, making it if it is missing; nothing if another process has it.
    fn lock_mark(&self, volume: &Volume, owner: Uuid) -> Result<Option<File>, OpError> {
        let name = mark_name(owner)?;
        for _ in 0..TRIES {
            let trash = Trash::open(volume.root()?)?;
            let opened = match trash.dir().open_existing_rw(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => trash.dir().create_new(&name, 0o600),
                opened => opened,
            };
            let file = match opened {
                // Another process made or removed it, or the directory, in between.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
                {
                    continue;
                }
                opened => opened.map_err(|error| {
                    trash.remove_if_empty();
                    failed(error)
                })?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                    self.note_lockless(volume, error);
                }
                locked => locked.map_err(|error| failed(error.into()))?,
            }
            use std::os::unix::fs::MetadataExt as _;
            let opened = file.metadata().map_err(failed)?;
            if trash.dir().stat(&name).is_ok_and(|seen| (seen.dev, seen.ino) == (opened.dev(), opened.ino()))
            {
                return Ok(Some(file));
            }
        }
        Err(OpError::Inside)
    }

    fn note_lockless(&self, volume: &Volume, error: Errno) {
        if self.lockable.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                volume = volume.name, %error,
                "the file system has no locks: another agent's death on this volume will not be noticed before a restart"
            );
        }
    }
}

fn remove(volume: &Volume, owner: Uuid) -> Result<(), OpError> {
    let Some(trash) = Trash::existing(volume.root()?)? else { return Ok(()) };
    match trash.dir().unlink(&mark_name(owner)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => trash.remove_if_empty(),
    }
    Ok(())
}

fn mark_name(owner: Uuid) -> Result<crate::fs::Name, OpError> {
    name(&format!("{}{SUFFIX}", owner.hyphenated()))
}

fn owner_of(name: &[u8]) -> Option<Uuid> {
    std::str::from_utf8(name).ok()?.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(place: &tempfile::TempDir) -> Volume {
        Volume::plain("local", place.path().to_owned())
    }

    #[test]
    fn a_living_process_keeps_its_mark_and_a_dead_ones_goes_to_one_survivor_only() {
        let place = tempfile::tempdir().unwrap();
        let volume = volume(&place);
        let (dead, one, two) = (Marks::default(), Marks::default(), Marks::default());
        let owner = dead.hold(&volume).unwrap();
        assert_eq!(one.others(&volume, false).unwrap(), [owner]);
        assert!(!one.adopt(&volume, owner).unwrap(), "it lives");
        drop(dead);
        assert!(one.adopt(&volume, owner).unwrap());
        assert!(!two.adopt(&volume, owner).unwrap(), "somebody has it already");
        one.release(&volume, owner);
        assert!(one.others(&volume, false).unwrap().is_empty());
        assert!(!place.path().join(".trash").exists(), "nothing stays behind");
    }

    #[test]
    fn a_mark_stays_until_the_last_record_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let (volume, marks) = (volume(&place), Marks::default());
        let owner = marks.hold(&volume).unwrap();
        marks.hold(&volume).unwrap();
        marks.release(&volume, owner);
        assert!(place.path().join(format!(".trash/{owner}.agent")).exists());
        marks.release(&volume, owner);
        assert!(!place.path().join(".trash").exists());
        marks.hold(&volume).unwrap();
        assert!(place.path().join(format!(".trash/{owner}.agent")).exists(), "it is made again");
    }

    #[test]
    fn a_missing_mark_is_that_of_a_dead_process() {
        let place = tempfile::tempdir().unwrap();
        let (volume, marks) = (volume(&place), Marks::default());
        assert!(marks.adopt(&volume, Uuid::new_v4()).unwrap());
        assert!(!marks.adopt(&volume, marks.own()).unwrap(), "nobody adopts himself");
    }

    #[test]
    fn marks_that_come_and_go_at_once_do_not_disturb_each_other() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (volume, marks) = (volume(&place), Marks::default());
                    for _ in 0..100 {
                        let owner = marks.hold(&volume).unwrap();
                        marks.release(&volume, owner);
                    }
                });
            }
        });
        assert!(!place.path().join(".trash").exists());
    }
}
