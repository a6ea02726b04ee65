//! How the service ends: first no new connections and no new requests, later no connections at all.

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything is served.
    Serving,
    /// Requests that are under way are completed, nothing new begins.
    Draining,
    /// Whatever is left is broken off.
    Aborting,
}

/// Says when the service ends.
#[derive(Debug)]
pub struct Stop(watch::Sender<Stage>);

/// Hears when the service ends.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<Stage>);

impl Stop {
    /// A service that is not ending.
    pub fn new() -> (Stop, Stopping) {
        let (sender, receiver) = watch::channel(Stage::Serving);
        (Stop(sender), Stopping(receiver))
    }

    /// Goes on to this stage; an earlier stage than the present one changes nothing.
    pub fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let later = to > *stage;
            *stage = (*stage).max(to);
            later
        });
    }
}

impl Stopping {
    /// Waits until this stage or a later one is reached. A [`Stop`] that is dropped means the last stage.
    pub async fn reached(&mut self, wanted: Stage) {
        // An error says that the sender is gone, which is an end as well.
        let _ = self.0.wait_for(|stage| *stage >= wanted).await;
    }

    /// The present stage.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }
}
