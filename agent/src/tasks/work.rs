//! What tasks do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::id::{QuotaScopeId, VfolderId};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::journal::{Ended, Outcome, Record};
use super::{Ending, Filed, Kind, State, Subject, Task};
use crate::app::App;
use crate::error::OpError;
use crate::vfolder::{self, clone::Place};
use crate::volume::Volume;

/// A vfolder and the volume it lies in.
pub type Folder = (Arc<Volume>, VfolderId);

/// How often another process's task is looked at while somebody waits for it.
const LOOK: Duration = Duration::from_millis(200);

/// Purges a folder that was hidden before. Without a record it stands where it was.
pub fn purge(app: &Arc<App>, task: &Arc<Task>, filed: Option<Filed>, (volume, id): Folder) {
    let threads = app.config().limits.delete_parallelism;
    let runtime = Handle::current();
    let at = filed.as_ref().map(|filed| filed.at().clone());
    app.begin(task, filed, move |task| {
        let forget = || runtime.block_on(volume.backend.quota.folder_purged(&volume, &id));
        vfolder::delete::purge(&volume, &id, at.as_ref(), task, threads, forget)
    });
}

/// Ends a task at once that had nothing to do. Where managers wait for its end, that is kept until they know; the
/// record may lie at the root of the volume, because the scope may be as missing as the folder. Blocks.
pub fn nothing_to_do(app: &Arc<App>, task: &Arc<Task>, volume: &Arc<Volume>, scope: Option<&QuotaScopeId>) {
    let record = Record { nothing: true, ..Record::new(task.subject.kind, &task.subject.vfid) };
    let filed = match keep(app, task, volume, scope, record.clone()) {
        None if scope.is_some() => keep(app, task, volume, None, record),
        filed => filed,
    };
    app.begin(task, filed, |_| Ok(()));
}

/// Writes a record only so that managers learn the end of the task whatever happens to this process. Without one the
/// work goes on as well. Blocks.
pub fn keep(
    app: &App,
    task: &Task,
    volume: &Arc<Volume>,
    scope: Option<&QuotaScopeId>,
    record: Record,
) -> Option<Filed> {
    app.outbox.as_ref()?;
    match Filed::begin(&app.marks, volume, scope, task.id, record) {
        Err(OpError::ScopeNotFound(_)) => None,
        filed => filed.inspect_err(|error| unkept(task, error)).ok(),
    }
}

fn unkept(task: &Task, error: &OpError) {
    tracing::warn!(task = %task.id, %error, "the task could not be recorded; its end is not told if the agent ends before");
}

/// Whose a clone is that was asked for.
pub enum Claim {
    /// This request's.
    Ours(Filed),
    /// That of a task, perhaps another process's, which makes the same.
    Others(Uuid),
}

/// Writes down what a clone is about, so that it goes on after a restart. Must be done before anybody is told its id.
/// Blocks.
pub fn record_clone(
    app: &App,
    id: Uuid,
    subject: &Subject,
    from: &Volume,
    (to, dst): &Folder,
) -> Result<Claim, OpError> {
    let record = Record {
        source_volume: Some(from.name.clone()),
        target: subject.target.clone(),
        ..Record::new(Kind::Clone, &subject.vfid)
    };
    let filed = Filed::begin(&app.marks, to, dst.scope(), id, record)?;
    match filed.at().trash().and_then(|trash| trash.claim(dst, id, subject)) {
        Ok(None) => Ok(Claim::Ours(filed)),
        Ok(Some(other)) => filed.remove().map(|()| Claim::Others(other)),
        Err(error) => {
            filed.remove()?;
            Err(error)
        }
    }
}

/// Copies a folder, after [`record_clone`].
pub fn clone(app: &Arc<App>, task: &Arc<Task>, filed: Filed, (from, src): Folder, (to, dst): Folder) {
    let threads = app.config().limits.tree_parallelism;
    let at = filed.at().clone();
    app.begin(task, Some(filed), move |task| {
        let (source, target) = (Place { volume: &from, id: src }, Place { volume: &to, id: dst });
        vfolder::clone::run(&source, &target, &at, task, threads)
    });
}

/// Waits for a task of another process; its state as far as it is known then. A record that is gone is that of a task
/// that ended well, because others leave a note first.
pub async fn wait_for_other(
    volume: &Arc<Volume>,
    dst: VfolderId,
    id: Uuid,
    limit: Option<Duration>,
) -> Result<State, OpError> {
    let begin = Instant::now();
    loop {
        match volume.run(move |volume| outcome_of(volume, &dst, id)).await? {
            None => return Ok(State::Done),
            Some(Some(Ended { outcome, .. })) => {
                return Ok(match outcome {
                    Outcome::Done => State::Done,
                    Outcome::Failed(message) => State::Failed(message),
                    Outcome::Cancelled => State::Cancelled,
                });
            }
            Some(None) if limit.is_some_and(|limit| begin.elapsed() >= limit) => return Ok(State::Running),
            Some(None) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Nothing if the record is gone, else how the task ended, if it did.
fn outcome_of(volume: &Volume, dst: &VfolderId, id: Uuid) -> Result<Option<Option<Ended>>, OpError> {
    let Some(trash) = super::journal::Trash::existing(volume.holder(dst.scope())?)? else { return Ok(None) };
    match trash.read(id) {
        Ok(_) => Ok(Some(trash.read_ended(id))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl App {
    /// Runs a registered task. Its end is told to managers where the configuration says how.
    pub fn begin<F>(self: &Arc<Self>, task: &Arc<Task>, filed: Option<Filed>, work: F)
    where
        F: FnOnce(&Task) -> Result<(), OpError> + Send + 'static,
    {
        if let Some(outbox) = self.outbox.as_ref().filter(|_| !filed.as_ref().is_some_and(|filed| filed.told))
        {
            outbox.begun(task);
        }
        self.tasks.start(task, Ending::new(self, filed), work);
    }

    /// Says that a manager will wait in vain, where one does.
    pub fn warn_untold(&self, subject: &Subject) {
        let waits = match self.config().agent.manager_version {
            Some(version) if subject.kind == Kind::Clone => !version.takes_clone_reply_for_done(),
            Some(version) => version.waits_for_deletion_events(),
            None => true,
        };
        if self.outbox.is_none() && waits && subject.vfid.contains('/') {
            tracing::warn!(
                vfid = subject.vfid, kind = ?subject.kind,
                "managers from 24.12 on are not told how this ends and keep the folder in its state for ever: \
                 name the site's Valkey in [events], or an older manager in agent.manager-version"
            );
        }
    }
}
