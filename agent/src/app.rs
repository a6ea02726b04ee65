//! What every request needs: configuration, volumes, tasks, tokens and uploads.

use std::sync::{Arc, OnceLock};

use config::Config;
use tokio::sync::Semaphore;

use crate::api::problem::Problem;
use crate::error::OpError;
use crate::health::Health;
use crate::metrics::{Metrics, TaskCount};
use crate::tasks::Tasks;
use crate::token::Tokens;
use crate::vfolder::upload::{UploadSettings, Uploads};
use crate::volume::{Volume, Volumes};

/// The application's state, shared by all requests.
pub struct App {
    /// The validated configuration.
    pub config: Config,
    /// The configured volumes.
    pub volumes: Volumes,
    /// Long work: purges, clones, deletions.
    pub tasks: Arc<Tasks>,
    /// Signs and verifies what gives clients access.
    pub tokens: Tokens,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
    /// Bounds the archives that are made at once.
    pub archives: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the volumes can be used.
    pub health: Health,
}

impl App {
    /// The application that the configuration describes. Volumes of a backend that is not known are left out;
    /// the configuration has warned of them.
    pub fn new(config: Config) -> Arc<Self> {
        let limits = &config.limits;
        JOBS.get_or_init(|| Semaphore::new(limits.blocking_jobs));
        let token_size = usize::try_from(limits.token_size.bytes()).unwrap_or(usize::MAX);
        let volumes = config.volumes.iter().filter_map(Volume::configured).collect::<Volumes>();
        let tasks = Tasks::new(limits.tasks_running, limits.tasks_queued, config.agent.task_retention);
        let metrics = Arc::new(Metrics::with_collectors(vec![Box::new(TaskCount(Arc::clone(&tasks)))]));
        Arc::new(App {
            health: Health::new(&volumes),
            tokens: Tokens::new(config.storage_proxy.secret.expose().as_bytes(), token_size),
            uploads: Arc::new(Uploads::new(UploadSettings::of(&config)).with_metrics(Arc::clone(&metrics))),
            archives: Arc::new(Semaphore::new(limits.archives)),
            volumes,
            tasks,
            metrics,
            config,
        })
    }
}

/// Pieces of file work that may run or wait for a thread. The pool of threads is the process's, and so is this.
static JOBS: OnceLock<Semaphore> = OnceLock::new();

/// Runs file work on the blocking pool. It goes on if the caller goes away.
pub async fn blocking<T, F>(work: F) -> Result<T, Problem>
where
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
    T: Send + 'static,
{
    counted(JOBS.get_or_init(|| Semaphore::new(config::Limits::default().blocking_jobs)), work).await
}

async fn counted<T, F>(jobs: &'static Semaphore, work: F) -> Result<T, Problem>
where
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
    T: Send + 'static,
{
    let Ok(job) = jobs.try_acquire() else {
        let busy =
            OpError::Busy { what: "too many file operations are waiting", key: "limits.blocking-jobs" };
        return Err(busy.into());
    };
    let work = move || {
        let outcome = work();
        drop(job);
        outcome
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Problem::from),
        Err(_) => Err(Problem::internal("the operation failed inside the storage agent; see its log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::StatusCode;

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
        let refused = counted(jobs, || Ok(2)).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        begun.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(counted(jobs, || Ok(3)).await.unwrap(), 3);
    }
}
