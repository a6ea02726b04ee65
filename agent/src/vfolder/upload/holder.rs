//! Who writes to an upload session at the moment, within this process.
//!
//! A session has one writer at a time. A client whose connection died without a word comes back long before
//! the dead connection is noticed; so a newcomer may take the session over from a holder that has been
//! waiting for its client for some time, but not from one whose data keeps coming. Other processes that
//! serve the same volume are kept out by a lock on the staging file instead, and by a lease where they agree on one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use tokio::time::timeout;

use super::session::SessionId;
use crate::events::{Lease as SharedLease, Leases};

/// All sessions that someone holds or waits for.
#[derive(Default)]
pub(super) struct Holders {
    sessions: Mutex<HashMap<SessionId, Arc<Holder>>>,
}

struct Holder {
    lock: Arc<AsyncMutex<()>>,
    /// Since when it has been waiting for its client; nothing while it has work to do.
    waiting_since: Mutex<Option<Instant>>,
    /// Set to ask it to keep what it has and leave.
    leave: watch::Sender<bool>,
    /// What a stranger is told of the offset meanwhile.
    durable: AtomicU64,
}

/// Interest in a session; the last one to lose it removes the session from the table.
struct Ticket {
    holders: Arc<Holders>,
    session: SessionId,
    holder: Arc<Holder>,
}

/// The right to write to a session.
pub(super) struct Lease {
    // Let go before the session leaves the table.
    _guard: OwnedMutexGuard<()>,
    ticket: Ticket,
    /// What other processes go by, where they do.
    shared: Option<SharedLease>,
}

/// How long to wait for a session that someone else holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// After how much waiting for its client a holder counts as dead.
    pub(super) holder_idle: Duration,
    /// How long a holder that was told to leave may take to put its data away.
    pub(super) lock_wait: Duration,
}

// === impl Holders ===

impl Holders {
    /// Takes the session, from a dead holder if need be; nothing if a live one keeps it.
    pub(super) async fn acquire(self: &Arc<Self>, session: SessionId, patience: Patience) -> Option<Lease> {
        let ticket = self.ticket(session);
        if !ticket.holder.is_dead(patience.holder_idle) {
            if let Some(guard) = ticket.holder.lock_within(patience.holder_idle).await {
                return Some(Lease::new(ticket, guard));
            }
            if !ticket.holder.is_dead(patience.holder_idle) {
                return None;
            }
        }
        self.evict(ticket, patience).await
    }

    /// Takes the session from whoever holds it.
    pub(super) async fn seize(self: &Arc<Self>, session: SessionId, patience: Patience) -> Option<Lease> {
        self.evict(self.ticket(session), patience).await
    }

    /// The durable offset, if someone who is alive holds the session.
    pub(super) fn durable_offset(self: &Arc<Self>, session: SessionId, patience: Patience) -> Option<u64> {
        let ticket = self.ticket(session);
        let held = ticket.holder.lock.try_lock().is_err();
        (held && !ticket.holder.is_dead(patience.holder_idle))
            .then(|| ticket.holder.durable.load(Ordering::Acquire))
            .filter(|offset| *offset != UNKNOWN)
    }

    async fn evict(&self, ticket: Ticket, patience: Patience) -> Option<Lease> {
        ticket.holder.leave.send_replace(true);
        let guard = ticket.holder.lock_within(patience.lock_wait).await?;
        Some(Lease::new(ticket, guard))
    }

    fn ticket(self: &Arc<Self>, session: SessionId) -> Ticket {
        let holder = Arc::clone(self.table().entry(session).or_insert_with(|| Arc::new(Holder::new())));
        Ticket { holders: Arc::clone(self), session, holder }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Holder>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The offset of a holder that has not looked yet.
const UNKNOWN: u64 = u64::MAX;

// === impl Holder ===

impl Holder {
    fn new() -> Self {
        Holder {
            lock: Arc::default(),
            waiting_since: Mutex::default(),
            leave: watch::Sender::new(false),
            durable: AtomicU64::new(UNKNOWN),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self, holder_idle: Duration) -> bool {
        self.waiting().is_some_and(|since| since.elapsed() >= holder_idle)
    }

    async fn lock_within(&self, time: Duration) -> Option<OwnedMutexGuard<()>> {
        timeout(time, Arc::clone(&self.lock).lock_owned()).await.ok()
    }
}

// === impl Ticket ===

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.holders.table();
        // The table's own reference and this one.
        if Arc::strong_count(&self.holder) == 2 {
            table.remove(&self.session);
        }
    }
}

// === impl Lease ===

impl Lease {
    fn new(ticket: Ticket, guard: OwnedMutexGuard<()>) -> Self {
        *ticket.holder.waiting() = None;
        ticket.holder.durable.store(UNKNOWN, Ordering::Release);
        ticket.holder.leave.send_replace(false);
        Lease { _guard: guard, ticket, shared: None }
    }

