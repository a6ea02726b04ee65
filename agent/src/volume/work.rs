//! File work of a volume: on the blocking pool, a bounded number of pieces at once, given up when the volume hangs.
//!
//! The bounds are each volume's own. A volume that hangs keeps the threads that were at work on it when it began to;
//! with bounds for all volumes together it would soon have them all.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use config::{Agent, Limits};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::Volume;
use super::pulse::{Answer, Probe, Pulse};
use crate::error::OpError;
use crate::fs::RelPath;
use crate::jobs::Places;

/// How long something may take before it is asked whether the volume still answers.
const UNSUSPECTED: Duration = Duration::from_secs(1);

/// What a volume may take up.
pub(super) struct Bounds {
    /// Pieces of work that run or wait.
    jobs: Places,
    /// Pieces of work that run.
    threads: Arc<Semaphore>,
    /// Archives that are being made.
    archives: Arc<Semaphore>,
    pub(super) pulse: Arc<Pulse>,
}

impl Bounds {
    /// As the configuration sets them for the volume.
    pub(super) fn new(name: &str, path: &Path, agent: &Agent, limits: &Limits) -> Self {
        Bounds {
            jobs: Places::new(limits.blocking_jobs),
            threads: Arc::new(Semaphore::new(agent.blocking_threads)),
            archives: Arc::new(Semaphore::new(limits.archives)),
            pulse: Pulse::new(name.to_owned(), path.to_owned(), limits.volume_timeout),
        }
    }
}

impl Volume {
    /// Goes over to these limits, as far as they can change.
    pub(crate) fn reconfigure(&self, limits: &Limits) {
        self.bounds.jobs.resize(limits.blocking_jobs);
        self.bounds.pulse.set_patience(limits.volume_timeout);
    }

    /// Runs file work. It goes on if the caller goes away. Refused when too much is waiting, given up when the volume
    /// hangs: then the work may still happen, when the volume answers again.
    pub async fn run<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        F: FnOnce(&Arc<Volume>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<OpError> + Send + 'static,
    {
        let Ok(job) = Arc::clone(self.bounds.jobs.free()).try_acquire_owned() else {
            let what = "too many file operations are waiting";
            return Err(OpError::Busy { what, key: "limits.blocking-jobs" }.into());
        };
        let volume = Arc::clone(self);
        let work = async {
            let running = self.spawn(move || {
                let outcome = work(&volume);
                drop(job);
                outcome
            });
            running.await.await.unwrap_or(Err(OpError::Inside.into()))
        };
        self.unless_hanging(work).await?
    }

    /// Runs a short piece of file work, such as one read or write, as soon as the volume has a thread to spare.
    pub async fn spawn<T, F>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // Nobody closes the semaphore; if somebody did, there would be no bound.
        let thread = Arc::clone(&self.bounds.threads).acquire_owned().await.ok();
        spawn_blocking(move || {
            let outcome = work();
            drop(thread);
            outcome
        })
    }

    /// Waits for something that the volume has a part in, until the volume hangs.
    pub async fn unless_hanging<T>(self: &Arc<Self>, event: impl Future<Output = T>) -> Result<T, OpError> {
        let pulse = &self.bounds.pulse;
        if pulse.is_hanging() {
            return Err(self.hanging());
        }
        let mut event = pin!(event);
        loop {
            tokio::select! {
                biased;
                outcome = &mut event => return Ok(outcome),
                () = pulse.hangs() => return Err(self.hanging()),
                () = sleep(UNSUSPECTED) => pulse.doubt(&self.probe()),
            }
        }
    }

    /// Bounds the archives that are made at once of what lies on the volume.
    pub fn archives(&self) -> &Arc<Semaphore> {
        &self.bounds.archives
    }

    /// Whether the volume can be used, at most as old as a second.
    pub(crate) async fn answer(self: &Arc<Self>) -> Answer {
        let pulse = &self.bounds.pulse;
        let mut answer = pulse.ask(&self.probe()).await;
        if pulse.is_hanging() {
            answer.error = Some(self.hanging().to_string());
        }
        answer
    }

    fn hanging(&self) -> OpError {
        let source = io::Error::new(io::ErrorKind::TimedOut, self.bounds.pulse.sentence());
        OpError::VolumeUnavailable { volume: self.name.clone(), source }
    }

