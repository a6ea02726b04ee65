//! Whether the volumes can be used at the moment.
//!
//! A probe opens the volume's directory. On a network file system that hangs, the open hangs too and cannot be
//! interrupted, so a probe is waited for only so long, and no second one is begun before the first has come back:
//! a dead mount costs one thread, however often somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::volume::{Volume, Volumes};

/// How long a volume may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer holds, so that anybody may ask often.
const FRESH: Duration = Duration::from_secs(1);

/// Probes of all volumes.
pub struct Health {
    probes: Vec<Probe>,
    patience: Duration,
}

/// What a probe found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The volume's name.
    pub volume: String,
    /// When it was found out.
    pub at: Timestamp,
    /// Why the volume cannot be used; nothing if it can.
    pub error: Option<String>,
}

struct Probe {
    volume: String,
    open: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The answer that is being waited for.
    pending: Option<JoinHandle<Result<(), String>>>,
    last: Option<(Instant, Finding)>,
}

impl Health {
    /// Prepares to probe these volumes; nothing is opened yet.
    pub fn new(volumes: &Volumes) -> Self {
        Health { probes: volumes.iter().map(Probe::of).collect(), patience: PATIENCE }
    }

    /// Asks every volume at once and notes the answers in the metrics. Takes about two seconds at most.
    pub async fn check(&self, metrics: &Metrics) -> Vec<Finding> {
        let findings = self.probes.iter().map(|probe| probe.ask(self.patience));
        let findings = futures_util::future::join_all(findings).await;
        for finding in &findings {
            metrics.volume_ready(&finding.volume, finding.error.is_none());
        }
        findings
    }
}

impl Probe {
    fn of(volume: &Arc<Volume>) -> Self {
        let (name, volume) = (volume.name.clone(), Arc::clone(volume));
        let open = move || volume.root().map(drop).map_err(|error| error.to_string());
        Probe { volume: name, open: Arc::new(open), state: Mutex::default() }
    }

    async fn ask(&self, patience: Duration) -> Finding {
        let mut state = self.state.lock().await;
        if let Some((when, finding)) = &state.last
            && when.elapsed() < FRESH
        {
            return finding.clone();
        }
        let open = Arc::clone(&self.open);
        let pending = state.pending.get_or_insert_with(|| spawn_blocking(move || open()));
        let error = match timeout(patience, &mut *pending).await {
            Ok(answer) => {
                state.pending = None;
                match answer {
                    Ok(answer) => answer.err(),
                    Err(_) => Some(format!("volume {:?}: the probe failed; see the log", self.volume)),
                }
            }
            Err(_) => Some(format!(
                "volume {:?} does not answer within {} s; its file system may hang",
                self.volume,
                patience.as_secs_f64()
            )),
        };
        let finding = Finding { volume: self.volume.clone(), at: Timestamp::now(), error };
        state.last = Some((Instant::now(), finding.clone()));
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn health(open: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Health {
        let probe = Probe { volume: "local".into(), open: Arc::new(open), state: Mutex::default() };
        Health { probes: vec![probe], patience: Duration::from_millis(50) }
    }

    async fn forget_last(health: &Health) {
        health.probes[0].state.lock().await.last = None;
    }

    #[tokio::test]
    async fn a_volume_that_hangs_is_not_ready_and_costs_one_thread() {
        let (release, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let opened = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&opened);
        let health = health(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            wait.lock().unwrap().recv().unwrap();
            Ok(())
        });
        let metrics = Metrics::default();
        for _ in 0..3 {
            let error = health.check(&metrics).await.remove(0).error.unwrap();
            assert!(error.contains("does not answer"), "{error}");
            forget_last(&health).await;
        }
        assert_eq!(opened.load(Ordering::SeqCst), 1);
        assert!(metrics.render().unwrap().contains(r#"volume_ready{volume="local"} 0"#));
        release.send(()).unwrap();
        let mut error = Some(String::new());
        for _ in 0..50 {
            forget_last(&health).await;
            error = health.check(&metrics).await.remove(0).error;
            if error.is_none() {
                break;
            }
        }
        assert_eq!(error, None, "a volume that came back is ready");
    }

    #[tokio::test]
    async fn asking_often_opens_once() {
        let opened = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&opened);
        let health = health(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Err("gone".into())
        });
        for _ in 0..10 {
            assert_eq!(health.check(&Metrics::default()).await[0].error.as_deref(), Some("gone"));
        }
        assert_eq!(opened.load(Ordering::SeqCst), 1);
    }
}
