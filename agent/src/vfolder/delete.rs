//! Deletes a vfolder: it vanishes at once by a rename into the trash, and is purged as a task.
//!
//! The rename stays within the file system and the quota scope. Where it cannot (a mount point inside the
//! path), or where the scope is so full that the deletion cannot even be noted in it, the folder is purged in its place.

use std::io;
use std::sync::Arc;

use common::id::VfolderId;
use uuid::Uuid;

use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Replace};
use crate::tasks::journal::{Record, Trash};
use crate::tasks::{Filed, Kind, Marks, RecordAt, Task};
use crate::tree::Control;
use crate::volume::{Trees, Volume, vfolder_path};

/// What became of a folder that is to be deleted.
pub enum Hidden {
    /// There was none.
    Missing,
    /// A record says where it is now; [`purge`] must follow.
    Noted(Filed),
    /// It is where it was, and there was no room for a record; [`purge`] must follow.
    Unnoted,
}

/// Takes the folder out of sight.
pub fn hide(
    marks: &Arc<Marks>,
    volume: &Arc<Volume>,
    id: &VfolderId,
    vfid: &str,
    task: Uuid,
) -> Result<Hidden, OpError> {
    let path = vfolder_path(id)?;
    let Some((parent, name)) = place(volume, &path)? else { return Ok(Hidden::Missing) };
    let stat = match parent.stat(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Hidden::Missing),
        stat => stat.map_err(|e| OpError::fs(e, &path))?,
    };
    if stat.kind != FileKind::Dir {
        return Err(OpError::Refused {
            reason: "what stands at the folder's place is no directory; nothing was deleted".into(),
            paths: vec![path.to_string()],
        });
    }
    let record = Record::new(Kind::Delete, vfid);
    let filed = match Filed::begin(marks, volume, id.scope(), task, record.clone()) {
        Err(error) if error.is_full() => return Ok(note_elsewhere(marks, volume, task, record)),
        begun => begun?,
    };
    match move_aside(volume, &path, (&parent, &name), filed.at(), task) {
        Ok(true) => Ok(Hidden::Noted(filed)),
        outcome => {
            filed.remove()?;
            match outcome {
                // A longer directory may need a block.
                Err(error) if error.is_full() => Ok(note_elsewhere(marks, volume, task, record)),
                outcome => outcome.map(|_| Hidden::Missing),
            }
        }
    }
}

/// Moves the folder into the trash, or notes that it has to be purged where it stands. Whether it is there.
fn move_aside(
    volume: &Volume,
    path: &RelPath,
    (parent, name): (&Dir, &Name),
    record: &RecordAt,
    task: Uuid,
) -> Result<bool, OpError> {
    match parent.rename(name, record.trash()?.dir(), &Trash::entry(task)?, Replace::No) {
        Ok(()) => remove_prefixes(volume, path),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            record.update(|record| record.in_place = true)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(OpError::fs(error, path)),
    }
    Ok(true)
}

/// Deleting is how room is made, so it must not need any. The volume's own trash lies outside the scope's limits; where
/// there is no room either, the deletion happens all the same and is only lost when the service ends before.
fn note_elsewhere(marks: &Arc<Marks>, volume: &Arc<Volume>, task: Uuid, record: Record) -> Hidden {
    let record = Record { in_place: true, ..record };
    match Filed::begin(marks, volume, None, task, record.clone()) {
        Ok(filed) => Hidden::Noted(filed),
        Err(error) => {
            let vfid = record.vfid;
            tracing::warn!(%task, vfid, %error, "no room to note a deletion, which a stop of the service would end");
            Hidden::Unnoted
        }
    }
}

/// Removes what [`hide`] put aside, and whatever a purge that was interrupted left. `and_then` follows when nothing of
/// the folder is left; while it fails, the record is to stay, so that the next start tries again.
pub fn purge(
    volume: &Volume,
    id: &VfolderId,
    record: Option<&RecordAt>,
    task: &Task,
    threads: usize,
    and_then: impl FnOnce() -> Result<(), OpError>,
) -> Result<(), OpError> {
    let Some(record) = record else {
        purge_in_place(volume, id, task, threads)?;
        return and_then();
    };
    let (trash, entry) = (record.trash()?, Trash::entry(task.id)?);
    let in_place = || record.read().map(|record| record.in_place);
    if trash.dir().stat(&entry).is_err() && !in_place()? {
        // The process died between writing the record and moving the folder, or after purging it.
        let path = vfolder_path(id)?;
        if let Some((parent, name)) = place(volume, &path)? {
            move_aside(volume, &path, (&parent, &name), record, task.id)?;
        }
    }
    complete(&*volume.backend.trees, trash.dir(), &entry, &task.control, threads)?;
    if in_place()? {
        purge_in_place(volume, id, task, threads)?;
    }
    and_then()
}

fn purge_in_place(volume: &Volume, id: &VfolderId, task: &Task, threads: usize) -> Result<(), OpError> {
    let path = vfolder_path(id)?;
    let Some((parent, name)) = place(volume, &path)? else { return Ok(()) };
    complete(&*volume.backend.trees, &parent, &name, &task.control, threads)?;
    remove_prefixes(volume, &path);
    Ok(())
}

/// Removes a tree; anything that cannot be removed is an error that names it.
pub fn complete(
    trees: &dyn Trees,
    parent: &Dir,
    name: &Name,
    control: &Control,
    threads: usize,
) -> Result<(), OpError> {
    let report = trees.remove(parent, name, control, threads)?;
    if report.leftovers.is_empty() {
        return Ok(());
    }
    Err(OpError::Refused {
        reason: format!("{} entries could not be removed: {}", report.leftovers.count(), report.leftovers),
        paths: report.leftovers.first().iter().map(|problem| problem.path.clone()).collect(),
    })
}

/// The directory that holds the folder, and the folder's name in it; nothing if the directory is missing.
fn place(volume: &Volume, path: &RelPath) -> Result<Option<(Dir, Name)>, OpError> {
    let Some((parent, name)) = path.split_last() else { return Ok(None) };
    match volume.root()?.open_dir_nofollow(&parent) {
        Ok(dir) => Ok(Some((dir, name.clone()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpError::fs(error, &parent)),
    }
}

/// Removes the two prefix directories where they have become empty; the scope's own directory stays.
pub fn remove_prefixes(volume: &Volume, path: &RelPath) {
    let mut path = path.clone();
    for _ in 0..2 {
        let Some((prefix, _)) = path.split_last() else { return };
        let Ok(Some((parent, name))) = place(volume, &prefix) else { return };
        // Not empty: other folders share the prefix.
        if parent.rmdir(&name).is_err() {
            return;
        }
        path = prefix;
    }
}
