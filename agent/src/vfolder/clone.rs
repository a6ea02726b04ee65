//! Copies a vfolder. The copy is built in the trash of its scope and appears at its place as a whole.

use std::io;

use common::id::VfolderId;

use super::create::in_parent;
use super::delete::{complete, remove_prefixes};
use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Replace};
use crate::tasks::Task;
use crate::tasks::journal::Trash;
use crate::tree::{Control, CopyOptions, copy, usage};
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

/// Does the copy, whose record is written already, and removes the record. After a failure nothing of the copy
/// is left.
pub fn run(source: &Place<'_>, target: &Place<'_>, task: &Task, threads: usize) -> Result<(), OpError> {
    let trash = Trash::open(target.volume.holder(target.id.scope())?)?;
    let name = Trash::entry(task.id)?;
    let outcome = build(source, target, &trash, task, threads);
    if outcome.is_err() {
        // A cancelled task's control would stop the cleaning too.
        complete(trash.dir(), &name, &Control::new(), threads)?;
        remove_prefixes(target.volume, &vfolder_path(&target.id)?);
    }
    trash.remove(task.id)?;
    outcome
}

fn build(
    source: &Place<'_>,
    target: &Place<'_>,
    trash: &Trash,
    task: &Task,
    threads: usize,
) -> Result<(), OpError> {
    let from = source.volume.vfolder(&source.id)?;
    let name = Trash::entry(task.id)?;
    // What an interrupted attempt left.
    complete(trash.dir(), &name, &Control::new(), threads)?;
    enough_space(&from, trash.dir(), task, threads)?;
    trash.dir().mkdir(&name, 0o700).map_err(|e| OpError::fs(e, &RelPath::root()))?;
    let own = RelPath::root().child(&name).map_err(|e| OpError::path(name.as_bytes(), &e))?;
    let to = trash.dir().open_dir_nofollow(&own).map_err(|e| OpError::fs(e, &own))?;
    let skip = Name::new(STAGING).map_err(|e| OpError::path(STAGING, &e))?;
    let options = CopyOptions { threads, skip_top: vec![skip], sync: true };
    let report = copy(&from, &to, &options, &task.control)?;
    for (what, problems) in [("left out", &report.skipped), ("not kept", &report.imperfect)] {
        if !problems.is_empty() {
            tracing::warn!(task = %task.id, count = problems.count(), %problems, "{what} while cloning");
        }
    }
    publish(target, trash, &name)
}

/// Compares what the source holds with what is free. A source that cannot be measured passes.
fn enough_space(from: &Dir, at: &Dir, task: &Task, threads: usize) -> Result<(), OpError> {
    let used = usage(from, &Control::new(), threads)?;
    task.control.set_totals(used.entries, used.apparent_bytes);
    let free = at.statfs().map_err(|e| OpError::fs(e, &RelPath::root()))?.available;
    if used.allocated_bytes > free {
        return Err(OpError::NoSpaceForClone { needed: used.allocated_bytes, free });
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
