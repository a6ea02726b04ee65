//! Stops uploads at their limit.
//!
//! CephFS clients refuse to write when the statistics of a limited directory have passed its limit, and those lag by
//! seconds: at full speed, gigabytes are written before. So the agent keeps the bytes in mind that it wrote lately and
//! that may not be counted yet. While the sum leaves room, writing goes on; where it does not, the statistics decide as
//! soon as they have caught up.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attributes::{Attributes, Limit};
use crate::fs::{Dir, FileId};
use crate::volume::quota::{Allowance, Room};

/// The statistics have caught up after this time: on a busy cluster with stock settings, 20 s were measured.
const LAG: Duration = Duration::from_secs(20);

/// Room is asked for in pieces of this many bytes, so that asking costs little.
const PIECE: u64 = 16 * 1024 * 1024;

/// What was written lately into each limited directory.
pub(super) struct Ledger {
    attributes: Arc<dyn Attributes>,
    lately: Mutex<HashMap<FileId, VecDeque<(Instant, u64)>>>,
}

/// One upload's share of the room in the directories above it.
struct Share {
    ledger: Arc<Ledger>,
    limited: Vec<Dir>,
    /// Room that was granted and not used yet.
    left: u64,
}

impl Ledger {
    pub(super) fn new(attributes: Arc<dyn Attributes>) -> Arc<Self> {
        Arc::new(Ledger { attributes, lately: Mutex::default() })
    }

    /// For a writer below these directories.
    pub(super) fn share(self: &Arc<Self>, limited: Vec<Dir>) -> Box<dyn Allowance> {
        Box::new(Share { ledger: Arc::clone(self), limited, left: 0 })
    }

    /// Grants up to `wanted` bytes below all of `dirs`, and notes them as written.
    fn grant(&self, dirs: &[Dir], wanted: u64, now: Instant) -> io::Result<Room> {
        let mut limits = Vec::new();
        for dir in dirs {
            if let Some(limit) = self.attributes.limit(dir, Limit::Bytes)? {
                limits.push((dir.stat_self()?.id(), limit.saturating_sub(self.attributes.bytes(dir)?)));
            }
        }
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, writes| {
            writes.retain(|(when, _)| now.duration_since(*when) < LAG);
            !writes.is_empty()
        });
        let uncounted = |id| lately.get(id).map_or(0, |writes| writes.iter().map(|(_, bytes)| bytes).sum());
        let at_most = limits.iter().map(|(_, room)| *room).min().unwrap_or(wanted);
        let certain = limits.iter().map(|(id, room)| room.saturating_sub(uncounted(id))).min();
        let granted = certain.unwrap_or(wanted).min(wanted);
        if granted == 0 && at_most > 0 {
            return Ok(Room::Uncertain);
        }
        for (id, _) in limits {
            lately.entry(id).or_default().push_back((now, granted));
        }
        Ok(Room::For(granted))
    }
}

impl Allowance for Share {
    fn claim(&mut self, bytes: u64, rest: u64) -> io::Result<Room> {
        if self.left < bytes {
            let wanted = PIECE.max(bytes).min(rest).saturating_sub(self.left);
            match self.ledger.grant(&self.limited, wanted, Instant::now())? {
                Room::For(more) => self.left += more,
                Room::Uncertain if self.left == 0 => return Ok(Room::Uncertain),
                Room::Uncertain => {}
            }
        }
        let granted = bytes.min(self.left);
        self.left -= granted;
        Ok(Room::For(granted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::tests::Fake;
    use super::*;

    struct Scene {
        temp: tempfile::TempDir,
        ledger: Arc<Ledger>,
        now: Instant,
    }

    /// A directory that is limited to 1000 bytes.
    fn scene() -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let dir = Dir::open_root(temp.path()).unwrap();
        let key = (dir.stat_self().unwrap().id(), "ceph.quota.max_bytes".to_owned());
        fake.values.lock().unwrap().insert(key, "1000".into());
        Scene { temp, ledger: Ledger::new(Arc::new(fake)), now: Instant::now() }
    }

    impl Scene {
        fn grant(&self, wanted: u64, after: Duration) -> Room {
            let dirs = [Dir::open_root(self.temp.path()).unwrap()];
            self.ledger.grant(&dirs, wanted, self.now + after).unwrap()
        }

        /// The statistics count this many bytes from now on.
        fn counted(&self, bytes: usize) {
            std::fs::write(self.temp.path().join("file"), vec![0; bytes]).unwrap();
        }
    }

    #[test]
    fn bytes_that_are_not_counted_yet_use_up_room() {
        let scene = scene();
        let soon = Duration::from_secs(1);
        assert_eq!(scene.grant(700, soon), Room::For(700));
        assert_eq!(scene.grant(700, soon), Room::For(300), "as far as it goes");
        assert_eq!(scene.grant(1, soon), Room::Uncertain, "it may be full, or something was removed");
        scene.counted(1000);
        assert_eq!(scene.grant(1, soon), Room::For(0), "it is full");
    }

    #[test]
    fn after_the_lag_the_statistics_are_right() {
        let scene = scene();
        assert_eq!(scene.grant(1000, Duration::ZERO), Room::For(1000));
        scene.counted(400);
        assert_eq!(scene.grant(1000, LAG / 2), Room::Uncertain);
        assert_eq!(scene.grant(1000, LAG), Room::For(600), "less was written than was granted");
        assert_eq!(scene.ledger.lately.lock().unwrap().values().map(VecDeque::len).sum::<usize>(), 1);
    }

    #[test]
    fn a_share_asks_for_more_than_it_needs_now_and_no_more_than_its_upload_has() {
        let scene = scene();
        let mut share = scene.ledger.share(vec![Dir::open_root(scene.temp.path()).unwrap()]);
        assert_eq!(share.claim(10, 600).unwrap(), Room::For(10));
        let mut other = scene.ledger.share(vec![Dir::open_root(scene.temp.path()).unwrap()]);
        assert_eq!(other.claim(500, 500).unwrap(), Room::For(400), "600 belong to the first");
        assert_eq!(share.claim(590, 590).unwrap(), Room::For(590));
        assert_eq!(other.claim(100, 100).unwrap(), Room::Uncertain);
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        let scene = scene();
        let elsewhere = tempfile::tempdir().unwrap();
        let mut share = scene.ledger.share(vec![Dir::open_root(elsewhere.path()).unwrap()]);
        assert_eq!(share.claim(1 << 40, 1 << 41).unwrap(), Room::For(1 << 40));
        assert!(scene.ledger.lately.lock().unwrap().is_empty());
    }
}
