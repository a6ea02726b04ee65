//! Deletes a vfolder: it vanishes at once by a rename into the trash, and is purged as a task.
//!
//! The rename stays within the file system and the quota scope. Where it cannot (a mount point inside the
//! path), the folder is purged in its place.

use std::io;

use common::id::VfolderId;
use uuid::Uuid;

use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Replace};
use crate::tasks::journal::{Record, Trash};
use crate::tasks::{Kind, Task};
use crate::tree::{Control, remove_tree};
use crate::volume::{Volume, vfolder_path};

/// Takes the folder out of sight. Whether there was one; if so, [`purge`] must follow.
pub fn hide(volume: &Volume, id: &VfolderId, vfid: &str, task: Uuid) -> Result<bool, OpError> {
    let path = vfolder_path(id)?;
    let Some((parent, name)) = place(volume, &path)? else { return Ok(false) };
    let stat = match parent.stat(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        stat => stat.map_err(|e| OpError::fs(e, &path))?,
    };
    if stat.kind != FileKind::Dir {
        return Err(OpError::Refused {
            reason: "what stands at the folder's place is no directory; nothing was deleted".into(),
            paths: vec![path.to_string()],
        });
    }
    let record = Record { kind: Kind::Delete, vfid: vfid.into(), source_volume: None, target: None };
    let trash = Trash::begin(&volume.holder(id.scope())?, task, &record)?;
    match parent.rename(&name, trash.dir(), &Trash::entry(task)?, Replace::No) {
        Ok(()) => remove_prefixes(volume, &path),
        // Purged in place: the record names the folder.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        Err(error) => {
            trash.remove(task)?;
            if error.kind() == io::ErrorKind::NotFound {
                return Ok(false);
            }
            return Err(OpError::fs(error, &path));
        }
    }
    Ok(true)
}

/// Removes what [`hide`] put aside, and whatever a purge that was interrupted left.
pub fn purge(volume: &Volume, id: &VfolderId, task: &Task, threads: usize) -> Result<(), OpError> {
    let Some(trash) = Trash::existing(volume.holder(id.scope())?)? else { return Ok(()) };
    let hidden = Trash::entry(task.id)?;
    if trash.dir().stat(&hidden).is_ok() {
        complete(trash.dir(), &hidden, &task.control, threads)?;
    } else {
        purge_in_place(volume, id, task, threads)?;
    }
    trash.remove(task.id)
}

fn purge_in_place(volume: &Volume, id: &VfolderId, task: &Task, threads: usize) -> Result<(), OpError> {
    let path = vfolder_path(id)?;
    let Some((parent, name)) = place(volume, &path)? else { return Ok(()) };
    complete(&parent, &name, &task.control, threads)?;
    remove_prefixes(volume, &path);
    Ok(())
}

/// Removes a tree; anything that cannot be removed is an error that names it.
pub fn complete(parent: &Dir, name: &Name, control: &Control, threads: usize) -> Result<(), OpError> {
    let report = remove_tree(parent, name, control, threads)?;
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
