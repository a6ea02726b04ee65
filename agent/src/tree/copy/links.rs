//! Files with several names: the second name in the source becomes a second name in the copy.
//!
//! Remembered is the path of the first copy, not a handle, so that any number of them costs no descriptors. The path
//! is opened below the destination without following links and what is found there is compared with what was copied,
//! so that nothing else in the destination's place can get a second name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fs::{Dir, FileId, Name, RelPath, Stat};
use crate::tree::report::TreeError;

/// Bytes spent on remembering; of a tree with more, the rest is copied name by name.
const BUDGET: usize = 16 * 1024 * 1024;
/// What an entry costs besides its path, roughly.
const OVERHEAD: usize = 128;

pub(super) struct Links {
    root: Arc<Dir>,
    /// Held while a file with several names is copied, so that a second name waits for the first.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    copies: HashMap<FileId, Copied>,
    spent: usize,
}

struct Copied {
    path: Vec<u8>,
    id: FileId,
    /// Names of the source file that were not met yet.
    left: u32,
}

// === impl Links ===

impl Links {
    pub(super) fn new(root: Arc<Dir>) -> Links {
        Links { root, known: Mutex::default() }
    }

    /// Makes `name` in `dst` a further name of the file's first copy, or calls `copy` if this is the first.
    ///
    /// `false` when it had to be a copy of its own although another name of the file was copied before.
    pub(super) fn copy_once(
        &self,
        stat: &Stat,
        dst: &Dir,
        name: &Name,
        path: Vec<u8>,
        copy: impl FnOnce() -> Result<FileId, TreeError>,
    ) -> Result<bool, TreeError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = known.copies.get_mut(&stat.id()) else {
            let id = copy()?;
            return Ok(known.remember(stat, Copied { path, id, left: stat.nlink - 1 }));
        };
        let linked = self.link(first, dst, name);
        first.left = first.left.saturating_sub(1);
        if first.left == 0 {
            known.forget(stat.id());
        }
        if !linked {
            copy()?;
        }
        Ok(linked)
    }

    fn link(&self, first: &Copied, dst: &Dir, name: &Name) -> bool {
        let Ok(path) = RelPath::parse(&first.path) else { return false };
        let Some((parent, first_name)) = path.split_last() else { return false };
        let Ok(parent) = self.root.open_dir_nofollow(&parent) else { return false };
        if !is(&parent, first_name, first.id) || parent.hard_link(first_name, dst, name).is_err() {
            return false;
        }
        let linked = is(dst, name, first.id);
        if !linked {
            // Swapped between look and link. If the name can't be taken away again, making the copy will fail on it.
            dst.unlink(name).ok();
        }
        linked
    }
}

// === impl Known ===

impl Known {
    /// `false` when there is no room.
    fn remember(&mut self, stat: &Stat, copied: Copied) -> bool {
        let cost = copied.path.len() + OVERHEAD;
        if self.spent + cost > BUDGET {
            return false;
        }
        self.spent += cost;
        self.copies.insert(stat.id(), copied);
        true
    }

    fn forget(&mut self, id: FileId) {
        if let Some(copied) = self.copies.remove(&id) {
            self.spent -= copied.path.len() + OVERHEAD;
        }
    }
}

fn is(dir: &Dir, name: &Name, id: FileId) -> bool {
    dir.stat(name).is_ok_and(|stat| stat.id() == id)
}
