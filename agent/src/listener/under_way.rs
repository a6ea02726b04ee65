//! Requests under way, for whoever wants to see what the agent is doing at the moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// One request under way, as it is at a moment.
#[derive(Debug, Clone)]
pub struct UnderWay {
    /// The listener's name.
    pub api: &'static str,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The method.
    pub method: String,
    /// The path without the query, printable.
    pub path: String,
    /// The id in logs and in the reply.
    pub request_id: Arc<str>,
    /// Since its head was read.
    pub age: Duration,
    /// Bytes of its body that arrived.
    pub received: u64,
    /// Bytes that left for it, head included.
    pub sent: u64,
}

/// What can tell how it is.
pub(super) trait Told: Send + Sync {
    fn tell(&self) -> UnderWay;
}

/// All requests under way. Each takes itself off at its end.
#[derive(Default)]
pub struct Requests(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    next: u64,
    all: BTreeMap<u64, Weak<dyn Told>>,
}

impl Requests {
    /// All of them, the oldest first.
    pub fn list(&self) -> Vec<UnderWay> {
        let all: Vec<_> = self.listed().all.values().filter_map(Weak::upgrade).collect();
        all.iter().map(|request| request.tell()).collect()
    }

    /// Takes one in; the number to take it off by.
    pub(super) fn add(&self, request: Weak<dyn Told>) -> u64 {
        let mut listed = self.listed();
        let number = listed.next;
        listed.next += 1;
        listed.all.insert(number, request);
        number
    }

    pub(super) fn remove(&self, number: u64) {
        self.listed().all.remove(&number);
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
