//! What every request needs: configuration, volumes, tasks, tokens and uploads.

use std::sync::{Arc, PoisonError, RwLock};

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
    /// The validated configuration, replaced as a whole by a reload.
    config: RwLock<Arc<Config>>,
    /// Signs and verifies what gives clients access; replaced with its key.
    tokens: RwLock<Arc<Tokens>>,
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
            tokens: RwLock::new(Arc::new(tokens(&config))),
            uploads: Arc::new(uploads.with_metrics(Arc::clone(&metrics)).with_leases(Arc::clone(&leases))),
            archives: Arc::new(Semaphore::new(limits.archives)),
            leases,
            marks,
            outbox,
            volumes,
            tasks,
            metrics,
            config: RwLock::new(Arc::new(config)),
        })
    }

    /// The configuration at the moment. Who needs several values that belong together asks once.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What signs and verifies tokens at the moment.
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes over to a configuration that differs from the present one only in what can change ([`Config::keep_fixed`]).
    /// Requests under way keep what they began with. Must run inside the runtime.
    pub fn reconfigure(&self, config: Config) {
        let limits = &config.limits;
        jobs::limit(limits.blocking_jobs);
        self.volumes.iter().for_each(|volume| volume.reconfigure(limits));
        self.tasks.reconfigure(limits.tasks_queued, config.agent.task_retention);
        self.uploads.reconfigure(UploadSettings::of(&config));
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens(&config));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

fn tokens(config: &Config) -> Tokens {
    let size = usize::try_from(config.limits.token_size.bytes()).unwrap_or(usize::MAX);
    Tokens::new(config.storage_proxy.secret.expose().as_bytes(), size)
}
