//! Telling managers how background work ended, through the Valkey or Redis of the site.
//!
//! Managers from 24.12 on learn it in no other way. `message` is what goes over the wire, `outbox` what waits,
//! `server` the way to the server and `link` a connection, `publisher` the thread that brings them together. What waits
//! lies beside the data as well (`tasks::journal`), so that neither an outage of the server nor the end of the process
//! loses anything.

mod etcd;
mod failure;
mod lease;
mod link;
mod message;
mod msgpack;
mod outbox;
mod publisher;
mod server;

pub use self::lease::{LEASE_OVER, Lease, Leases};
pub use self::outbox::{Entry, Outbox};
pub use self::publisher::spawn;
