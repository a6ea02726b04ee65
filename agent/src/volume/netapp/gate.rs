//! Lets changes of quota rules that are due at about the same time begin at once.
//!
//! Each change makes ONTAP resize the volume's quotas, but changes during a resize are taken up by one more. So those who
//! come from making a qtree wait for the others who are still making theirs, a few seconds at most, and a lone one waits
//! for nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long the first of those who wait does so.
const LONGEST: Duration = Duration::from_secs(3);

/// The gate of one volume.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many are on their way.
    coming: usize,
    /// When the first of those who wait came.
    waiting: Option<Instant>,
    /// How often the gate was opened.
    openings: u64,
}

/// Somebody on the way to the gate.
pub(super) struct Coming {
    gate: Arc<Gate>,
    arrived: bool,
}

impl Gate {
    /// Announces somebody who will pass, or give up.
    pub(super) fn announce(self: &Arc<Self>) -> Coming {
        self.state().coming += 1;
        Coming { gate: Arc::clone(self), arrived: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One less is on the way. Opens the gate if that was the last.
    fn arrive(&self, state: &mut State) {
        state.coming = state.coming.saturating_sub(1);
        if state.coming == 0 {
            self.open(state);
        }
    }

    fn open(&self, state: &mut State) {
        state.openings += 1;
        state.waiting = None;
        self.opened.notify_waiters();
    }
}

impl Coming {
    /// Returns when the gate is open.
    pub(super) async fn pass(mut self) {
        let gate = Arc::clone(&self.gate);
        self.arrived = true;
        let (came, until) = {
            let mut state = gate.state();
            let came = state.openings;
            let until = *state.waiting.get_or_insert_with(Instant::now) + LONGEST;
            gate.arrive(&mut state);
            (came, until)
        };
        loop {
            let mut opened = std::pin::pin!(gate.opened.notified());
            // From here on no opening is missed.
            opened.as_mut().enable();
            if gate.state().openings != came {
                return;
            }
            if tokio::time::timeout_at(until.into(), opened).await.is_err() {
                let mut state = gate.state();
                if state.openings == came {
                    gate.open(&mut state);
                }
                return;
            }
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if !self.arrived {
            let gate = Arc::clone(&self.gate);
            gate.arrive(&mut gate.state());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lone_one_passes_at_once_and_several_pass_together() {
        let gate = Arc::new(Gate::default());
        tokio::time::timeout(Duration::from_millis(100), gate.announce().pass()).await.unwrap();
        let (first, second, third) = (gate.announce(), gate.announce(), gate.announce());
        let first = tokio::spawn(first.pass());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!first.is_finished());
        drop(second);
        let third = tokio::spawn(third.pass());
        tokio::time::timeout(Duration::from_millis(100), async { (first.await, third.await) })
            .await
            .unwrap()
            .0
            .unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_long_for_one_who_does_not_come() {
        let gate = Arc::new(Gate::default());
        let _never = gate.announce();
        let begun = tokio::time::Instant::now();
        gate.announce().pass().await;
        assert!(begun.elapsed() <= LONGEST + Duration::from_millis(100));
    }
}
