//! What managers are still to be told, in the order in which it happened.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::tasks::journal::{Ended, millis};
use crate::tasks::{Filed, Subject, Task, told};

/// How long after a task's end managers are told: some set a folder's state only after they have our reply to the
/// request, and would overwrite what an earlier event made of it.
const DELAY: Duration = Duration::from_millis(1500);

/// How long after it was begun a task is announced. Not at once, so that what a request costs does not include waking
/// the publisher and the server, and so that many are announced together.
const ANNOUNCE: Duration = Duration::from_millis(250);

/// Begun tasks that may wait to be announced; what is beyond is not.
const MOST_BEGUN: usize = 10_000;

/// A task that ended.
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// What it was about.
    pub subject: Subject,
    /// How it ended.
    pub ended: Ended,
    /// Its record, which keeps this on disk.
    pub filed: Option<Filed>,
}

/// The tasks whose end is to be told.
pub struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
    most: usize,
    in_flight: AtomicU64,
    published: AtomicU64,
    dropped: AtomicU64,
    connected: AtomicBool,
}

#[derive(Default)]
struct Queue {
    ended: VecDeque<Entry>,
    begun: Vec<(Instant, Arc<Task>)>,
}

/// What is to be known of an outbox from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Ends that are not told yet.
    pub pending: u64,
    /// How long the oldest of them has been waiting.
    pub oldest: Duration,
    /// Ends that were told by this process.
    pub published: u64,
    /// Ends that were given up because too many waited.
    pub dropped: u64,
    /// Whether the server could be reached when it was last needed.
    pub connected: bool,
}

impl Outbox {
    /// Lets `most` ends wait.
    pub fn new(most: usize) -> Self {
        Outbox {
            queue: Mutex::default(),
            changed: Condvar::new(),
            most,
            in_flight: AtomicU64::new(0),
            published: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            connected: AtomicBool::new(true),
        }
    }

    /// Has the end of a task told. When too many wait it is given up: only the log knows, then. May block.
    pub fn push(&self, entry: Entry) {
        let mut queue = self.lock();
        if queue.ended.len() >= self.most {
            drop(queue);
            self.dropped.fetch_add(1, Relaxed);
            tracing::error!(
                task = %entry.id, vfid = entry.subject.vfid, kind = ?entry.subject.kind, outcome = ?entry.ended.outcome,
                "managers will not be told how this ended: more than events.outbox-size ends are waiting"
            );
            return told(entry.filed, entry.subject.kind, &entry.ended);
        }
        let place = queue.ended.partition_point(|other| other.ended.at <= entry.ended.at);
        queue.ended.insert(place, entry);
        drop(queue);
        if place == 0 {
            self.changed.notify_one();
        }
    }

    /// Has the beginning of a task, and its progress, told.
    pub fn begun(&self, task: &Arc<Task>) {
        let mut queue = self.lock();
        if queue.begun.len() < MOST_BEGUN {
            queue.begun.push((Instant::now(), Arc::clone(task)));
            let first = queue.begun.len() == 1;
            drop(queue);
            if first {
                self.changed.notify_one();
            }
        }
    }

    /// Waits until something is due, or for this long, or until there is something else to wait for.
    pub(super) fn wait(&self, longest: Duration) {
        let queue = self.lock();
        let told = queue.ended.front().map(|entry| until_due(entry, SystemTime::now()));
        let announced = queue.begun.first().map(|(since, _)| ANNOUNCE.saturating_sub(since.elapsed()));
        let time = told.into_iter().chain(announced).fold(longest, Duration::min);
        if !time.is_zero() {
            drop(self.changed.wait_timeout(queue, time));
        }
    }

    /// Takes the tasks that were begun and are to be announced: always before their ends are due.
    pub(super) fn take_begun(&self) -> Vec<Arc<Task>> {
        let begun = &mut self.lock().begun;
        let due = begun.partition_point(|(since, _)| since.elapsed() >= ANNOUNCE);
        begun.drain(..due).map(|(_, task)| task).collect()
    }

