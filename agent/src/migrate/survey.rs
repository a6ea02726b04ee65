//! What lies on a volume: folders of both layouts, whose they are, what an earlier proxy left as root, uploads under way.
//!
//! A look at the directories of folders and what is directly in them, bounded, so that it takes seconds on a large site.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::fs::{Dir, Entry, FileKind, Name};

/// Folders that are looked at on one volume.
const FOLDERS: usize = 20_000;
/// Entries that are looked at in one folder.
const ENTRIES: usize = 1_000;
/// Lengths of a folder's directory names, one below the other; together they are its id in hexadecimal.
const FOLDER: [usize; 3] = [2, 2, 28];
/// Length of a scope's directory name.
const SCOPE: usize = 32;
/// Where uploads wait for their end.
const UPLOADS: &[u8] = b".upload";

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) scopes: usize,
    pub(super) scoped: usize,
    pub(super) bare: usize,
    /// Folders by uid and gid.
    pub(super) owners: BTreeMap<(u32, u32), usize>,
    /// Entries directly in folders that root owns though the folder is somebody's, and the first of them.
    pub(super) roots: usize,
    pub(super) first_root: Option<String>,
    pub(super) uploads: usize,
    /// Directories that could not be read, and the first reason.
    pub(super) unreadable: usize,
    pub(super) first_unreadable: Option<String>,
}

// === impl Survey ===

impl Survey {
    /// Looks at the volume mounted at `path`.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let root = Dir::open_root(path)?;
        let mut survey = Survey::default();
        for entry in root.entries()? {
            let entry = entry?;
            let name = shown(&entry.name);
            if is_hex(&entry.name, SCOPE) {
                survey.scopes += 1;
                survey.descend(&root, &entry, &name, &FOLDER, true);
            } else if is_hex(&entry.name, FOLDER[0]) {
                survey.descend(&root, &entry, &name, &FOLDER[1..], false);
            }
        }
        Ok(survey)
    }

    /// Whether there are more folders than were looked at.
    pub(super) fn is_partial(&self) -> bool {
        self.scoped + self.bare >= FOLDERS
    }

    /// Goes down to the folders: `below` has the lengths of the names that are still to come.
    fn descend(&mut self, parent: &Dir, entry: &Entry, path: &str, below: &[usize], scoped: bool) {
        if self.is_partial() || !matches!(entry.kind, FileKind::Dir | FileKind::Unknown) {
            return;
        }
        let seen = parent.open_child(&entry.name).and_then(|dir| match below {
            [] => self.folder(&dir, path, scoped),
            [length, rest @ ..] => {
                for inner in dir.entries()? {
                    let inner = inner?;
                    if is_hex(&inner.name, *length) {
                        let path = format!("{path}/{}", shown(&inner.name));
                        self.descend(&dir, &inner, &path, rest, scoped);
                    }
                }
                Ok(())
            }
        });
        if let Err(error) = seen {
            self.unreadable += 1;
            self.first_unreadable.get_or_insert_with(|| format!("{path}: {error}"));
        }
    }

    fn folder(&mut self, dir: &Dir, path: &str, scoped: bool) -> io::Result<()> {
        if scoped {
            self.scoped += 1
        } else {
            self.bare += 1
        }
        let owner = dir.stat_self()?;
        *self.owners.entry((owner.uid, owner.gid)).or_default() += 1;
        for entry in dir.entries()?.take(ENTRIES) {
            let entry = entry?;
            if entry.name.as_bytes() == UPLOADS {
                let uploads = dir.open_child(&entry.name)?.entries()?;
                self.uploads += uploads.take(ENTRIES).filter(|upload| upload.is_ok()).count();
            }
            if owner.uid != 0 && dir.stat(&entry.name).is_ok_and(|stat| stat.uid == 0) {
                self.roots += 1;
                self.first_root.get_or_insert_with(|| format!("{path}/{}", shown(&entry.name)));
            }
        }
        Ok(())
    }
}

fn is_hex(name: &Name, length: usize) -> bool {
    name.as_bytes().len() == length && name.as_bytes().iter().all(u8::is_ascii_hexdigit)
}

fn shown(name: &Name) -> String {
    name.as_bytes().escape_ascii().to_string()
}
