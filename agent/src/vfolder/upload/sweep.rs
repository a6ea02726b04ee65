//! Cleaning a staging directory: marks of finished sessions whose token has ended, and files that no one
//! can go on with.
//!
//! It happens when a session is created in the folder, and by a timer for the folders that this process has
//! seen uploads in. The directory itself goes when it is empty.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::id::VfolderId;
use rustix::fs::{FlockOperation, flock};

use super::session::{STAGING, StagingName, staging};
use super::staging::absent;
use crate::error::OpError;
use crate::fs::{Dir, FileId, Name, RelPath};
use crate::token::unix_now;
use crate::volume::Volume;

/// How long a count of a folder's sessions is taken as still roughly right.
const COUNT_LIFETIME: Duration = Duration::from_secs(30);

/// How often the timer looks for folders that are due.
const TIMER: Duration = Duration::from_secs(60);

/// What a sweep left.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Sessions that can go on.
    pub(super) sessions: usize,
    /// When the next file can go, in seconds since 1970.
    pub(super) next: Option<i64>,
}

/// Removes what is due from a staging directory. `lifetime` is how long an untouched session is kept, in seconds.
pub(super) fn sweep(area: &Dir, now: i64, lifetime: i64) -> io::Result<Left> {
    let mut left = Left::default();
    for entry in area.entries()? {
        let name = entry?.name;
        let Some(kind) = StagingName::parse(&name) else { continue };
        let Some(stat) = absent(area.stat(&name))? else { continue };
        let due = match kind {
            StagingName::Done(_) => stat.mtime.secs,
            StagingName::Data(_) | StagingName::Unverified(_) | StagingName::Wanted(_) => {
                stat.mtime.secs.saturating_add(lifetime)
            }
        };
        if due <= now && removed(area, &name, kind) {
            continue;
        }
        left.sessions += usize::from(matches!(kind, StagingName::Data(_)));
        left.next = Some(left.next.map_or(due, |next| next.min(due)));
    }
    Ok(left)
}

/// Removes a file that is due, unless it is a session that someone is writing to. What someone else planted
/// under such a name must not keep the others from being swept.
fn removed(area: &Dir, name: &Name, kind: StagingName) -> bool {
    if matches!(kind, StagingName::Data(_)) {
        let busy = area
            .open_existing_rw(name)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        if busy {
            return false;
        }
    }
    match absent(area.unlink(name)) {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%name, %error, "a leftover in {STAGING} could not be removed");
            false
        }
    }
}

/// Removes the staging directory if nothing is left in it.
pub(super) fn remove_empty(folder: &Dir) -> io::Result<()> {
    match folder.rmdir(&staging()?) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// How many sessions a folder had when they were last counted, so that creating thousands of sessions does
/// not read the directory thousands of times.
#[derive(Default)]
pub(super) struct Counts {
    folders: Mutex<HashMap<FileId, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    sessions: usize,
    at: Instant,
}

impl Counts {
    /// The sessions of a staging directory, counting anew (and sweeping) when the last count is old or
    /// suggests that `limit` is reached. The session about to be created is included.
    pub(super) fn with_new(&self, area: &Dir, lifetime: i64, limit: usize) -> io::Result<usize> {
        let id = area.stat_self()?.id();
        let known = self.table().get(&id).copied();
        let fresh = known.filter(|count| count.at.elapsed() < COUNT_LIFETIME && count.sessions < limit);
        let count = match fresh {
            Some(count) => count,
            None => Count { sessions: sweep(area, unix_now(), lifetime)?.sessions, at: Instant::now() },
        };
        let count = Count { sessions: count.sessions + 1, ..count };
        let mut table = self.table();
        table.retain(|_, count| count.at.elapsed() < COUNT_LIFETIME);
        table.insert(id, count);
        Ok(count.sessions)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<FileId, Count>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders that this process has seen uploads in, and when each is due.
#[derive(Default)]
pub(super) struct Schedule {
    folders: Mutex<HashMap<(String, VfolderId), Due>>,
}

struct Due {
    volume: Arc<Volume>,
    at: i64,
}

impl Schedule {
    /// Sweeps this folder at that time (seconds since 1970), or earlier if it is due earlier.
    pub(super) fn add(&self, volume: &Arc<Volume>, id: VfolderId, at: i64) {
        let mut table = self.table();
        let due =
            table.entry((volume.name.clone(), id)).or_insert_with(|| Due { volume: Arc::clone(volume), at });
        due.at = due.at.min(at);
    }

    /// Sweeps what is due, again and again.
    pub(super) async fn run(self: Arc<Self>, lifetime: i64) {
        loop {
            tokio::time::sleep(TIMER).await;
            for volume in self.due_volumes(unix_now()) {
                tokio::spawn(Arc::clone(&self).sweep_volume(volume, lifetime));
            }
        }
    }

    fn due_volumes(&self, now: i64) -> Vec<Arc<Volume>> {
        let table = self.table();
        let due = table.values().filter(|due| due.at <= now);
        let volumes: HashMap<_, _> = due.map(|due| (&due.volume.name, &due.volume)).collect();
        volumes.into_values().cloned().collect()
    }

    /// A volume that hangs keeps its folders for later, and no other's from being swept.
    async fn sweep_volume(self: Arc<Self>, volume: Arc<Volume>, lifetime: i64) {
        let sweep = move |volume: &Arc<Volume>| -> Result<(), OpError> {
            self.sweep_due(volume, unix_now(), lifetime);
            Ok(())
        };
        if let Err(error) = volume.run(sweep).await {
            tracing::debug!(volume = volume.name, %error, "{STAGING} is swept later");
        }
    }

    pub(super) fn sweep_due(&self, volume: &Arc<Volume>, now: i64, lifetime: i64) {
        let is_due = |key: &(String, VfolderId), due: &mut Due| key.0 == volume.name && due.at <= now;
        let due: Vec<_> = self.table().extract_if(is_due).collect();
        for ((name, id), _) in due {
            match sweep_folder(volume, &id, now, lifetime) {
                Ok(Some(next)) => self.add(volume, id, next.max(now + 1)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(volume = name, vfolder = %id, %error, "{STAGING} could not be swept")
                }
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<(String, VfolderId), Due>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sweep_folder(volume: &Volume, id: &VfolderId, now: i64, lifetime: i64) -> io::Result<Option<i64>> {
    // A folder that is gone needs no sweeping; one on a volume that is gone is swept when an upload begins in it again.
    let Ok(folder) = volume.vfolder(id) else { return Ok(None) };
    let Some(area) = absent(folder.open_dir_nofollow(&RelPath::from(staging()?)))? else { return Ok(None) };
    let left = sweep(&area, now, lifetime)?;
    if left.next.is_none() {
        remove_empty(&folder)?;
    }
    Ok(left.next)
}
