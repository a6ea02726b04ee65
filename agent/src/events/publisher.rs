//! The thread that tells managers, in order, what has ended, and watchers how far running tasks are.
//!
//! It is a thread of its own because a server that hangs must hold up nothing else, and because its work is a plain
//! sequence: wait, connect, publish, forget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::failure::ServerError;
use super::link::Link;
use super::message::{TaskEvent, task_begun, task_progress};
use super::outbox::{Entry, Outbox};
use super::server::Server;
use crate::app::App;
use crate::tasks::{Task, told};
use crate::tree::Progress;

/// Ends that are published at once.
const BATCH: usize = 64;
/// How often the progress of running tasks is looked at, and how many of them may have news each time.
const PROGRESS: Duration = Duration::from_secs(2);
const NEWS: usize = 100;
/// Tasks beyond this number are not watched.
const MOST_WATCHED: usize = 20_000;
/// After a failure the server is tried again after this time, which doubles with each failure up to the other.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Begins to publish if the configuration says where to.
pub fn spawn(app: &Arc<App>) -> std::io::Result<()> {
    let Some(outbox) = &app.outbox else { return Ok(()) };
    let publisher = Publisher {
        outbox: Arc::clone(outbox),
        server: Server::new(&app.config()),
        link: None,
        watched: Vec::new(),
        looked: Instant::now(),
        failures: 0,
        runtime: Handle::current(),
    };
    std::thread::Builder::new().name("events".into()).spawn(move || publisher.run()).map(drop)
}

struct Publisher {
    outbox: Arc<Outbox>,
    server: Server,
    link: Option<Link>,
    /// Tasks that have not ended, and what was last said of them.
    watched: Vec<Watched>,
    looked: Instant,
    failures: u32,
    /// Where records are removed: on a volume that hangs, that hangs too.
    runtime: Handle,
}

struct Watched {
    task: Arc<Task>,
    said: Option<Progress>,
}

/// Removes the records of what was told.
async fn forget(ends: Vec<Entry>) {
    for Entry { filed, subject, ended, .. } in ends {
        let Some(volume) = filed.as_ref().map(|filed| Arc::clone(filed.at().volume())) else { continue };
        let forgetting = volume.spawn(move || told(filed, subject.kind, &ended));
        if forgetting.await.await.is_err() {
            tracing::error!("forgetting a task that was told panicked");
        }
    }
}

impl Publisher {
    fn run(mut self) {
        loop {
            self.outbox.wait(PROGRESS);
            let begun = self.outbox.take_begun().into_iter();
            self.watched.extend(begun.map(|task| Watched { task, said: None }));
            self.watched.truncate(MOST_WATCHED);
            let news = self.news();
            let ends = self.outbox.take_due(BATCH);
            if ends.is_empty() && news.is_empty() {
                continue;
            }
            match self.send(&news, &ends) {
                Ok(()) => self.succeeded(ends),
                Err(error) => self.failed(ends, &error),
            }
        }
    }

    /// What is to be said of tasks whose end has not been told: that they were begun, at once, and how far they are, now
    /// and then.
    fn news(&mut self) -> Vec<TaskEvent> {
        let look = self.looked.elapsed() >= PROGRESS;
        if look {
            self.looked = Instant::now();
            self.watched.retain(|watched| watched.said.is_none() || !watched.task.state().is_final());
            // Those that had no turn get one the next time.
            let turn = NEWS.min(self.watched.len());
            self.watched.rotate_left(turn);
        }
        let (mut begun, mut progressed) = (Vec::new(), Vec::new());
        for Watched { task, said } in self.watched.iter_mut().rev() {
            let progress = task.control.progress();
            match said {
                None => begun.push(task_begun(task.id)),
                Some(said) if look && *said != progress && progressed.len() < NEWS => {
                    progressed.push(task_progress(task.id, progress));
                }
                Some(_) => continue,
            }
            *said = Some(progress);
        }
        begun.extend(progressed);
        begun
    }

    fn send(&mut self, news: &[TaskEvent], ends: &[Entry]) -> Result<(), ServerError> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.server.connect()?,
        };
        link.announce(news)?;
        link.publish(ends)?;
        self.link = Some(link);
        Ok(())
    }

    fn succeeded(&mut self, ends: Vec<Entry>) {
        self.failures = 0;
        if self.outbox.note_connected(true) {
            tracing::info!(server = ?self.link, "events are published again");
        }
        self.outbox.note_published();
        self.runtime.spawn(forget(ends));
    }

    fn failed(&mut self, ends: Vec<Entry>, error: &ServerError) {
        self.outbox.put_back(ends);
        self.failures = self.failures.saturating_add(1);
        // An idle connection may have been closed long ago: that alone is no news.
        if self.failures == 1 {
            return;
        }
        if self.outbox.note_connected(false) {
            let pending = self.outbox.figures().pending;
            tracing::warn!(%error, pending, "events cannot be published; they are kept until they can");
        }
        let doubled = PAUSE.saturating_mul(1 << (self.failures - 2).min(10));
        std::thread::sleep(doubled.min(LONGEST_PAUSE));
    }
}