    /// Takes the session in the sight of other processes as well, where they agree on it through Valkey. Not when
    /// another has it.
    pub(super) async fn share(&mut self, leases: &Arc<Leases>) -> bool {
        if leases.are_on() && self.shared.is_none() {
            self.shared = leases.upload(&self.ticket.session.to_string()).await;
        }
        self.shared.is_some() || !leases.are_on()
    }

    async fn lost(&self) {
        match &self.shared {
            Some(shared) => shared.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Says how far the session's data is durable.
    pub(super) fn set_durable(&self, offset: u64) {
        self.ticket.holder.durable.store(offset, Ordering::Release);
    }

    /// Says that the last data is being put away: whoever asks for the offset had better wait for the end.
    pub(super) fn set_ending(&self) {
        self.ticket.holder.durable.store(UNKNOWN, Ordering::Release);
    }

    /// Waits for something that the client does; nothing if someone else is to have the session.
    pub(super) async fn wait_for_client<T>(&self, event: impl Future<Output = T>) -> Option<T> {
        let holder = &self.ticket.holder;
        let mut leave = holder.leave.subscribe();
        *holder.waiting() = Some(Instant::now());
        let outcome = tokio::select! {
            biased;
            _ = leave.wait_for(|leave| *leave) => None,
            () = self.lost() => None,
            event = event => Some(event),
        };
        *holder.waiting() = None;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { holder_idle: Duration::from_millis(60), lock_wait: Duration::from_millis(500) };

    fn holders() -> (Arc<Holders>, SessionId) {
        (Arc::default(), SessionId::random())
    }

    #[tokio::test]
    async fn a_busy_holder_keeps_the_session_and_a_finished_one_leaves_it() {
        let (holders, session) = holders();
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        assert!(holders.acquire(session, PATIENCE).await.is_none());
        assert!(holders.acquire(SessionId::random(), PATIENCE).await.is_some(), "other sessions are free");
        drop(lease);
        assert!(holders.acquire(session, PATIENCE).await.is_some());
        assert!(holders.table().is_empty(), "nothing stays behind");
    }

    #[tokio::test]
    async fn a_holder_that_waits_too_long_for_its_client_is_told_to_leave() {
        let (holders, session) = holders();
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        lease.set_durable(7);
        let dead = tokio::spawn(async move { lease.wait_for_client(std::future::pending::<()>()).await });
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(holders.durable_offset(session, PATIENCE), Some(7));
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        assert_eq!(dead.await.unwrap(), None);
        assert_eq!(
            lease.wait_for_client(async { 1 }).await,
            Some(1),
            "the order to leave was not for the next"
        );
    }

    #[tokio::test]
    async fn the_offset_of_a_holder_that_is_ending_is_not_told_but_waited_for() {
        let (holders, session) = holders();
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        lease.set_durable(7);
        assert_eq!(holders.durable_offset(session, PATIENCE), Some(7));
        lease.set_ending();
        assert_eq!(holders.durable_offset(session, PATIENCE), None);
        let next = tokio::spawn(async move { holders.acquire(session, PATIENCE).await.is_some() });
        drop(lease);
        assert!(next.await.unwrap());
    }

    #[tokio::test]
    async fn a_holder_whose_client_goes_on_sending_keeps_the_session() {
        let (holders, session) = holders();
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        let live = tokio::spawn(async move {
            for _ in 0..20 {
                lease.wait_for_client(tokio::time::sleep(Duration::from_millis(10))).await.unwrap();
            }
        });
        assert!(holders.acquire(session, PATIENCE).await.is_none());
        live.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_ends_an_upload_gets_the_session_even_from_a_live_holder() {
        let (holders, session) = holders();
        let lease = holders.acquire(session, PATIENCE).await.unwrap();
        let live = tokio::spawn(async move {
            while lease.wait_for_client(tokio::time::sleep(Duration::from_millis(1))).await.is_some() {}
        });
        assert!(holders.seize(session, PATIENCE).await.is_some());
        live.await.unwrap();
    }
}
