//! Cleaning a staging directory: marks of finished sessions whose token has ended, and files that no one
//! can go on with.
//!
//! It happens when a session is created in the folder, and by a timer: for the folders that this process has seen
//! uploads in, and for those that a survey of the volume finds. The directory itself goes when it is empty.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::id::VfolderId;
use rustix::fs::{FlockOperation, flock};

use super::session::{STAGING, StagingName, staging};
use super::staging::absent;
use super::survey::survey;
use crate::error::OpError;
use crate::fs::{Dir, FileId, Name, RelPath};
use crate::metrics::{Metrics, UploadEnd};
use crate::token::unix_now;
use crate::volume::{Volume, Volumes};

/// How long a count of a folder's sessions is taken as still roughly right.
const COUNT_LIFETIME: Duration = Duration::from_secs(30);

/// How often the timer looks for folders that are due.
const TIMER: Duration = Duration::from_secs(60);

/// How often a volume is looked through for folders that this process does not know of.
const SURVEY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a sweep left.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Sessions that can go on.
    pub(super) sessions: usize,
    /// Sessions that were removed, because nobody has gone on with them for too long.
    pub(super) expired: u64,
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
            left.expired += u64::from(matches!(kind, StagingName::Data(_)));
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
    /// suggests that `limit` is reached. The session about to be created is included. Then how many were removed.
    pub(super) fn with_new(&self, area: &Dir, lifetime: i64, limit: usize) -> io::Result<(usize, u64)> {
        let id = area.stat_self()?.id();
        let known = self.table().get(&id).copied();
        let fresh = known.filter(|count| count.at.elapsed() < COUNT_LIFETIME && count.sessions < limit);
        let (count, expired) = match fresh {
            Some(count) => (count, 0),
            None => {
                let left = sweep(area, unix_now(), lifetime)?;
                (Count { sessions: left.sessions, at: Instant::now() }, left.expired)
            }
        };
        let count = Count { sessions: count.sessions + 1, ..count };
        let mut table = self.table();
        table.retain(|_, count| count.at.elapsed() < COUNT_LIFETIME);
        table.insert(id, count);
        Ok((count.sessions, expired))
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

    fn due_volumes(&self, now: i64) -> Vec<Arc<Volume>> {
        let table = self.table();
        let due = table.values().filter(|due| due.at <= now);
        let volumes: HashMap<_, _> = due.map(|due| (&due.volume.name, &due.volume)).collect();
        volumes.into_values().cloned().collect()
    }

    /// Sweeps the folders of a volume that are due; how many sessions were removed. Blocks.
    pub(super) fn sweep_due(&self, volume: &Arc<Volume>, now: i64, lifetime: i64) -> u64 {
        let is_due = |key: &(String, VfolderId), due: &mut Due| key.0 == volume.name && due.at <= now;
        let due: Vec<_> = self.table().extract_if(is_due).collect();
        let mut expired = 0;
        for ((name, id), _) in due {
            match sweep_folder(volume, &id, now, lifetime) {
                Ok(left) => {
                    expired += left.expired;
                    if let Some(next) = left.next {
                        self.add(volume, id, next.max(now + 1));
                    }
                }
                Err(error) => {
                    tracing::warn!(volume = name, vfolder = %id, %error, "{STAGING} could not be swept")
                }
            }
        }
        expired
    }

    fn table(&self) -> MutexGuard<'_, HashMap<(String, VfolderId), Due>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps, again and again, what is due in the folders that are known, and looks for those that are not.
pub(super) struct Sweeper {
    pub(super) schedule: Arc<Schedule>,
    pub(super) metrics: Arc<Metrics>,
    /// How long an untouched session is kept, in seconds.
    pub(super) lifetime: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl Sweeper {
    /// Never returns.
    pub(super) async fn run(self, volumes: &Volumes) {
        let sweeper = Arc::new(self);
        for volume in volumes.iter() {
            tokio::spawn(Arc::clone(&sweeper).survey_forever(Arc::clone(volume)));
        }
        loop {
            tokio::time::sleep(TIMER).await;
            for volume in sweeper.schedule.due_volumes(unix_now()) {
                tokio::spawn(Arc::clone(&sweeper).sweep_volume(volume));
            }
        }
    }

    async fn survey_forever(self: Arc<Self>, volume: Arc<Volume>) {
        loop {
            let (sweeper, at) = (Arc::clone(&self), Arc::clone(&volume));
            let surveying = volume.spawn(move || {
                survey(&at, |id| sweeper.schedule.add(&at, id, unix_now()))?;
                sweeper.sweep_due(&at);
                Ok::<_, OpError>(())
            });
            if let Ok(Err(error)) = surveying.await.await {
                tracing::warn!(volume = volume.name, %error, "abandoned uploads are looked for later");
            }
            tokio::time::sleep(SURVEY).await;
        }
    }

    /// A volume that hangs keeps its folders for later, and no other's from being swept.
    async fn sweep_volume(self: Arc<Self>, volume: Arc<Volume>) {
        let sweep = move |volume: &Arc<Volume>| -> Result<(), OpError> {
            self.sweep_due(volume);
            Ok(())
        };
        if let Err(error) = volume.run(sweep).await {
            tracing::debug!(volume = volume.name, %error, "{STAGING} is swept later");
        }
    }

    fn sweep_due(&self, volume: &Arc<Volume>) {
        let expired = self.schedule.sweep_due(volume, unix_now(), (self.lifetime)());
        if expired > 0 {
            tracing::info!(volume = volume.name, expired, "uploads that nobody went on with are removed");
            self.metrics.uploads_finished(UploadEnd::Expired, expired);
        }
    }
}

fn sweep_folder(volume: &Volume, id: &VfolderId, now: i64, lifetime: i64) -> io::Result<Left> {
    // A folder that is gone needs no sweeping; one on a volume that is gone is found by the next survey.
    let Ok(folder) = volume.vfolder(id) else { return Ok(Left::default()) };
    let Some(area) = absent(folder.open_dir_nofollow(&RelPath::from(staging()?)))? else {
        return Ok(Left::default());
    };
    let left = sweep(&area, now, lifetime)?;
    if left.next.is_none() {
        remove_empty(&folder)?;
    }
    Ok(left)
}
