//! File work on the blocking pool, a bounded number of pieces at once.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Semaphore;

use crate::error::OpError;

/// Pieces of file work that may run or wait for a thread. The pool of threads is the process's, and so is this.
static JOBS: OnceLock<Places> = OnceLock::new();

/// A number of places that can be changed while some are taken.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    size: Mutex<usize>,
}

impl Places {
    pub(crate) fn new(size: usize) -> Self {
        Places { free: Arc::new(Semaphore::new(size)), size: Mutex::new(size) }
    }

    /// The places that are free.
    pub(crate) fn free(&self) -> &Arc<Semaphore> {
        &self.free
    }

    /// Makes it this many. Places that are taken and no longer there go as they are given back. Must run inside the runtime
    /// where it becomes fewer.
    pub(crate) fn resize(&self, wanted: usize) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted > *size {
            self.free.add_permits(wanted - *size);
        }
        let mut fewer = size.saturating_sub(wanted);
        fewer -= self.free.forget_permits(fewer);
        if fewer > 0 {
            let (free, fewer) = (Arc::clone(&self.free), u32::try_from(fewer).unwrap_or(u32::MAX));
            // Nobody closes the semaphore.
            tokio::spawn(async move { free.acquire_many_owned(fewer).await.map(|taken| taken.forget()) });
        }
        *size = wanted;
    }
}

/// Lets this many pieces run or wait.
pub fn limit(most: usize) {
    JOBS.get_or_init(|| Places::new(most)).resize(most);
}

/// Runs file work on the blocking pool. It goes on if the caller goes away.
pub async fn blocking<T, F>(work: F) -> Result<T, OpError>
where
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
    T: Send + 'static,
{
    let jobs = JOBS.get_or_init(|| Places::new(config::Limits::default().blocking_jobs));
    counted(jobs.free(), work).await
}

/// Runs several steps that belong together on the runtime. They go on if the caller goes away.
pub async fn detached<T, F>(steps: F) -> Result<T, OpError>
where
    F: Future<Output = Result<T, OpError>> + Send + 'static,
    T: Send + 'static,
{
    tokio::spawn(steps).await.unwrap_or(Err(OpError::Inside))
}

async fn counted<T, F>(jobs: &'static Semaphore, work: F) -> Result<T, OpError>
where
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
    T: Send + 'static,
{
    let Ok(job) = jobs.try_acquire() else {
        return Err(OpError::Busy {
            what: "too many file operations are waiting",
            key: "limits.blocking-jobs",
        });
    };
    let work = move || {
        let outcome = work();
        drop(job);
        outcome
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(OpError::Inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn file_work_beyond_the_limit_is_told_to_come_back() {
        let jobs: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
        let (begun, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn(counted(jobs, move || {
            wait.recv().unwrap();
            Ok(1)
        }));
        while jobs.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(counted(jobs, || Ok(2)).await, Err(OpError::Busy { .. })));
        begun.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(counted(jobs, || Ok(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn places_that_are_taken_go_when_they_are_given_back() {
        let places = Places::new(3);
        let held: Vec<_> = (0..3).map(|_| places.free().try_acquire().unwrap()).collect();
        places.resize(1);
        tokio::task::yield_now().await;
        drop(held);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.free().available_permits(), 1);
        places.resize(5);
        assert_eq!(places.free().available_permits(), 5);
    }

    #[tokio::test]
    async fn a_panic_ends_that_piece_of_work_only() {
        let jobs: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
        let outcome = counted(jobs, || -> Result<(), OpError> { panic!("on purpose") }).await;
        assert!(matches!(outcome, Err(OpError::Inside)));
    }
}
