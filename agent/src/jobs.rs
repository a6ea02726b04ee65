//! File work on the blocking pool, a bounded number of pieces at once.

use std::sync::OnceLock;

use tokio::sync::Semaphore;

use crate::error::OpError;

/// Pieces of file work that may run or wait for a thread. The pool of threads is the process's, and so is this.
static JOBS: OnceLock<Semaphore> = OnceLock::new();

/// Lets this many pieces run or wait. Only the first call has an effect.
pub fn limit(most: usize) {
    JOBS.get_or_init(|| Semaphore::new(most));
}

/// Runs file work on the blocking pool. It goes on if the caller goes away.
pub async fn blocking<T, F>(work: F) -> Result<T, OpError>
where
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
    T: Send + 'static,
{
    counted(JOBS.get_or_init(|| Semaphore::new(config::Limits::default().blocking_jobs)), work).await
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
    async fn a_panic_ends_that_piece_of_work_only() {
        let jobs: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
        let outcome = counted(jobs, || -> Result<(), OpError> { panic!("on purpose") }).await;
        assert!(matches!(outcome, Err(OpError::Inside)));
    }
}
