//! Who may write to an upload, and who lives, agreed on through Valkey.
//!
//! Only where the configuration wants it, and besides file locks: for shared file systems whose locks reach no other
//! node. A lease is a key with an end; its holder renews it, and has lost it when it could not be renewed in time.
//! While the server cannot be reached nobody gets a lease: where locks do not work, going on without one would mean
//! two writers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use uuid::Uuid;

use super::failure::ServerError;
use super::link::Link;
use super::server::Server;

/// How long a lease holds without being renewed.
const TERM: Duration = Duration::from_secs(9);
/// How often it is renewed.
const RENEW: Duration = Duration::from_millis(2500);
/// After this time the lease of a holder that died is over.
pub const LEASE_OVER: Duration = Duration::from_secs(10);
/// How long nobody may have spoken for an agent before its tasks are taken over.
const SILENCE: Duration = Duration::from_secs(15);

/// Questions that are asked at once. A server that hangs must not take up the threads that file work needs.
const MOST_ASKED: usize = 8;
/// How long nobody asks again after a server did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The leases of this process.
pub struct Leases {
    /// Nothing where file locks are trusted alone.
    server: Option<Server>,
    own: Uuid,
    idle: Mutex<Vec<Link>>,
    asking: Arc<Semaphore>,
    /// When the server did not answer last.
    silent: Mutex<Option<Instant>>,
    /// This process, and the dead ones whose tasks it has.
    agents: Mutex<BTreeSet<Uuid>>,
    /// Agents without a lease, and since when: a server that lost its memory knows nobody for a moment.
    unknown: Mutex<BTreeMap<Uuid, Instant>>,
    reachable: AtomicBool,
}

/// A lease that is held. It is given back when this value goes.
pub struct Lease {
    leases: Arc<Leases>,
    key: String,
    holder: String,
    lost: watch::Receiver<bool>,
    renewing: AbortHandle,
}

// === impl Leases ===

impl Leases {
    /// Of the process that its marks call `own`.
    pub fn new(config: &config::Config, own: Uuid) -> Arc<Self> {
        let wanted = config.events.leases && config.events.valkey.is_some();
        Arc::new(Leases {
            server: wanted.then(|| Server::new(config)),
            own,
            idle: Mutex::default(),
            asking: Arc::new(Semaphore::new(MOST_ASKED)),
            silent: Mutex::default(),
            agents: Mutex::new(BTreeSet::from([own])),
            unknown: Mutex::default(),
            reachable: AtomicBool::new(true),
        })
    }

    /// Whether leases are wanted.
    pub fn are_on(&self) -> bool {
        self.server.is_some()
    }

    /// Takes the lease on an upload; nothing if another process has it, or if nobody can be asked.
    pub async fn upload(self: &Arc<Self>, session: &str) -> Option<Lease> {
        let (key, holder) = (format!("storage-agent.upload.{session}"), Uuid::new_v4().to_string());
        let (asked, asking) = (key.clone(), holder.clone());
        if self.asked(move |link| link.take_lease(&asked, &asking, TERM)).await != Some(true) {
            return None;
        }
        let (tell, lost) = watch::channel(false);
        let renewing = tokio::spawn(Arc::clone(self).renew(key.clone(), holder.clone(), tell)).abort_handle();
        Some(Lease { leases: Arc::clone(self), key, holder, lost, renewing })
    }

    async fn renew(self: Arc<Self>, key: String, holder: String, lost: watch::Sender<bool>) {
        let mut renewed = Instant::now();
        while renewed.elapsed() + RENEW < TERM {
            tokio::time::sleep(RENEW).await;
            let (key, holder, asked) = (key.clone(), holder.clone(), Instant::now());
            match self.asked(move |link| link.renew_lease(&key, &holder, TERM)).await {
                Some(true) => renewed = asked,
                Some(false) => break,
                None => {}
            }
        }
        lost.send_replace(true);
    }

    /// Whether the tasks of an agent may be taken over, as far as leases tell. If so it counts as this process from
    /// now on. Blocks.
    pub fn take_agent(&self, agent: Uuid) -> bool {
        if !self.are_on() || agent.is_nil() {
            return true;
        }
        let key = agent_key(agent);
        match self.ask(|link| link.has_lease(&key)) {
            Some(false) => {}
            Some(true) => {
                lock(&self.unknown).remove(&agent);
                return false;
            }
            None => return false,
        }
        let since = *lock(&self.unknown).entry(agent).or_insert_with(Instant::now);
        if since.elapsed() < SILENCE {
            return false;
        }
        let taken = self.ask(|link| link.take_lease(&key, &self.own.to_string(), TERM)) == Some(true);
        if taken {
            lock(&self.unknown).remove(&agent);
            lock(&self.agents).insert(agent);
        }
        taken
    }

    /// Keeps telling that this process lives; returns at once where leases are off, else never.
    pub async fn live(self: Arc<Self>) {
        while self.are_on() {
            let leases = Arc::clone(&self);
            let telling = spawn_blocking(move || {
                let agents: Vec<Uuid> = lock(&leases.agents).iter().copied().collect();
                for agent in agents {
                    leases.ask(|link| link.hold_lease(&agent_key(agent), &leases.own.to_string(), TERM));
                }
            });
            if telling.await.is_err() {
                tracing::error!("telling that this agent lives panicked");
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// As [`Leases::ask`], when it is its turn.
    async fn asked<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl Fn(&mut Link) -> Result<T, ServerError> + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.asking).acquire_owned().await.ok()?;
        let leases = Arc::clone(self);
        let asking = spawn_blocking(move || {
            let answer = leases.ask(question);
            drop(turn);
            answer
        });
        asking.await.ok().flatten()
    }

    /// Asks the server over a connection of its own; nothing if it does not answer. Blocks.
    fn ask<T>(&self, question: impl Fn(&mut Link) -> Result<T, ServerError>) -> Option<T> {
        let server = self.server.as_ref()?;
        if lock(&self.silent).is_some_and(|since| since.elapsed() < PAUSE) {
            return None;
        }
        let answer = |mut link: Link| {
            let answer = question(&mut link)?;
            lock(&self.idle).push(link);
            Ok(answer)
        };
        // A connection that rested may have been closed by the server.
        let rested = lock(&self.idle).pop();
        let outcome = match rested.map(answer) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) | None => server.connect().and_then(answer),
        };
        let was_reachable = self.reachable.swap(outcome.is_ok(), Relaxed);
        *lock(&self.silent) = outcome.is_err().then(Instant::now);
        match outcome {
            Err(error) if was_reachable => {
                tracing::warn!(%error, "leases cannot be had: uploads that need one have to wait");
                None
            }
            outcome => outcome.ok(),
        }
    }
}

// === impl Lease ===

impl Lease {
    /// Returns when the lease is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        drop(lost.wait_for(|lost| *lost).await);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        let (leases, key, holder) = (Arc::clone(&self.leases), self.key.clone(), self.holder.clone());
        // Without a runtime the process is ending, and the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { leases.asked(move |link| link.drop_lease(&key, &holder)).await });
        }
    }
}

fn agent_key(agent: Uuid) -> String {
    format!("storage-agent.agent.{agent}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
