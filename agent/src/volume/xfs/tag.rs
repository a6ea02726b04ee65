//! Puts directories, and what is in them, into a project. All of it blocks.
//!
//! The agent owns the directories, so it needs no privilege. Directories are tagged while nobody else can see them;
//! only those that were there before the quota are tagged with content in them.

use std::io;

use crate::error::OpError;
use crate::fs::{Dir, FileKind, Project, RelPath, project, set_project};
use crate::tree::{Walk, WalkEntry, WalkLimits};

/// Which project a directory is in; 0 is none.
pub(super) fn of(dir: &Dir) -> Result<u32, OpError> {
    match project(dir).map_err(|e| OpError::fs(e, &RelPath::root()))? {
        Some(Project { id, inherited: true }) => Ok(id),
        // Without the flag new files would not count, so it is as good as none.
        Some(Project { inherited: false, .. }) => Ok(0),
        None => Err(OpError::QuotaFailed(
            "the volume's file system has no projects; backend \"xfs\" needs an XFS mounted with pquota"
                .into(),
        )),
    }
}

/// Puts a directory into a project, so that all that will be made in it is in it too.
pub(super) fn directory(dir: &Dir, id: u32) -> Result<(), OpError> {
    set_project(dir, Project { id, inherited: true }).map_err(|error| failed(&error))
}

/// What came of tagging a tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tagged {
    /// Entries that were in another project, and are in this one now, or would have to be.
    pub(super) strays: u64,
    /// Entries that could not be looked at or changed.
    pub(super) failed: u64,
    /// The first of those, with the reason.
    pub(super) example: Option<String>,
}

/// Finds what is in a tree and not in the project; with `repair`, puts it there. Links, FIFOs and devices cannot be
/// opened and stay where they are: they hold next to nothing.
pub(super) fn tree(dir: &Dir, id: u32, repair: bool) -> Result<Tagged, OpError> {
    let mut tagged = Tagged::default();
    if repair {
        directory(dir, id)?;
    }
    let limits = WalkLimits { depth: usize::MAX, skip_top: Vec::new() };
    for entry in Walk::new(dir, limits).map_err(|e| OpError::fs(e, &RelPath::root()))? {
        let outcome = match entry {
            Ok(entry) => one(&entry, id, repair)
                .map_err(|error| format!("{}: {error}", String::from_utf8_lossy(&entry.path).escape_debug())),
            Err(problem) => Err(problem.to_string()),
        };
        match outcome {
            Ok(stray) => tagged.strays += u64::from(stray),
            Err(text) => {
                tagged.failed += 1;
                tagged.example.get_or_insert(text);
            }
        }
    }
    Ok(tagged)
}

/// Whether the entry was in another project.
fn one(entry: &WalkEntry, id: u32, repair: bool) -> io::Result<bool> {
    let wanted = Project { id, inherited: entry.stat.kind == FileKind::Dir };
    match entry.stat.kind {
        FileKind::Dir => bring(&entry.parent.open_child(&entry.name)?, wanted, repair),
        FileKind::File => bring(&entry.parent.open_file_nofollow(&entry.name)?.0, wanted, repair),
        _ => Ok(false),
    }
}

fn bring(file: &impl rustix::fd::AsFd, wanted: Project, repair: bool) -> io::Result<bool> {
    match project(file)? {
        Some(found) if found.id == wanted.id && (found.inherited || !wanted.inherited) => Ok(false),
        // Another file system, mounted in the tree.
        None => Ok(false),
        Some(_) if repair => set_project(file, wanted).map(|()| true),
        Some(_) => Ok(true),
    }
}

fn failed(error: &io::Error) -> OpError {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => "only its owner may: give the directory to the agent's user",
        io::ErrorKind::InvalidInput => {
            "the kernel refuses it inside a user namespace: no PrivateUsers= in the unit, no rootless container"
        }
        _ => "see that the volume is an XFS mounted with pquota",
    };
    OpError::QuotaFailed(format!("a directory cannot be put into its project ({error}); {cure}"))
}
