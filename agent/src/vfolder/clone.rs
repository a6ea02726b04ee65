//! Copies a vfolder. The copy is built in the trash of its scope and appears at its place as a whole.

use std::io;

use common::id::VfolderId;

use super::create::in_parent;
use super::delete::{complete, remove_prefixes};
use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Replace, project, set_project};
use crate::tasks::journal::Trash;
use crate::tasks::{RecordAt, Task};
use crate::tree::{Control, CopyOptions, copy};
use crate::volume::{Volume, vfolder_path};

/// The staging directory of uploads: half-made files, not part of a folder's content.
const STAGING: &[u8] = b".upload";

/// A folder and the volume it lies in.
pub struct Place<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// The folder.
    pub id: VfolderId,
}

/// Checks that a clone can begin: the source exists, and nothing but an empty directory stands at the target.
pub fn check(source: &Place<'_>, target: &Place<'_>) -> Result<(), OpError> {
    source.volume.vfolder(&source.id)?;
    match target.volume.vfolder(&target.id) {
        Err(OpError::VfolderNotFound(_) | OpError::ScopeNotFound(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(dir) => empty(&dir, &vfolder_path(&target.id)?),
    }
}

fn empty(dir: &Dir, path: &RelPath) -> Result<(), OpError> {
    match dir.entries().map_err(|e| OpError::fs(e, path))?.next() {
        None => Ok(()),
        Some(_) => Err(OpError::Fs {
            source: io::Error::from_raw_os_error(nix::libc::EEXIST),
            paths: vec![path.to_string()],
        }),
    }
}

/// Does the copy, whose record is written already. After a failure nothing of the copy is left.
pub fn run(
    source: &Place<'_>,
    target: &Place<'_>,
    record: &RecordAt,
    task: &Task,
    threads: usize,
) -> Result<(), OpError> {
    let trash = record.trash()?;
    let name = Trash::entry(task.id)?;
    if record.read()?.built {
        return put_in_place(target, &trash, &name);
    }
    let built = build(source, target, &trash, task, threads)
        .and_then(|()| record.update(|record| record.built = true))
        .and_then(|()| publish(target, &trash, &name));
    if built.is_err() {
        // A cancelled task's control would stop the cleaning too.
        complete(&*target.volume.backend.trees, trash.dir(), &name, &Control::new(), threads)?;
        remove_prefixes(target.volume, &vfolder_path(&target.id)?);
    }
    built
}

/// Goes on with a copy that was complete when the process ended: it is at its place, or on its way there.
fn put_in_place(target: &Place<'_>, trash: &Trash, name: &Name) -> Result<(), OpError> {
    match trash.dir().stat(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => target.volume.vfolder(&target.id).map(drop),
        _ => publish(target, trash, name),
    }
}

fn build(
    source: &Place<'_>,
    target: &Place<'_>,
    trash: &Trash,
    task: &Task,
    threads: usize,
) -> Result<(), OpError> {
    let from = source.volume.vfolder(&source.id)?;
    let trees = &*target.volume.backend.trees;
    let name = Trash::entry(task.id)?;
    // What an interrupted attempt left.
    complete(trees, trash.dir(), &name, &Control::new(), threads)?;
    let used = source.volume.backend.trees.usage(&from, &Control::new(), threads)?;
    task.control.set_totals(used.entries, used.apparent_bytes);
    enough_space(used.allocated_bytes, target)?;
    trash.dir().mkdir(&name, 0o700).map_err(|e| OpError::fs(e, &RelPath::root()))?;
    let own = RelPath::root().child(&name).map_err(|e| OpError::path(name.as_bytes(), &e))?;
    let to = trash.dir().open_dir_nofollow(&own).map_err(|e| OpError::fs(e, &own))?;
    keep_limit(target, &to)?;
    let skip = Name::new(STAGING).map_err(|e| OpError::path(STAGING, &e))?;
    let options = CopyOptions { threads, only_top: None, skip_top: vec![skip], sync: true };
    // A backend's own way of copying only knows its own volume.
    let report = if source.volume.name == target.volume.name {
        trees.copy(&from, &to, &options, &task.control)?
    } else {
        copy(&from, &to, &options, &task.control)?
    };
    for (what, problems) in [("left out", &report.skipped), ("not kept", &report.imperfect)] {
        if !problems.is_empty() {
            tracing::warn!(task = %task.id, count = problems.count(), %problems, "{what} while cloning");
        }
    }
    Ok(())
}

/// A folder that was made before, empty, may have a limit of its own. The copy takes its place, so it must have the same
/// limit, from its first byte on.
fn keep_limit(target: &Place<'_>, to: &Dir) -> Result<(), OpError> {
    let failed = |error| OpError::fs(error, &RelPath::root());
    let made = match target.volume.vfolder(&target.id) {
        Err(error) if error.is_not_found() => return Ok(()),
        made => made?,
    };
    target.volume.backend.trees.inherit(&made, to).map_err(failed)?;
    match (project(&made).map_err(failed)?, project(to).map_err(failed)?) {
        (Some(wanted), Some(found)) if wanted != found => set_project(to, wanted).map_err(failed),
        _ => Ok(()),
    }
}

/// Refuses a copy that would not fit into what is limited around it: the file system, the scope, a folder that stands
/// at its place already.
fn enough_space(needed: u64, target: &Place<'_>) -> Result<(), OpError> {
    let mut places = vec![target.volume.holder(target.id.scope())?];
    places.extend(target.volume.vfolder(&target.id).ok());
    for place in places {
        let free = target.volume.backend.trees.room(&place).map_err(|e| OpError::fs(e, &RelPath::root()))?;
        if needed > free {
            return Err(OpError::NoSpaceForClone { needed, free });
        }
    }
    Ok(())
}

/// Moves the finished copy to its place; an empty directory there is replaced.
fn publish(target: &Place<'_>, trash: &Trash, name: &Name) -> Result<(), OpError> {
    let path = vfolder_path(&target.id)?;
    let put = |parent: &Dir, last: &Name| {
        if parent.stat(last).is_ok_and(|stat| stat.kind != FileKind::Dir) {
            return Err(io::Error::from_raw_os_error(nix::libc::EEXIST));
        }
        trash.dir().rename(name, parent, last, Replace::Yes)
    };
    let parent = in_parent(&target.volume.root()?, &path, put)?;
    parent.sync().map_err(|e| OpError::fs(e, &path))
}