    /// Takes up to `most` ends that are due, the oldest first.
    pub(super) fn take_due(&self, most: usize) -> Vec<Entry> {
        let now = SystemTime::now();
        let mut queue = self.lock();
        let due = queue.ended.iter().take(most).take_while(|entry| until_due(entry, now).is_zero()).count();
        let taken: Vec<Entry> = queue.ended.drain(..due).collect();
        self.in_flight.store(taken.len() as u64, Relaxed);
        taken
    }

    /// Puts ends back that could not be told.
    pub(super) fn put_back(&self, entries: Vec<Entry>) {
        let mut queue = self.lock();
        for entry in entries.into_iter().rev() {
            queue.ended.push_front(entry);
        }
        self.in_flight.store(0, Relaxed);
    }

    /// Notes that as many ends were told as were taken last.
    pub(super) fn note_published(&self) {
        self.published.fetch_add(self.in_flight.swap(0, Relaxed), Relaxed);
    }

    /// Notes whether the server could be reached. Whether that is news.
    pub(super) fn note_connected(&self, connected: bool) -> bool {
        self.connected.swap(connected, Relaxed) != connected
    }

    /// The figures at the moment.
    pub fn figures(&self) -> Figures {
        let queue = self.lock();
        let oldest = queue.ended.front().map_or(0, |entry| entry.ended.at);
        let age = millis(SystemTime::now()).saturating_sub(oldest);
        Figures {
            pending: queue.ended.len() as u64 + self.in_flight.load(Relaxed),
            oldest: Duration::from_millis(if oldest == 0 { 0 } else { age }),
            published: self.published.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            connected: self.connected.load(Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long until an end may be told. A clock that was set back delays nothing for longer than usual.
fn until_due(entry: &Entry, now: SystemTime) -> Duration {
    let (at, now) = (entry.ended.at, millis(now));
    let waited = Duration::from_millis(now.saturating_sub(at));
    if at > now.saturating_add(1000) { Duration::ZERO } else { DELAY.saturating_sub(waited) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::journal::Outcome;
    use crate::tasks::{Kind, Tasks};

    fn entry(name: &str, at: u64) -> Entry {
        let subject = Subject { kind: Kind::Delete, volume: "v".into(), vfid: name.into(), target: None };
        let ended = Ended { at, outcome: Outcome::Done, told: false };
        Entry { id: Uuid::new_v4(), subject, ended, filed: None }
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.subject.vfid.as_str()).collect()
    }

    #[test]
    fn ends_are_told_in_the_order_in_which_they_happened_and_not_too_soon() {
        let outbox = Outbox::new(100);
        let now = millis(SystemTime::now());
        for (name, ago) in [("b", 5000), ("c", 4000), ("a", 6000), ("fresh", 0)] {
            outbox.push(entry(name, now - ago));
        }
        let due = outbox.take_due(2);
        assert_eq!(names(&due), ["a", "b"]);
        assert_eq!(outbox.figures().pending, 4);
        outbox.put_back(due);
        let due = outbox.take_due(10);
        assert_eq!(names(&due), ["a", "b", "c"], "the fresh one has to wait");
        outbox.note_published();
        let figures = outbox.figures();
        assert_eq!((figures.pending, figures.published, figures.dropped), (1, 3, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_to_the_log_alone() {
        let outbox = Outbox::new(1);
        outbox.push(entry("a", 1));
        outbox.push(entry("b", 2));
        assert_eq!(names(&outbox.take_due(10)), ["a"]);
        assert_eq!(outbox.figures().dropped, 1);
    }

    #[test]
    fn a_task_is_announced_a_moment_after_it_was_begun_and_waited_for_no_longer() {
        let outbox = Outbox::new(10);
        let tasks = Tasks::new(1, 10, Duration::ZERO);
        let task = tasks.resume(Uuid::new_v4(), entry("a", 1).subject);
        outbox.begun(&task);
        assert!(outbox.take_begun().is_empty(), "the request has not been answered yet");
        let begin = Instant::now();
        while outbox.take_begun().is_empty() {
            outbox.wait(Duration::from_secs(60));
            assert!(begin.elapsed() < Duration::from_secs(5));
        }
        assert!(begin.elapsed() < DELAY, "its end may be told by then");
    }

    #[test]
    fn waiting_ends_when_something_is_due() {
        let outbox = Outbox::new(10);
        outbox.push(entry("a", 1));
        let begin = Instant::now();
        outbox.wait(Duration::from_secs(60));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
