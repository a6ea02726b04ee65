//! How much memory one of many uploads may take.
//!
//! A single upload is fastest with large buffers, and hundreds must not take hundreds of them. So what all of them may
//! have together is divided by how many there are at the moment.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the batches of all uploads have together, as long as each has its least.
const ALL: usize = 16 << 20;
const MOST: usize = 1 << 20;
const LEAST: usize = 64 << 10;

static RECEIVING: AtomicUsize = AtomicUsize::new(0);

/// Counts one upload for as long as it receives.
pub(super) struct Share(());

impl Share {
    pub(super) fn take() -> Self {
        RECEIVING.fetch_add(1, Relaxed);
        Share(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        RECEIVING.fetch_sub(1, Relaxed);
    }
}

/// What one upload may have at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Portion {
    /// As much as it can use.
    Full,
    /// So many bytes in one batch, and from one read of its connection.
    Bytes(usize),
}

pub(crate) fn portion() -> Portion {
    match ALL / RECEIVING.load(Relaxed).max(1) {
        MOST.. => Portion::Full,
        bytes => Portion::Bytes(bytes.max(LEAST)),
    }
}

/// Bytes that one upload should gather into a batch at the moment.
pub(super) fn batch() -> usize {
    match portion() {
        Portion::Full => MOST,
        Portion::Bytes(bytes) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_uploads_share_what_a_few_would_have() {
        assert_eq!(portion(), Portion::Full);
        let shares: Vec<_> = (0..200).map(|_| Share::take()).collect();
        assert!((LEAST..=ALL / 200).contains(&batch()), "{}", batch());
        drop(shares);
        assert_eq!(batch(), MOST);
    }
}
