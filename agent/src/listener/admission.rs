//! How many connections there may be, in all and from one peer.
//!
//! A peer is an IPv4 address or an IPv6 /64, the smallest block that one customer gets (RFC 6177). Peers that
//! speak for many (trusted proxies) count only towards the total.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All connections of this listener are taken.
    Full,
    /// This peer has its share.
    PeerFull,
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Admission {
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    limit: usize,
    limit_per_peer: usize,
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    counted: Option<IpAddr>,
}

impl Admission {
    pub(super) fn new(limit: usize, limit_per_peer: usize) -> Arc<Self> {
        let open = Open { limit, limit_per_peer, all: 0, by_peer: HashMap::new() };
        Arc::new(Admission { open: Mutex::new(open) })
    }

    /// Changes the limits. Connections that are open stay, and count.
    pub(super) fn resize(&self, limit: usize, limit_per_peer: usize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.limit, open.limit_per_peer) = (limit, limit_per_peer);
    }

    /// Admits a connection from this address; `exempt` peers have no share of their own.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, exempt: bool) -> Result<Permit, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= open.limit {
            return Err(Refusal::Full);
        }
        let counted = (!exempt).then(|| block(peer));
        let limit_per_peer = open.limit_per_peer;
        if let Some(peer) = counted {
            let count = open.by_peer.entry(peer).or_insert(0);
            if *count >= limit_per_peer {
                return Err(Refusal::PeerFull);
            }
            *count += 1;
        }
        open.all += 1;
        Ok(Permit { admission: Arc::clone(self), counted })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        let Some(peer) = self.counted else { return };
        if let Entry::Occupied(mut count) = open.by_peer.entry(peer) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn block(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_gets_its_share_and_no_more_until_it_gives_back() {
        let admission = Admission::new(10, 2);
        let first = admission.admit(ip("192.0.2.1"), false).unwrap();
        let _second = admission.admit(ip("192.0.2.1"), false).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1"), false).unwrap_err(), Refusal::PeerFull);
        let _other = admission.admit(ip("192.0.2.2"), false).unwrap();
        drop(first);
        let _third = admission.admit(ip("192.0.2.1"), false).unwrap();
    }

    #[test]
    fn other_limits_hold_at_once_and_nobody_is_thrown_out() {
        let admission = Admission::new(10, 10);
        let held: Vec<_> = (0..3).map(|_| admission.admit(ip("192.0.2.1"), false).unwrap()).collect();
        admission.resize(10, 2);
        assert_eq!(admission.admit(ip("192.0.2.1"), false).unwrap_err(), Refusal::PeerFull);
        admission.resize(3, 3);
        assert_eq!(admission.admit(ip("192.0.2.2"), false).unwrap_err(), Refusal::Full);
        drop(held);
        let _new = admission.admit(ip("192.0.2.1"), false).unwrap();
    }

    #[test]
    fn one_ipv6_network_is_one_peer_and_a_mapped_address_is_ipv4() {
        let admission = Admission::new(10, 1);
        let _one = admission.admit(ip("2001:db8::1"), false).unwrap();
        assert!(admission.admit(ip("2001:db8::ffff:2"), false).is_err());
        let _two = admission.admit(ip("2001:db8:0:1::1"), false).unwrap();
        let _three = admission.admit(ip("192.0.2.1"), false).unwrap();
        assert!(admission.admit(ip("::ffff:192.0.2.1"), false).is_err());
    }

    #[test]
    fn an_exempt_peer_counts_towards_the_total_only() {
        let admission = Admission::new(3, 1);
        let held: Vec<_> = (0..3).map(|_| admission.admit(ip("127.0.0.1"), true).unwrap()).collect();
        assert_eq!(admission.admit(ip("127.0.0.1"), true).unwrap_err(), Refusal::Full);
        drop(held);
        assert!(admission.open.lock().unwrap().by_peer.is_empty());
        assert_eq!(admission.open.lock().unwrap().all, 0);
    }
}
