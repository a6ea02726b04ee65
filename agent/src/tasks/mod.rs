//! Long work: purges, clones, deletions. Each task has an id, progress, a result, and can be cancelled.
//!
//! Tasks run on threads of the blocking pool, a bounded number at once for each volume, the rest waits in order. The list is
//! kept in memory; what must outlive the process is written beside the data by `journal`, and becomes tasks
//! with the same ids at the next start, or in another process that serves the volume.

mod ending;
mod filed;
pub mod journal;
mod marks;
pub mod takeover;
pub mod work;

pub use self::ending::{Ending, told};
pub use self::filed::{Filed, RecordAt};
pub use self::marks::Marks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::error::OpError;
use crate::tree::Control;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Purges a deleted vfolder.
    Delete,
    /// Copies a vfolder.
    Clone,
    /// Deletes files of a vfolder.
    DeleteFiles,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// At work.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error, in a sentence.
    Failed(String),
    /// Ended because somebody asked for it.
    Cancelled,
}

impl State {
    /// The word that the API uses.
    pub fn word(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed(_) => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        !matches!(self, State::Queued | State::Running)
    }
}

/// What a new task is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What is done.
    pub kind: Kind,
    /// The volume that is changed.
    pub volume: String,
    /// The vfolder concerned, as the manager wrote it.
    pub vfid: String,
    /// The vfolder that a clone makes.
    pub target: Option<String>,
}

/// One task.
#[derive(Debug)]
pub struct Task {
    /// The id that managers know it by.
    pub id: Uuid,
    /// What it is about.
    pub subject: Subject,
    /// When it was asked for.
    pub created: SystemTime,
    /// Progress, and the way to stop it.
    pub control: Control,
    state: watch::Sender<State>,
    ended: Mutex<Option<Instant>>,
}

impl Task {
    /// The state at the moment.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for the end, at most this long; the state then.
    pub async fn wait(&self, limit: Option<Duration>) -> State {
        let mut states = self.state.subscribe();
        let ended = states.wait_for(State::is_final);
        match limit {
            None => drop(ended.await),
            Some(limit) => drop(tokio::time::timeout(limit, ended).await),
        }
        self.state()
    }

    fn age_since_end(&self) -> Option<Duration> {
        lock(&self.ended).map(|ended| ended.elapsed())
    }
}

/// Most ended tasks that are listed. A busy site ends thousands in a day; each costs some kilobytes, and a look at every
/// one when a new task comes.
const ENDED: usize = 2000;

/// All tasks: waiting, running, and ended not long ago.
pub struct Tasks {
    by_id: Mutex<BTreeMap<Uuid, Arc<Task>>>,
    /// For each volume its own: one that hangs keeps those it has.
    slots: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    running: usize,
    limits: Mutex<Limits>,
}

#[derive(Clone, Copy)]
struct Limits {
    most: usize,
    retention: Duration,
}

impl Tasks {
    /// Lets `running` tasks work on a volume at once and `most` be unfinished in all; ended ones stay listed for
    /// `retention`, if there are no more than 2,000 of them.
    pub fn new(running: usize, most: usize, retention: Duration) -> Arc<Self> {
        let (by_id, slots) = Default::default();
        Arc::new(Tasks {
            by_id,
            slots,
            running: running.max(1),
            limits: Mutex::new(Limits { most, retention }),
        })
    }

    /// Changes how many may be unfinished, and how long ended ones stay listed.
    pub fn reconfigure(&self, most: usize, retention: Duration) {
        *lock(&self.limits) = Limits { most, retention };
    }

    /// Registers a task that does not run yet. Refused when too many are unfinished.
    pub fn register(&self, id: Uuid, subject: Subject) -> Result<Arc<Task>, OpError> {
        let Limits { most, retention } = *lock(&self.limits);
        let mut tasks = lock(&self.by_id);
        tasks.retain(|_, task| task.age_since_end().is_none_or(|age| age < retention));
        forget_oldest(&mut tasks);
        if tasks.values().filter(|task| !task.state().is_final()).count() >= most {
            return Err(OpError::Busy { what: "too many tasks are waiting", key: "limits.tasks-queued" });
        }
        Ok(insert(&mut tasks, id, subject))
    }

    /// Registers a task that was accepted before, by this process or another, so that it can't be refused now.
    pub fn resume(&self, id: Uuid, subject: Subject) -> Arc<Task> {
        insert(&mut lock(&self.by_id), id, subject)
    }

    /// Takes back a task that was registered and will not run.
    pub fn forget(&self, task: &Task) {
        lock(&self.by_id).remove(&task.id);
    }

