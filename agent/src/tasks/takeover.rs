//! Going on with tasks that their process did not end: the last one's at a start, and those of other processes that
//! serve the same volume, as soon as they are found dead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::id::QuotaScopeId;
use uuid::Uuid;

use super::ending::{discard, stays};
use super::journal::{Left, Record, Trash};
use super::{Filed, Kind, Marks, work};
use crate::app::App;
use crate::error::OpError;
use crate::events::Entry;
use crate::volume::Volume;

/// How often the marks of the others are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// With leases nobody can be taken over at a start yet, so the records are looked through now and then: each so many
/// looks.
const THOROUGH: u64 = 60;

/// A record whose process is dead, and which is ours now.
struct Found {
    left: Left,
    filed: Filed,
}

/// Finds what was begun and not ended on every volume, and goes on with it. A volume that cannot be read is looked at
/// again later.
pub async fn resume(app: &Arc<App>) {
    let volumes = app.volumes.iter().map(|volume| async move {
        if let Err(error) = take_over(app, volume, true).await {
            tracing::warn!(volume = volume.name, %error, "interrupted tasks could not be looked for");
        }
    });
    futures_util::future::join_all(volumes).await;
}

/// Keeps looking for other processes that died; never returns. Each volume by itself, so that one that hangs does not
/// hold up the others.
pub async fn watch(app: Arc<App>) {
    let volumes = app.volumes.iter().map(|volume| async {
        for look in 1_u64.. {
            tokio::time::sleep(LOOK).await;
            let whole = app.leases.are_on() && look.is_multiple_of(THOROUGH);
            if let Err(error) = take_over(&app, volume, whole).await {
                tracing::debug!(volume = volume.name, %error, "other agents could not be looked for");
            }
        }
    });
    futures_util::future::join_all::<_>(volumes).await;
}

/// Waits for a volume that hangs, however long; it keeps no other from being looked at.
async fn take_over(app: &Arc<App>, volume: &Arc<Volume>, whole: bool) -> Result<(), OpError> {
    let (app, at) = (Arc::clone(app), Arc::clone(volume));
    let going_on = volume.spawn(move || {
        for Found { left, filed } in find(&app, &at, whole)? {
            go_on_or_say(&app, &at, left, filed);
        }
        Ok(())
    });
    going_on.await.await.unwrap_or(Err(OpError::Inside))
}

/// Goes on with a task that failed because its volume was lost, when that is back.
pub(super) fn go_on_later(app: Arc<App>, filed: Filed, id: Uuid) {
    let volume = Arc::clone(filed.at().volume());
    tracing::warn!(volume = volume.name, task = %id, "the task goes on when its volume is back");
    tokio::runtime::Handle::current().spawn(async move {
        while volume.answer().await.error.is_some() {
            tokio::time::sleep(LOOK).await;
        }
        let at = Arc::clone(&volume);
        let going_on = volume.spawn(move || match filed.at().read() {
            Ok(record) => go_on_or_say(&app, &at, Left { id, record, ended: None }, filed),
            Err(error) => tracing::error!(task = %id, %error, "task cannot go on"),
        });
        if going_on.await.await.is_err() {
            tracing::error!(task = %id, "going on with a task panicked");
        }
    });
}

fn go_on_or_say(app: &Arc<App>, volume: &Arc<Volume>, left: Left, filed: Filed) {
    let (id, record) = (left.id, left.record.clone());
    match go_on(app, volume, left, filed) {
        Ok(()) => tracing::info!(task = %id, kind = ?record.kind, vfid = record.vfid, "task goes on"),
        Err(error) => tracing::error!(task = %id, vfid = record.vfid, %error, "task cannot go on"),
    }
}

/// Takes the place of dead processes and finds their records, the oldest first. `whole` looks for processes in the
/// records too, where a power failure may have left no mark.
fn find(app: &App, volume: &Arc<Volume>, whole: bool) -> Result<Vec<Found>, OpError> {
    let marks = &app.marks;
    let mut owners: BTreeSet<Uuid> = marks.others(volume, app.leases.are_on())?.into_iter().collect();
    if whole {
        each_trash(volume, |_, trash| {
            owners.extend(trash.owners()?);
            Ok(())
        })?;
    }
    let mut adopted = BTreeSet::new();
    for owner in owners {
        if owner != marks.own() && app.leases.take_agent(owner) && marks.adopt(volume, owner)? {
            adopted.insert(owner);
        }
    }
    if adopted.is_empty() {
        return Ok(Vec::new());
    }
    let found = left_by(&adopted, marks, volume);
    adopted.into_iter().for_each(|owner| marks.release(volume, owner));
    found
}

