//! What every request needs: configuration, volumes, tasks, tokens and uploads.

use std::sync::Arc;

use config::Config;
use prometheus_client::collector::Collector;
use tokio::sync::Semaphore;

use crate::events::{Leases, Outbox};
use crate::health::Health;
use crate::jobs;
use crate::metrics::{EventFigures, Metrics, TaskCount};
use crate::tasks::{Marks, Tasks};
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
    /// Which processes live that serve the same volumes.
    pub marks: Arc<Marks>,
    /// What managers are still to be told, where the configuration says how.
    pub outbox: Option<Arc<Outbox>>,
    /// What the processes agree on through Valkey, where the configuration wants it.
    pub leases: Arc<Leases>,
    /// Signs and verifies what gives clients access.
    pub tokens: Tokens,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
    /// Bounds the archives that are made at once of directories that are on no volume.
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
        jobs::limit(limits.blocking_jobs);
        let token_size = usize::try_from(limits.token_size.bytes()).unwrap_or(usize::MAX);
        let volumes = config
            .volumes
            .iter()
            .filter_map(|volume| Volume::configured(volume, &config))
            .collect::<Volumes>();
        let tasks = Tasks::new(limits.tasks_running, limits.tasks_queued, config.agent.task_retention);
        let outbox = config.events.valkey.as_ref().map(|_| Arc::new(Outbox::new(config.events.outbox_size)));
        let collectors: Vec<Box<dyn Collector>> =
            vec![Box::new(TaskCount(Arc::clone(&tasks))), Box::new(EventFigures(outbox.clone()))];
        let metrics = Arc::new(Metrics::with_collectors(collectors));
        let marks = Arc::new(Marks::default());
        let leases = Leases::new(&config, marks.own());
        let uploads = Uploads::new(UploadSettings::of(&config));
        Arc::new(App {
            health: Health::new(&volumes),
            tokens: Tokens::new(config.storage_proxy.secret.expose().as_bytes(), token_size),
            uploads: Arc::new(uploads.with_metrics(Arc::clone(&metrics)).with_leases(Arc::clone(&leases))),
            archives: Arc::new(Semaphore::new(limits.archives)),
            leases,
            marks,
            outbox,
            volumes,
            tasks,
            metrics,
            config,
        })
    }
}
