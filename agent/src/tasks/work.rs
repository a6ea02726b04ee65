//! What tasks do, and how those that a stop interrupted go on at the next start.

use std::sync::Arc;

use common::id::{QuotaScopeId, ScopeKind, VfolderId};
use uuid::Uuid;

use super::journal::{Record, Trash};
use super::{Kind, Task};
use crate::app::App;
use crate::error::OpError;
use crate::fs::{Dir, RelPath};
use crate::vfolder::{self, clone::Place};
use crate::volume::Volume;

/// A vfolder and the volume it lies in.
pub type Folder = (Arc<Volume>, VfolderId);

/// Purges a folder that was hidden before.
pub fn purge(app: &App, task: &Arc<Task>, (volume, id): Folder) {
    let threads = app.config.limits.delete_parallelism;
    app.tasks.start(task, move |task| vfolder::delete::purge(&volume, &id, task, threads));
}

/// Writes down what a clone is about, so that it goes on after a restart. Must be done before anybody is told
/// its id.
pub fn record_clone(task: &Task, from: &Volume, (to, dst): &Folder) -> Result<(), OpError> {
    let record = Record {
        kind: Kind::Clone,
        vfid: task.subject.vfid.clone(),
        source_volume: Some(from.name.clone()),
        target: task.subject.target.clone(),
    };
    Trash::begin(&to.holder(dst.scope())?, task.id, &record).map(drop)
}

/// Copies a folder, after [`record_clone`].
pub fn clone(app: &App, task: &Arc<Task>, (from, src): Folder, (to, dst): Folder) {
    let threads = app.config.limits.tree_parallelism;
    app.tasks.start(task, move |task| {
        let (source, target) = (Place { volume: &from, id: src }, Place { volume: &to, id: dst });
        vfolder::clone::run(&source, &target, task, threads)
    });
}

/// Finds what was begun and not ended on every volume, and goes on with it. A volume that cannot be read is
/// left for the next start.
pub async fn resume(app: &Arc<App>) {
    for volume in app.volumes.iter() {
        let at = Arc::clone(volume);
        let found = match tokio::task::spawn_blocking(move || unfinished(&at)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(volume = volume.name, %error, "interrupted tasks could not be looked for");
                continue;
            }
            Err(_) => continue,
        };
        for (id, record) in found {
            match go_on(app, volume, id, &record) {
                Ok(()) => tracing::info!(task = %id, kind = ?record.kind, vfid = record.vfid, "task goes on"),
                Err(error) => tracing::error!(task = %id, vfid = record.vfid, %error, "task cannot go on"),
            }
        }
    }
}

fn unfinished(volume: &Volume) -> Result<Vec<(Uuid, Record)>, OpError> {
    let root = volume.root()?;
    let mut found = Vec::new();
    for holder in scopes(volume, &root)?.into_iter().chain([root]) {
        if let Some(trash) = Trash::existing(holder)? {
            found.extend(trash.unfinished()?);
        }
    }
    Ok(found)
}

/// The directories at the top that are named like quota scopes.
fn scopes(volume: &Volume, root: &Dir) -> Result<Vec<Dir>, OpError> {
    let mut scopes = Vec::new();
    for entry in root.entries().map_err(|e| OpError::fs(e, &RelPath::root()))? {
        let entry = entry.map_err(|e| OpError::fs(e, &RelPath::root()))?;
        let name = std::str::from_utf8(entry.name.as_bytes()).ok().filter(|name| name.len() == 32);
        // The kind is no part of the directory's name.
        let scope =
            name.and_then(|name| name.parse().ok()).map(|uuid| QuotaScopeId::new(ScopeKind::User, uuid));
        if let Some(scope) = scope {
            scopes.extend(volume.holder(Some(&scope)).ok());
        }
    }
    Ok(scopes)
}

fn go_on(app: &App, volume: &Arc<Volume>, id: Uuid, record: &Record) -> Result<(), OpError> {
    let folder = |vfid: &str| vfid.parse().map_err(|error| unreadable(vfid, &error));
    let target = record.target.as_deref();
    match (record.kind, target) {
        (Kind::Delete, _) => {
            let folder = (Arc::clone(volume), folder(&record.vfid)?);
            purge(app, &app.tasks.register(id, record.subject(&volume.name))?, folder);
        }
        (Kind::Clone, Some(target)) => {
            let source = app.volumes.real(record.source_volume.as_deref().unwrap_or(&volume.name))?;
            let (source, target) = ((source, folder(&record.vfid)?), (Arc::clone(volume), folder(target)?));
            clone(app, &app.tasks.register(id, record.subject(&volume.name))?, source, target);
        }
        (Kind::Clone | Kind::DeleteFiles, _) => {
            return Err(OpError::Refused { reason: "its record is incomplete".into(), paths: vec![] });
        }
    }
    Ok(())
}

fn unreadable(vfid: &str, error: &common::id::IdError) -> OpError {
    OpError::Refused { reason: format!("its record names {vfid:?}: {error}"), paths: vec![] }
}
