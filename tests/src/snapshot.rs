//! The state of a directory tree, to be compared with its state later.
//!
//! A refused request must leave no trace, so everything that stat(2) tells of an entry is kept, except the
//! access time and the size of directories, and file contents as well.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// One line of description per entry, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    /// Describes everything below these directories, and the directories themselves.
    pub fn of(roots: &[&Path]) -> Self {
        let mut entries = BTreeMap::new();
        roots.iter().for_each(|root| describe(root, &mut entries));
        Snapshot(entries)
    }

    /// What was added, removed or changed since; empty when nothing was.
    pub fn difference(&self, later: &Snapshot) -> Vec<String> {
        let gone = self.0.iter().filter(|(path, _)| !later.0.contains_key(*path));
        let new = later.0.iter().filter(|(path, _)| !self.0.contains_key(*path));
        let changed = self.0.iter().filter_map(|(path, was)| {
            let is = later.0.get(path).filter(|is| *is != was)?;
            Some(format!("changed {path}: {was} -> {is}"))
        });
        let mut all: Vec<String> = changed.collect();
        all.extend(gone.map(|(path, _)| format!("gone {path}")));
        all.extend(new.map(|(path, is)| format!("new {path}: {is}")));
        all
    }
}

fn describe(path: &Path, entries: &mut BTreeMap<String, String>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let kind = meta.file_type();
    let content = if kind.is_file() {
        fs::read(path).map(|bytes| format!("{:x?}", &Sha256::digest(bytes)[..8])).unwrap_or_default()
    } else if kind.is_symlink() {
        fs::read_link(path).map(|target| format!("-> {}", target.display())).unwrap_or_default()
    } else {
        String::new()
    };
    let size = if kind.is_dir() { 0 } else { meta.len() };
    let line = format!(
        "{:o} {}:{} {size} bytes {}.{:09} {content}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    entries.insert(path.as_os_str().as_bytes().escape_ascii().to_string(), line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            describe(&entry.path(), entries);
        }
    }
}
