//! A few threads that share the directories of one tree.
//!
//! A worker goes through its directory depth first by itself and hands a subdirectory over only while another
//! worker has nothing to do. So the queue, and with it the number of open directories, is never longer than there
//! are threads, and work on a small tree stays on one of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The work that waits for a thread.
#[derive(Debug)]
pub(super) struct Pool<J, E> {
    stopping: AtomicBool,
    state: Mutex<State<J, E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<J, E> {
    jobs: Vec<J>,
    /// Workers waiting for a job.
    idle: usize,
    /// Workers at a job.
    busy: usize,
    failure: Option<E>,
}

/// Does `first` and all that is handed over while doing it, on up to `threads` threads, this one included.
///
/// The first error is returned; jobs that wait are dropped, and those running are told by [`Pool::stopping`].
pub(super) fn run<J: Send, E: Send>(
    threads: usize,
    first: J,
    work: impl Fn(J, &Pool<J, E>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = State { jobs: vec![first], idle: 0, busy: 0, failure: None };
    let pool = Pool { stopping: AtomicBool::new(false), state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let worker =
                std::thread::Builder::new().name("tree".into()).spawn_scoped(scope, || pool.serve(&work));
            if let Err(error) = worker {
                tracing::warn!(%error, "no further thread for a tree operation; going on with fewer");
                break;
            }
        }
        pool.serve(&work);
    });
    match pool.state.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

// === impl Pool ===

impl<J, E> Pool<J, E> {
    /// Hands a job over if somebody waits for one; `job` is only made then.
    pub(super) fn offer(&self, job: impl FnOnce() -> Option<J>) -> bool {
        let hungry = |state: &State<J, E>| state.idle > state.jobs.len();
        if !hungry(&self.lock()) {
            return false;
        }
        let Some(job) = job() else { return false };
        self.lock().jobs.push(job);
        self.changed.notify_one();
        true
    }

    /// Whether another job failed, so that going on is of no use.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn serve(&self, work: &impl Fn(J, &Pool<J, E>) -> Result<(), E>) {
        while let Some(job) = self.take() {
            // Counts the job as done even if it panics, so that the other workers end and the panic can go on.
            let _done = Done(self);
            if let Err(error) = work(job, self) {
                let mut state = self.lock();
                state.jobs.clear();
                self.stopping.store(true, Ordering::Relaxed);
                state.failure.get_or_insert(error);
            }
        }
    }

    /// The newest job; waits while others may still make one.
    fn take(&self) -> Option<J> {
        let mut state = self.lock();
        state.idle += 1;
        while state.jobs.is_empty() && state.busy > 0 && state.failure.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        let job = if state.failure.is_none() { state.jobs.pop()? } else { return None };
        state.busy += 1;
        Some(job)
    }

    fn lock(&self) -> MutexGuard<'_, State<J, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Done<'a, J, E>(&'a Pool<J, E>);

impl<J, E> Drop for Done<'_, J, E> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.changed.notify_all();
    }
}
