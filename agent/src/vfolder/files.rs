//! Changes single entries of a vfolder: make directories, move, delete.
//!
//! Parents are opened without following links, and what an operation is about is the entry itself, never
//! what a link points to.

use std::io;

use nix::libc;

use super::delete::complete;
use super::relocate::{End, relocate};
use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Replace, Stat};
use crate::tree::Control;
use crate::volume::{DIR_MODE, Trees};

/// Makes one directory. With `parents`, missing parents too; with `exist_ok`, one that exists is fine.
pub fn mkdir(folder: &Dir, path: &RelPath, parents: bool, exist_ok: bool) -> Result<(), OpError> {
    let Some((parent, name)) = path.split_last() else {
        return if exist_ok { Ok(()) } else { Err(errno(libc::EEXIST, path)) };
    };
    let made = if parents { folder.mkdir_all(&parent, DIR_MODE) } else { folder.open_dir_nofollow(&parent) };
    let parent = made.map_err(|e| OpError::fs(e, path))?;
    match parent.mkdir(name, DIR_MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && exist_ok => match parent.stat(name) {
            Ok(stat) if stat.kind == FileKind::Dir => Ok(()),
            _ => Err(OpError::fs(error, path)),
        },
        outcome => outcome.map_err(|e| OpError::fs(e, path)),
    }
}

/// Moves an entry as mv(1) does: into `to` where that is a directory, over it where it is a file. An entry of
/// the same name inside a directory is never replaced. Where it cannot be renamed, because a mount point or the border
/// of a quota lies in between, it is copied and then removed.
pub fn rename(folder: &Dir, from: &RelPath, to: &RelPath, threads: usize) -> Result<(), OpError> {
    let (from_dir, from_name) = parent(folder, from)?;
    let source = from_dir.stat(from_name).map_err(|e| OpError::fs(e, from))?;
    let (to_dir, to_name, replace) = match directory(folder, to)? {
        Some(dir) if same(&dir.stat_self().map_err(|e| OpError::fs(e, to))?, &source) => {
            return Err(into_itself(to));
        }
        Some(dir) => (dir, from_name, Replace::No),
        None => {
            let (dir, name) = parent(folder, to)?;
            (dir, name, Replace::Yes)
        }
    };
    let outcome = match from_dir.rename(from_name, &to_dir, to_name, replace) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let source = End { dir: &from_dir, name: from_name, path: from };
            relocate(&source, &End { dir: &to_dir, name: to_name, path: to }, replace, threads)
        }
        outcome => outcome.map_err(|error| OpError::fs(error, from)),
    };
    outcome.map_err(|error| match error {
        OpError::Fs { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            refused(format!("Destination path '{to}' already exists"), to)
        }
        OpError::Fs { source, .. } if source.kind() == io::ErrorKind::InvalidInput => into_itself(to),
        error => error,
    })
}

/// The directory that `to` is, if it is one; links are none.
fn directory(folder: &Dir, to: &RelPath) -> Result<Option<Dir>, OpError> {
    if to.is_root() {
        return folder.try_clone().map(Some).map_err(|e| OpError::fs(e, to));
    }
    let (parent, name) = parent(folder, to)?;
    match parent.stat(name) {
        Ok(stat) if stat.kind == FileKind::Dir => {
            folder.open_dir_nofollow(to).map(Some).map_err(|e| OpError::fs(e, to))
        }
        _ => Ok(None),
    }
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.dev, one.ino) == (other.dev, other.ino)
}

fn into_itself(to: &RelPath) -> OpError {
    refused("a directory cannot be moved into itself".into(), to)
}

fn refused(reason: String, path: &RelPath) -> OpError {
    OpError::Refused { reason, paths: vec![path.to_string()] }
}

/// The directory that holds an entry, and the entry's name. The folder's root has none.
fn parent<'a>(folder: &Dir, path: &'a RelPath) -> Result<(Dir, &'a Name), OpError> {
    let Some((parent, name)) = path.split_last() else { return Err(root_refused()) };
    let dir = folder.open_dir_nofollow(&parent).map_err(|e| OpError::fs(e, path))?;
    Ok((dir, name))
}

/// Checks a list of entries before anything is deleted: the root never, directories only with `recursive`.
pub fn check_delete(folder: &Dir, paths: &[RelPath], recursive: bool) -> Result<(), OpError> {
    for path in paths {
        match parent(folder, path).and_then(|(dir, name)| dir.stat(name).map_err(|e| OpError::fs(e, path))) {
            Ok(stat) if stat.kind == FileKind::Dir && !recursive => return Err(errno(libc::EISDIR, path)),
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes entries; those that are missing count as deleted. [`check_delete`] comes first.
pub fn delete(
    trees: &dyn Trees,
    folder: &Dir,
    paths: &[RelPath],
    control: &Control,
    threads: usize,
) -> Result<(), OpError> {
    for path in paths {
        match parent(folder, path) {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok((dir, name)) => remove(trees, &dir, name, path, control, threads)?,
        }
    }
    Ok(())
}

fn remove(
    trees: &dyn Trees,
    dir: &Dir,
    name: &Name,
    path: &RelPath,
    control: &Control,
    threads: usize,
) -> Result<(), OpError> {
    match dir.stat(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpError::fs(error, path)),
        Ok(stat) if stat.kind == FileKind::Dir => complete(trees, dir, name, control, threads),
        Ok(_) => dir.unlink(name).map_err(|e| OpError::fs(e, path)),
    }
}

fn root_refused() -> OpError {
    OpError::Refused {
        reason: "the folder's root cannot be moved or deleted".into(),
        paths: vec![".".into()],
    }
}

fn errno(number: i32, path: &RelPath) -> OpError {
    OpError::Fs { source: io::Error::from_raw_os_error(number), paths: vec![path.to_string()] }
}
