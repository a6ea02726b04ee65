//! What follows when a task has ended: its end is noted, told to managers, and then its record goes.

use std::sync::Arc;

use super::journal::{Ended, Outcome};
use super::takeover::go_on_later;
use super::{Filed, Kind, State, Task};
use crate::app::App;
use crate::events::Entry;

/// The end that a task will have.
pub struct Ending {
    app: Arc<App>,
    filed: Option<Filed>,
}

impl Ending {
    /// Tells the end through the outbox, if there is one, and removes the record, if there is one.
    pub fn new(app: &Arc<App>, filed: Option<Filed>) -> Self {
        Ending { app: Arc::clone(app), filed }
    }

    /// Closes the task. Blocks.
    pub(super) fn close(self, task: &Task, state: &State) {
        let (ended, subject) = (Ended::now(state), task.subject.clone());
        let lost = matches!(state, State::Failed(_)) && self.filed.as_ref().is_some_and(is_lost);
        match (self.filed, &self.app.outbox) {
            // What is on record there goes on when the volume is back, so this is no end.
            (Some(filed), _) if lost => go_on_later(self.app, filed, task.id),
            (filed, Some(outbox)) if !filed.as_ref().is_some_and(|filed| filed.told) => {
                if let Some(Err(error)) = filed.as_ref().map(|filed| filed.at().note(&ended)) {
                    tracing::warn!(task = %task.id, %error, "the end of a task could not be noted; after a restart it is done again");
                }
                outbox.push(Entry { id: task.id, subject, ended, filed });
            }
            _ if stays(subject.kind, &ended) => {}
            (filed, _) => discard(filed),
        }
    }
}

fn is_lost(filed: &Filed) -> bool {
    filed.at().volume().root().is_err()
}

/// Ends the record of a task whose end has been told. A deletion that did not succeed keeps it: what is left of the
/// folder is out of sight and is to be removed at the next start, without another word to managers.
pub fn told(filed: Option<Filed>, kind: Kind, ended: &Ended) {
    match filed {
        Some(filed) if stays(kind, ended) => {
            if let Err(error) = filed.at().note(&Ended { told: true, ..ended.clone() }) {
                tracing::warn!(%error, "it could not be noted that managers know of a failed deletion");
            }
        }
        filed => discard(filed),
    }
}

pub(super) fn stays(kind: Kind, ended: &Ended) -> bool {
    kind == Kind::Delete && ended.outcome != Outcome::Done
}

pub(super) fn discard(filed: Option<Filed>) {
    if let Some(Err(error)) = filed.map(Filed::remove) {
        tracing::warn!(%error, "the record of an ended task could not be removed; it is looked at again after a restart");
    }
}