    fn probe(self: &Arc<Self>) -> Probe {
        let volume = Arc::clone(self);
        Arc::new(move || {
            let root = volume.root().map_err(|error| error.to_string())?;
            let answer =
                volume.backend.trees.probe(&root).and_then(|()| volume.mount.has_become_read_only(&root));
            match answer {
                Ok(false) => Ok(()),
                Ok(true) => {
                    Err("its file system has become read-only; what is there can still be read".into())
                }
                Err(error) => Err(OpError::fs(error, &RelPath::root()).to_string()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;
    use crate::fs::Dir;
    use crate::volume::trees::Trees;

    /// A file system whose servers do not answer before they are told to.
    struct Silent(Mutex<Receiver<()>>);

    impl Trees for Silent {
        fn probe(&self, _: &Dir) -> io::Result<()> {
            self.0.lock().unwrap().recv().map_err(io::Error::other)
        }
    }

    fn volume(limits: &Limits) -> (tempfile::TempDir, Arc<Volume>, Sender<()>) {
        let temp = tempfile::tempdir().unwrap();
        let mut volume = Volume::plain("remote", temp.path().to_owned());
        volume.bounds = Bounds::new("remote", temp.path(), &Agent::default(), limits);
        let (answer, silence) = channel();
        volume.backend.trees = Arc::new(Silent(Mutex::new(silence)));
        (temp, Arc::new(volume), answer)
    }

    fn is_unavailable(outcome: &Result<(), OpError>) -> bool {
        matches!(outcome, Err(OpError::VolumeUnavailable { volume, .. }) if volume == "remote")
    }

    #[tokio::test]
    async fn work_on_a_volume_that_hangs_is_given_up_and_new_work_refused_until_it_answers() {
        let limits = Limits { volume_timeout: Duration::from_millis(50), ..Limits::default() };
        let (_temp, volume, answer) = volume(&limits);
        let (go_on, stuck) = channel::<()>();
        let (done, was_done) = channel::<()>();
        let outcome: Result<(), OpError> = volume
            .run(move |_| {
                stuck.recv().unwrap();
                done.send(()).unwrap();
                Ok(())
            })
            .await;
        assert!(is_unavailable(&outcome), "{outcome:?}");

        let begin = Instant::now();
        let refused: Result<(), OpError> = volume.run(|_| Ok(())).await;
        assert!(is_unavailable(&refused) && begin.elapsed() < Duration::from_millis(40), "{refused:?}");
        let error = volume.answer().await.error.unwrap();
        assert!(error.contains("\"remote\"") && error.contains("hangs"), "{error}");

        answer.send(()).unwrap();
        let answered = async {
            while volume.run(|_| Ok::<_, OpError>(())).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
        go_on.send(()).unwrap();
        was_done.recv_timeout(Duration::from_secs(10)).expect("what was begun is done all the same");
    }

    #[tokio::test]
    async fn slow_work_on_a_volume_that_answers_is_waited_for() {
        let limits = Limits { volume_timeout: Duration::from_millis(50), ..Limits::default() };
        let (_temp, volume, answer) = volume(&limits);
        for _ in 0..10 {
            answer.send(()).unwrap();
        }
        let slow = volume.run(|_| {
            std::thread::sleep(UNSUSPECTED * 2);
            Ok::<_, OpError>(7)
        });
        assert_eq!(slow.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn more_work_than_may_wait_is_told_to_come_back() {
        let limits = Limits { blocking_jobs: 1, ..Limits::default() };
        let (_temp, volume, _answer) = volume(&limits);
        let (go_on, stuck) = channel::<()>();
        let first = tokio::spawn({
            let volume = Arc::clone(&volume);
            async move { volume.run(move |_| stuck.recv().map_err(|_| OpError::Inside)).await }
        });
        while volume.bounds.jobs.free().available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(volume.run(|_| Ok(())).await, Err(OpError::Busy { .. })));
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        volume.run(|_| Ok::<_, OpError>(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_that_piece_of_work_only() {
        let (_temp, volume, _answer) = volume(&Limits::default());
        let outcome = volume.run(|_| -> Result<(), OpError> { panic!("on purpose") }).await;
        assert!(matches!(outcome, Err(OpError::Inside)));
    }
}
