//! Listing one directory.

use std::io;

use crate::fs::{Dir, Entries, FileKind, Name, Stat, link_target};

/// An entry as the manager's `list` shows it.
#[derive(Debug, Clone)]
pub struct ListEntry {
    /// The name.
    pub name: Name,
    /// Of the link itself where it is a link.
    pub stat: Stat,
    /// Where a link leads, relative to the listed directory; empty for what is no link, and where the link leads
    /// outside that directory or can't be resolved.
    pub symlink_target: Vec<u8>,
}

/// Iterator over the entries of a directory in its own order, one buffer of names in memory at a time.
#[derive(Debug)]
pub struct List {
    dir: Dir,
    entries: Entries,
    /// How many may still come; `None` is without limit.
    left: Option<u64>,
}

/// Lists at most `limit` entries, all for 0; what is beyond is left out silently, as the contract has it.
pub fn list(dir: &Dir, limit: u64) -> io::Result<List> {
    let left = (limit > 0).then_some(limit);
    Ok(List { dir: dir.try_clone()?, entries: dir.entries()?, left })
}

impl List {
    /// `None` for an entry that vanished or can't be looked at: the contract skips those.
    fn look_at(&self, name: Name) -> Option<ListEntry> {
        let stat = self.dir.stat(&name).inspect_err(|error| skipped(&name, error)).ok()?;
        let symlink_target = match stat.kind {
            FileKind::Symlink => link_target(&self.dir, &name).ok().flatten().unwrap_or_default(),
            _ => Vec::new(),
        };
        Some(ListEntry { name, stat, symlink_target })
    }
}

impl Iterator for List {
    type Item = io::Result<ListEntry>;

    fn next(&mut self) -> Option<io::Result<ListEntry>> {
        if self.left == Some(0) {
            return None;
        }
        loop {
            let name = match self.entries.next()? {
                Ok(entry) => entry.name,
                Err(error) => return Some(Err(error)),
            };
            if let Some(entry) = self.look_at(name) {
                self.left = self.left.map(|left| left - 1);
                return Some(Ok(entry));
            }
        }
    }
}

fn skipped(name: &Name, error: &io::Error) {
    tracing::debug!(%name, %error, "entry left out of a listing");
}