/// What the dead left to do, and nothing else: what they only began to write is removed. To be called when their marks
/// were taken, because a process may have ended its tasks just before it died.
fn left_by(dead: &BTreeSet<Uuid>, marks: &Arc<Marks>, volume: &Arc<Volume>) -> Result<Vec<Found>, OpError> {
    let mut found: Vec<Found> = Vec::new();
    each_trash(volume, |scope, trash| {
        for left in trash.unfinished()?.into_iter().filter(|left| dead.contains(&left.record.owner)) {
            marks.add(volume, left.record.owner);
            let filed = Filed::found(marks, volume, scope.copied(), left.record.owner, left.id);
            found.push(Found { left, filed });
        }
        trash.clean(dead)
    })?;
    found.sort_by_key(|found| found.left.ended.as_ref().map_or(found.left.record.begun, |ended| ended.at));
    Ok(found)
}

fn each_trash(
    volume: &Volume,
    mut visit: impl FnMut(Option<&QuotaScopeId>, &Trash) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let scopes = volume.scopes()?;
    for scope in scopes.iter().map(Some).chain([None]) {
        let Ok(holder) = volume.holder(scope) else { continue };
        if let Some(trash) = Trash::existing(holder)? {
            visit(scope, &trash)?;
        }
    }
    Ok(())
}

fn go_on(app: &Arc<App>, volume: &Arc<Volume>, left: Left, mut filed: Filed) -> Result<(), OpError> {
    let Left { id, record, ended } = left;
    let subject = record.subject(&volume.name);
    match (ended, &app.outbox) {
        (Some(ended), Some(outbox)) if !ended.told => {
            outbox.push(Entry { id, subject, ended, filed: Some(filed) });
            return Ok(());
        }
        (Some(ended), _) if stays(record.kind, &ended) => filed.told = ended.told,
        (Some(_), _) => {
            discard(Some(filed));
            return Ok(());
        }
        (None, _) => {}
    }
    if record.nothing {
        app.begin(&app.tasks.resume(id, subject), Some(filed), |_| Ok(()));
        return Ok(());
    }
    let folder = |vfid: &str| vfid.parse().map_err(|error| unreadable(vfid, &error));
    match (record.kind, &record.target) {
        (Kind::Delete, _) => {
            let folder = (Arc::clone(volume), folder(&record.vfid)?);
            work::purge(app, &app.tasks.resume(id, subject), Some(filed), folder);
        }
        (Kind::Clone, Some(target)) => go_on_cloning(app, volume, id, &record, folder(target)?, filed)?,
        (Kind::DeleteFiles, _) => {
            // What was to be deleted is not recorded: it may be long, and the files are still there to be seen.
            let interrupted =
                || OpError::Refused { reason: "the agent was stopped meanwhile".into(), paths: vec![] };
            app.begin(&app.tasks.resume(id, subject), Some(filed), move |_| Err(interrupted()));
        }
        (Kind::Clone, None) => {
            return Err(OpError::Refused { reason: "its record is incomplete".into(), paths: vec![] });
        }
    }
    Ok(())
}

fn go_on_cloning(
    app: &Arc<App>,
    volume: &Arc<Volume>,
    id: Uuid,
    record: &Record,
    target: common::id::VfolderId,
    filed: Filed,
) -> Result<(), OpError> {
    let subject = record.subject(&volume.name);
    let source = record.vfid.parse().map_err(|error| unreadable(&record.vfid, &error))?;
    if let Some(other) = filed.at().trash()?.claim(&target, id, &subject)? {
        tracing::info!(task = %id, %other, "another task makes the same clone");
        return filed.remove();
    }
    let from = app.volumes.real(record.source_volume.as_deref().unwrap_or(&volume.name))?;
    let task = app.tasks.resume(id, subject);
    work::clone(app, &task, filed, (from, source), (Arc::clone(volume), target));
    Ok(())
}

fn unreadable(vfid: &str, error: &common::id::IdError) -> OpError {
    OpError::Refused { reason: format!("its record names {vfid:?}: {error}"), paths: vec![] }
}
