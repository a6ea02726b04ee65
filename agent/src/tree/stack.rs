//! The directories from the root of an operation down to where it is, with a bounded number of them open.
//!
//! When too many are open, the ones closest to the root (but never the root itself) are closed, and opened again on
//! the way back: by `..`, if that is still the directory that was left, else from the root, name by name. Every
//! handle so regained is compared with what was recorded, so a directory that someone moves is lost, never confused.

use std::io;
use std::sync::Arc;

use crate::fs::{Dir, Escaped, FileId, Name};

/// Directories open at one time in one stack, besides the root.
const OPEN: usize = 24;
/// Longest path shown to people, in bytes; a tree may be deeper than any path is long.
const SHOWN: usize = 4096;

#[derive(Debug)]
pub(super) struct DirStack {
    root: Arc<Dir>,
    /// The path of the top relative to the root of the whole operation, of which this may be a part.
    path: Vec<u8>,
    levels: Vec<Level>,
    /// Levels from here on are open, those before are closed.
    first_open: usize,
}

#[derive(Debug)]
struct Level {
    name: Name,
    id: FileId,
    dir: Option<Arc<Dir>>,
    /// The length of the path of the directory above.
    above: usize,
}

/// What [`DirStack::pop`] came back with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Popped {
    /// The name of the directory that was left.
    pub(super) name: Name,
    /// How many directories above it are gone too, because they can't be found again.
    pub(super) lost: usize,
    /// Whether the directory arrived at had to be opened again, so that its read position is the start.
    pub(super) reopened: bool,
}

// === impl DirStack ===

impl DirStack {
    /// Starts in `root`, whose path in the whole operation is `path`.
    pub(super) fn new(root: Arc<Dir>, path: Vec<u8>) -> DirStack {
        DirStack { path, root, levels: Vec::new(), first_open: 0 }
    }

    /// Where the operation is.
    pub(super) fn top(&self) -> &Arc<Dir> {
        self.levels.last().and_then(|level| level.dir.as_ref()).unwrap_or(&self.root)
    }

    /// Levels below the root.
    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes down into `dir`, an entry `name` of the top. Returns the depth of the level that was closed for it.
    pub(super) fn push(&mut self, name: Name, id: FileId, dir: Dir) -> Option<usize> {
        let above = self.path.len();
        append(&mut self.path, &name);
        self.levels.push(Level { name, id, dir: Some(Arc::new(dir)), above });
        if self.levels.len() - self.first_open <= OPEN {
            return None;
        }
        self.levels.get_mut(self.first_open)?.dir = None;
        self.first_open += 1;
        Some(self.first_open)
    }

    /// Goes up; nothing at the root.
    pub(super) fn pop(&mut self) -> Option<Popped> {
        let left = self.levels.pop()?;
        self.path.truncate(left.above);
        let depth = self.levels.len();
        let reopened = depth > 0 && depth == self.first_open;
        let mut lost = 0;
        if reopened && self.reopen_top(left.dir.as_deref()).is_err() {
            self.find_again();
            lost = depth - self.levels.len();
        }
        self.first_open = self.first_open.min(self.levels.len().saturating_sub(1));
        Some(Popped { name: left.name, lost, reopened })
    }

    fn reopen_top(&mut self, child: Option<&Dir>) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let top = self.levels.last_mut().ok_or_else(gone)?;
        let dir = child.ok_or_else(gone)?.open_parent()?;
        if dir.stat_self()?.id() != top.id {
            return Err(gone());
        }
        top.dir = Some(Arc::new(dir));
        Ok(())
    }

    /// Walks down from the root as far as the recorded directories are still there, and forgets the rest.
    fn find_again(&mut self) {
        let mut found: Option<Arc<Dir>> = None;
        let mut depth = 0;
        for level in &self.levels {
            let parent = found.as_ref().unwrap_or(&self.root);
            let Some(dir) = reopen_child(parent, level) else { break };
            found = Some(Arc::new(dir));
            depth += 1;
        }
        if let Some(lost) = self.levels.get(depth) {
            self.path.truncate(lost.above);
        }
        self.levels.truncate(depth);
        if let Some(top) = self.levels.last_mut() {
            top.dir = found;
        }
    }

    /// The path of the top, or of its entry `name`, relative to the root of the whole operation; empty for that root.
    pub(super) fn path(&self, name: Option<&Name>) -> Vec<u8> {
        let mut path = self.path.clone();
        if let Some(name) = name {
            append(&mut path, name);
        }
        path
    }

    /// [`DirStack::path`] for people: escaped and not endless.
    pub(super) fn shown(&self, name: Option<&Name>) -> String {
        let path = self.path(name);
        match path.get(..SHOWN) {
            Some(start) => format!("{}...", Escaped(start)),
            None if path.is_empty() => ".".to_owned(),
            None => Escaped(&path).to_string(),
        }
    }
}

fn append(path: &mut Vec<u8>, name: &Name) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
}

fn reopen_child(parent: &Dir, level: &Level) -> Option<Dir> {
    let dir = parent.open_child(&level.name).ok()?;
    (dir.stat_self().ok()?.id() == level.id).then_some(dir)
}
