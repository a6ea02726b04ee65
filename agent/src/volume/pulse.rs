//! Whether a volume answers.
//!
//! A call into a network file system that hangs cannot be interrupted, so whoever needs an answer must not be the one
//! who calls. A probe is made on a thread of its own, one at a time for each volume: a dead mount costs one thread,
//! however often somebody asks. A probe that does not come back in time means that the volume hangs, until it does come
//! back. One that is stuck in a mount which was replaced meanwhile never will, so a change of the mount table is
//! another reason to try.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long an answer holds, so that anybody may ask often.
const FRESH: Duration = Duration::from_secs(1);
/// How often the mount table is looked at while a volume hangs.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the volume answer; the error is a sentence.
pub(super) type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is known of a volume.
#[derive(Debug, Clone, Default)]
struct State {
    last: Option<Answer>,
    /// Since when it has not been answering.
    hangs: Option<Instant>,
}

/// What a probe found, and when.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) at: Timestamp,
    pub(crate) error: Option<String>,
    since: Instant,
}

/// The watch over one volume.
pub(super) struct Pulse {
    volume: String,
    path: PathBuf,
    /// In milliseconds.
    patience: AtomicU64,
    state: watch::Sender<State>,
    probing: AtomicBool,
}

impl Pulse {
    /// Nothing is known yet. The volume hangs when it does not answer within `patience`.
    pub(super) fn new(volume: String, path: PathBuf, patience: Duration) -> Arc<Self> {
        let state = watch::Sender::new(State::default());
        let patience = AtomicU64::new(milliseconds(patience));
        Arc::new(Pulse { volume, path, patience, state, probing: AtomicBool::new(false) })
    }

    /// Changes how long the volume may take to answer.
    pub(super) fn set_patience(&self, patience: Duration) {
        self.patience.store(milliseconds(patience), Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// The last answer if it is fresh, else a new one. Waits no longer than the volume may take.
    pub(super) async fn ask(self: &Arc<Self>, probe: &Probe) -> Answer {
        let mut states = self.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            if state.hangs.is_some() {
                return Answer { at: Timestamp::now(), error: Some(self.sentence()), since: Instant::now() };
            }
            if let Some(answer) = state.last.filter(Answer::is_fresh) {
                return answer;
            }
            self.begin(probe);
            // The sender is this pulse's own and cannot be gone.
            if states.changed().await.is_err() {
                return Answer::now(Err(self.sentence()));
            }
        }
    }

    /// Begins to find out whether the volume answers, unless that is known or under way.
    pub(super) fn doubt(self: &Arc<Self>, probe: &Probe) {
        if !self.state.borrow().last.as_ref().is_some_and(Answer::is_fresh) {
            self.begin(probe);
        }
    }

    /// Returns as soon as the volume is known to hang.
    pub(super) async fn hangs(&self) {
        // An error would mean that the sender is gone, which is this pulse's own.
        drop(self.state.subscribe().wait_for(|state| state.hangs.is_some()).await);
    }

    /// Whether the volume is known to hang.
    pub(super) fn is_hanging(&self) -> bool {
        self.state.borrow().hangs.is_some()
    }

    /// What is said of a volume that hangs.
    pub(super) fn sentence(&self) -> String {
        format!("it did not answer within {} s; its file system hangs", self.patience().as_secs_f64())
    }

    fn begin(self: &Arc<Self>, probe: &Probe) {
        if !self.probing.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).watch(Arc::clone(probe)));
        }
    }

    /// Sees one question through to its answer, however long that takes.
    async fn watch(self: Arc<Self>, probe: Probe) {
        let mut mounts = mounts_at(&self.path);
        let call = || {
            let probe = Arc::clone(&probe);
            spawn_blocking(move || probe())
        };
        let mut calls: FuturesUnordered<_> = std::iter::once(call()).collect();
        let mut patience = self.patience();
        let answer = loop {
            match timeout(patience, calls.next()).await {
                Ok(Some(Ok(answer))) => break answer,
                Ok(_) => break Err("the probe failed; see the log".to_owned()),
                Err(_) => self.set_hanging(),
            }
            patience = LOOK;
            let now = mounts_at(&self.path);
            if now != mounts {
                mounts = now;
                calls.push(call());
            }
        };
        self.set_answer(answer);
        self.probing.store(false, Ordering::Release);
    }

    fn set_hanging(&self) {
        let begins = self.state.send_if_modified(|state| match state.hangs {
            Some(_) => false,
            None => {
                state.hangs = Some(Instant::now());
                true
            }
        });
        if begins {
            let reason = self.sentence();
            tracing::error!(
                volume = self.volume,
                reason,
                "requests to the volume are refused until it answers"
            );
        }
    }

    fn set_answer(&self, answer: Result<(), String>) {
        if let Some(since) = self.state.borrow().hangs {
            let seconds = since.elapsed().as_secs();
            tracing::info!(
                volume = self.volume,
                seconds,
                error = answer.as_ref().err(),
                "the volume answers again"
            );
        }
        self.state.send_replace(State { last: Some(Answer::now(answer)), hangs: None });
    }
}

impl Answer {
    fn now(answer: Result<(), String>) -> Self {
        Answer { at: Timestamp::now(), error: answer.err(), since: Instant::now() }
    }

    fn is_fresh(&self) -> bool {
        self.since.elapsed() < FRESH
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The lines of the mount table that are about `path` or a directory above it (proc_pid_mountinfo(5)). Reading them
/// asks no file system.
fn mounts_at(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_above = |line: &&str| path.starts_with(mount_point(line));
    table.lines().filter(is_above).map(str::to_owned).collect()
}

/// The mount point of a line of the mount table.
pub(super) fn mount_point(line: &str) -> PathBuf {
    unescape(line.split(' ').nth(4).unwrap_or_default()).into()
}

/// Blanks and backslashes are written as three octal digits.
pub(super) fn unescape(point: &str) -> String {
    let characters = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    characters.iter().fold(point.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    fn pulse() -> Arc<Pulse> {
        Pulse::new("local".into(), "/".into(), Duration::from_millis(50))
    }

    fn counted(answer: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> (Probe, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let probe = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            answer()
        };
        (Arc::new(probe), calls)
    }

    #[tokio::test]
    async fn a_volume_that_hangs_costs_one_thread_and_is_back_when_it_answers() {
        let (release, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let (probe, calls) = counted(move || {
            wait.lock().unwrap().recv().unwrap();
            Ok(())
        });
        let pulse = pulse();
        for _ in 0..3 {
            let error = pulse.ask(&probe).await.error.unwrap();
            assert!(error.contains("did not answer"), "{error}");
            pulse.doubt(&probe);
        }
        pulse.hangs().await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        while pulse.is_hanging() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(pulse.ask(&probe).await.error, None, "the late answer is the answer");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn asking_often_probes_once() {
        let (probe, calls) = counted(|| Err("gone".into()));
        let pulse = pulse();
        for _ in 0..10 {
            assert_eq!(pulse.ask(&probe).await.error.as_deref(), Some("gone"));
            pulse.doubt(&probe);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn only_mounts_on_the_way_to_the_path_count() {
        let root = mounts_at(Path::new("/"));
        assert!(!root.is_empty());
        let deeper = mounts_at(Path::new("/proc/self"));
        assert!(deeper.len() > root.len(), "{deeper:?}");
        assert_eq!(mounts_at(Path::new("/no/such/place")), root);
        assert_eq!(unescape("/mnt/a\\040b"), "/mnt/a b");
    }
}