    /// Runs a registered task when its turn comes, and closes it with `ending`. It goes on whether or not anybody
    /// waits for it.
    pub fn start<F>(&self, task: &Arc<Task>, ending: Ending, work: F)
    where
        F: FnOnce(&Task) -> Result<(), OpError> + Send + 'static,
    {
        let (task, slots) = (Arc::clone(task), self.slots(&task.subject.volume));
        tokio::spawn(async move {
            let Ok(_slot) = slots.acquire_owned().await else { return };
            let worker = Arc::clone(&task);
            task.state.send_replace(State::Running);
            let outcome = tokio::task::spawn_blocking(move || {
                worker.control.check().map_err(OpError::from)?;
                work(&worker)
            })
            .await;
            let state = match outcome {
                Ok(Ok(())) => State::Done,
                Ok(Err(OpError::Cancelled)) => State::Cancelled,
                Ok(Err(error)) => State::Failed(error.with_paths()),
                Err(_) => State::Failed("failed inside the storage agent; see its log".into()),
            };
            log_end(&task, &state);
            let (closing, ended) = (Arc::clone(&task), state.clone());
            if tokio::task::spawn_blocking(move || ending.close(&closing, &ended)).await.is_err() {
                tracing::error!(task = %task.id, "closing a task panicked; it will be done again");
            }
            *lock(&task.ended) = Some(Instant::now());
            task.state.send_replace(state);
        });
    }

    fn slots(&self, volume: &str) -> Arc<Semaphore> {
        let mut slots = lock(&self.slots);
        let of_volume =
            slots.entry(volume.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.running)));
        Arc::clone(of_volume)
    }

    /// The task of this id.
    pub fn get(&self, id: Uuid) -> Option<Arc<Task>> {
        lock(&self.by_id).get(&id).cloned()
    }

    /// Every task that is known.
    pub fn all(&self) -> Vec<Arc<Task>> {
        lock(&self.by_id).values().cloned().collect()
    }

    /// The task that does, or lately did well, exactly this: managers repeat requests whose reply they lost.
    pub fn same(&self, subject: &Subject, within: Duration) -> Option<Arc<Task>> {
        let repeats = |task: &&Arc<Task>| {
            task.subject == *subject
                && match task.state() {
                    State::Queued | State::Running => true,
                    State::Done => task.age_since_end().is_some_and(|age| age < within),
                    State::Failed(_) | State::Cancelled => false,
                }
        };
        lock(&self.by_id).values().find(repeats).cloned()
    }
}

fn insert(tasks: &mut BTreeMap<Uuid, Arc<Task>>, id: Uuid, subject: Subject) -> Arc<Task> {
    let task = Arc::new(Task {
        id,
        subject,
        created: SystemTime::now(),
        control: Control::new(),
        state: watch::Sender::new(State::Queued),
        ended: Mutex::new(None),
    });
    tasks.insert(id, Arc::clone(&task));
    task
}

fn forget_oldest(tasks: &mut BTreeMap<Uuid, Arc<Task>>) {
    let ended = |task: &Arc<Task>| Some((task.age_since_end()?, task.id));
    let mut by_age: Vec<_> = tasks.values().filter_map(ended).collect();
    by_age.sort_unstable();
    for (_, id) in by_age.iter().skip(ENDED) {
        tasks.remove(id);
    }
}

fn log_end(task: &Task, state: &State) {
    let Subject { kind, volume, vfid, .. } = &task.subject;
    let progress = task.control.progress();
    match state {
        State::Failed(message) => {
            tracing::error!(task = %task.id, ?kind, volume, vfid, message, "task failed");
        }
        _ => tracing::info!(
            task = %task.id, ?kind, volume, vfid, entries = progress.entries_done, bytes = progress.bytes_done,
            "task {}", state.word()
        ),
    }
}

/// A mutex whose holder panicked still holds whole values here: nothing is changed in steps under a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_tasks_that_ended_the_newest_stay_and_all_that_have_not() {
        let tasks = Tasks::new(1, 10, Duration::from_secs(3600));
        let subject = || Subject { kind: Kind::Delete, volume: "v".into(), vfid: "a".into(), target: None };
        let waiting = tasks.register(Uuid::new_v4(), subject()).unwrap();
        let end = |task: &Task, age: u64| {
            *lock(&task.ended) = Instant::now().checked_sub(Duration::from_millis(age));
            task.state.send_replace(State::Done);
        };
        let oldest = tasks.register(Uuid::new_v4(), subject()).unwrap();
        end(&oldest, 10_000);
        for age in 0..ENDED as u64 {
            end(&tasks.register(Uuid::new_v4(), subject()).unwrap(), age);
        }
        tasks.register(Uuid::new_v4(), subject()).unwrap();
        assert_eq!(tasks.all().len(), ENDED + 2);
        assert!(tasks.get(oldest.id).is_none() && tasks.get(waiting.id).is_some());
    }
}
