//! Going through a tree depth first, one directory entry at a time.
//!
//! The caller decides what to do with each entry, which directories to enter, and what to keep for each level (`T`).
//! A level whose directory had to be closed remembers its position in the directory and reads on from there.

use std::io;
use std::sync::Arc;

use rustix::fd::AsFd as _;

use super::report::Problem;
use super::stack::DirStack;
use crate::fs::{Batch, Dir, Entry, Name, RelPath, Stat};

#[derive(Debug)]
pub(super) struct Descent<T> {
    stack: DirStack,
    current: Level<T>,
    /// Those of the directories above, the root's first: as many as the stack has levels.
    above: Vec<Level<T>>,
}

#[derive(Debug)]
struct Level<T> {
    batch: Batch,
    /// Where to read on: after the last entry that was handed out.
    position: u64,
    data: T,
}

/// What [`Descent::leave`] came back with.
#[derive(Debug)]
pub(super) struct Left<T> {
    /// The name of the directory that was left, in the one arrived at unless that was lost.
    pub(super) name: Name,
    /// What was kept for it.
    pub(super) data: T,
    /// Whether directories above it can't be found again and are skipped.
    pub(super) lost: bool,
}

// === impl Descent ===

impl<T: Default> Descent<T> {
    /// Starts in `root`, with a read position of its own; `path` is where that is in the whole operation.
    pub(super) fn new(root: &Dir, path: Vec<u8>) -> io::Result<Descent<T>> {
        let root = Arc::new(root.open_dir_nofollow(&RelPath::root())?);
        Ok(Descent { stack: DirStack::new(root, path), current: Level::default(), above: Vec::new() })
    }

    /// The directory it is in.
    pub(super) fn dir(&self) -> &Arc<Dir> {
        self.stack.top()
    }

    /// How far below the root.
    pub(super) fn depth(&self) -> usize {
        self.stack.depth()
    }

    /// The way from the root, and the paths for messages.
    pub(super) fn stack(&self) -> &DirStack {
        &self.stack
    }

    /// What is kept for the current directory.
    pub(super) fn data(&mut self) -> &mut T {
        &mut self.current.data
    }

    /// The next entry of the current directory; `None` at its end, and after an error.
    pub(super) fn next(&mut self) -> Option<io::Result<Entry>> {
        let next = self.current.batch.next(self.stack.top().as_fd());
        if let Some(Ok(entry)) = &next {
            self.current.position = entry.next;
        }
        next
    }

    /// Goes down into `dir`, which is the entry `name` of the current directory.
    pub(super) fn enter(&mut self, name: Name, stat: &Stat, dir: Dir) {
        self.above.push(std::mem::take(&mut self.current));
        if let Some(closed) = self.stack.push(name, stat.id(), dir)
            && let Some(level) = self.above.get_mut(closed)
        {
            level.batch = Batch::default();
        }
    }

    /// Goes up; `None` at the root.
    pub(super) fn leave(&mut self) -> Option<Left<T>> {
        let popped = self.stack.pop()?;
        self.above.truncate(self.stack.depth() + 1);
        let level = std::mem::replace(&mut self.current, self.above.pop()?);
        if popped.reopened {
            self.current.batch = Batch::resuming(self.stack.top().as_fd(), self.current.position);
        }
        Some(Left { name: popped.name, data: level.data, lost: popped.lost > 0 })
    }

    /// A problem with an entry of the current directory, or with that directory itself.
    pub(super) fn problem(&self, name: Option<&Name>, action: &'static str, cause: io::Error) -> Problem {
        Problem { path: self.stack.shown(name), action, cause }
    }
}

impl<T: Default> Default for Level<T> {
    fn default() -> Level<T> {
        Level { batch: Batch::default(), position: 0, data: T::default() }
    }
}

/// Opens the directory `name` of `parent` and looks at it; `None` when it is gone or not a directory any more.
pub(super) fn open_entered(parent: &Dir, name: &Name) -> io::Result<Option<(Dir, Stat)>> {
    use rustix::io::Errno;
    match parent.open_child(name) {
        Ok(dir) => {
            let stat = dir.stat_self()?;
            Ok(Some((dir, stat)))
        }
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}
