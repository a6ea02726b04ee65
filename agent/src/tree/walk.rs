//! Walking a tree entry by entry, for whoever turns it into something else, such as an archive.

use std::io;
use std::sync::Arc;

use super::descent::{Descent, open_entered};
use super::report::Problem;
use super::usage::moved;
use crate::fs::{Dir, Entry, FileKind, Name, Stat};

/// How far a walk goes.
#[derive(Debug, Clone)]
pub struct WalkLimits {
    /// Levels of directories below the root that are entered; a directory beyond is reported, not entered.
    pub depth: usize,
    /// Entries of the root to leave out, such as a staging directory.
    pub skip_top: Vec<Name>,
}

/// One entry below the root.
#[derive(Debug, Clone)]
pub struct WalkEntry {
    /// The path from the root, names separated by `/`. May be longer than any path that the kernel takes.
    pub path: Vec<u8>,
    /// Of the link itself where it is a link.
    pub stat: Stat,
    /// The directory that holds it: open the file here, by `name`.
    pub parent: Arc<Dir>,
    /// Its name in `parent`.
    pub name: Name,
}

/// Iterator over a tree: a directory before its content, entries in the directory's own order (the same each time as
/// long as the directory isn't changed), links not followed.
///
/// What can't be read comes as a [`Problem`], and the walk goes on. Entries that vanish meanwhile are left out.
#[derive(Debug)]
pub struct Walk {
    at: Descent<()>,
    limits: WalkLimits,
    /// The directory handed out last, which is entered next.
    ahead: Option<Name>,
}

// === impl WalkLimits ===

impl Default for WalkLimits {
    /// 1,000 levels: more than any path of 4,096 bytes is likely to name, little enough for what unpacks archives.
    fn default() -> WalkLimits {
        WalkLimits { depth: 1000, skip_top: Vec::new() }
    }
}

// === impl Walk ===

impl Walk {
    /// Starts below `dir`; fails when that can't be opened anew.
    pub fn new(dir: &Dir, limits: WalkLimits) -> io::Result<Walk> {
        Ok(Walk { at: Descent::new(dir, Vec::new())?, limits, ahead: None })
    }

    fn enter(&mut self, name: Name) -> Result<(), Problem> {
        if self.at.depth() >= self.limits.depth {
            let cause = io::Error::other(format!("deeper than {} levels", self.limits.depth));
            return Err(self.at.problem(Some(&name), "enter", cause));
        }
        match open_entered(self.at.dir(), &name) {
            Ok(Some((dir, stat))) => self.at.enter(name, &stat, dir),
            Ok(None) => {}
            Err(cause) => return Err(self.at.problem(Some(&name), "open", cause)),
        }
        Ok(())
    }

    fn look_at(&mut self, entry: Entry) -> Option<Result<WalkEntry, Problem>> {
        if self.at.depth() == 0 && self.limits.skip_top.contains(&entry.name) {
            return None;
        }
        let stat = match self.at.dir().stat(&entry.name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(cause) => return Some(Err(self.at.problem(Some(&entry.name), "look at", cause))),
        };
        if stat.kind == FileKind::Dir {
            self.ahead = Some(entry.name.clone());
        }
        let path = self.at.stack().path(Some(&entry.name));
        Some(Ok(WalkEntry { path, stat, parent: Arc::clone(self.at.dir()), name: entry.name }))
    }
}

impl Iterator for Walk {
    type Item = Result<WalkEntry, Problem>;

    fn next(&mut self) -> Option<Result<WalkEntry, Problem>> {
        if let Some(name) = self.ahead.take()
            && let Err(problem) = self.enter(name)
        {
            return Some(Err(problem));
        }
        loop {
            match self.at.next() {
                Some(Ok(entry)) => {
                    if let Some(item) = self.look_at(entry) {
                        return Some(item);
                    }
                }
                Some(Err(cause)) => return Some(Err(self.at.problem(None, "read", cause))),
                None => match self.at.leave()? {
                    left if left.lost => {
                        return Some(Err(self.at.problem(None, "read on", moved())));
                    }
                    _ => {}
                },
            }
        }
    }
}
