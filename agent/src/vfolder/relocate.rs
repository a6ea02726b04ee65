//! Moves an entry where rename(2) cannot: across a mount point, or the border between two quotas (`EXDEV`).
//!
//! The entry is copied beside its new place, made durable, renamed into place, and only then removed from the old one.
//! A crash leaves the source whole, and at worst a directory `.moving-...` that nobody needs.

use std::io;

use uuid::Uuid;

use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath, Replace};
use crate::tree::{Control, CopyOptions, copy, remove_tree};

/// A name in a directory, and the path that stands for it in messages.
pub(super) struct End<'a> {
    pub(super) dir: &'a Dir,
    pub(super) name: &'a Name,
    pub(super) path: &'a RelPath,
}

/// Copies an entry with all below it, and removes the source.
pub(super) fn relocate(
    from: &End<'_>,
    to: &End<'_>,
    replace: Replace,
    threads: usize,
) -> Result<(), OpError> {
    if replace == Replace::No && to.dir.stat(to.name).is_ok() {
        return Err(OpError::fs(io::ErrorKind::AlreadyExists.into(), to.path));
    }
    let text = format!(".moving-{}", Uuid::new_v4());
    let draft = Name::new(text.as_bytes()).map_err(|e| OpError::path(text.as_bytes(), &e))?;
    to.dir.mkdir(&draft, 0o700).map_err(|e| OpError::fs(e, to.path))?;
    let placed = place(from, to, &draft, replace, threads);
    let cleared = remove(to.dir, &draft, to.path, threads);
    placed.and(cleared)?;
    remove(from.dir, from.name, from.path, threads)
}

fn place(
    from: &End<'_>,
    to: &End<'_>,
    draft: &Name,
    replace: Replace,
    threads: usize,
) -> Result<(), OpError> {
    let failed = |error| OpError::fs(error, to.path);
    let inside = to.dir.open_dir_nofollow(&RelPath::from(draft.clone())).map_err(failed)?;
    let options =
        CopyOptions { only_top: Some(from.name.clone()), skip_top: Vec::new(), threads, sync: true };
    let report = copy(from.dir, &inside, &options, &Control::new())?;
    if let Some(first) = report.skipped.first().first() {
        return Err(OpError::Refused {
            reason: format!("it cannot be moved to another file system or quota: {first}"),
            paths: vec![from.path.to_string()],
        });
    }
    if !report.imperfect.is_empty() {
        tracing::warn!(count = report.imperfect.count(), problems = %report.imperfect, "not kept while moving");
    }
    // The copied directory took the mode of the source's parent, which may be read-only.
    inside.set_mode(0o700).map_err(failed)?;
    inside.rename(from.name, to.dir, to.name, replace).map_err(failed)?;
    to.dir.sync().map_err(failed)
}

fn remove(dir: &Dir, name: &Name, path: &RelPath, threads: usize) -> Result<(), OpError> {
    let report = remove_tree(dir, name, &Control::new(), threads)?;
    match report.leftovers.first().first() {
        None => Ok(()),
        Some(first) => Err(OpError::Refused {
            reason: format!("{} entries could not be removed: {first}", report.leftovers.count()),
            paths: vec![path.to_string()],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn moved(replace: Replace, make: impl Fn(&std::path::Path)) -> (tempfile::TempDir, Result<(), OpError>) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("a")).unwrap();
        std::fs::create_dir(temp.path().join("b")).unwrap();
        make(temp.path());
        let dir = |name: &str| Dir::open_root(&temp.path().join(name)).unwrap();
        let (from_dir, to_dir) = (dir("a"), dir("b"));
        let (name, path) = (Name::new(b"x").unwrap(), RelPath::parse(b"x").unwrap());
        let from = End { dir: &from_dir, name: &name, path: &path };
        let to = End { dir: &to_dir, name: &name, path: &path };
        let outcome = relocate(&from, &to, replace, 2);
        (temp, outcome)
    }

    fn names(dir: &std::path::Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_tree_arrives_whole_and_leaves_nothing_behind() {
        let (temp, outcome) = moved(Replace::No, |root| {
            std::fs::create_dir_all(root.join("a/x/deep")).unwrap();
            std::fs::write(root.join("a/x/deep/file"), "content").unwrap();
            std::fs::write(root.join("a/neighbour"), "").unwrap();
            symlink("deep/file", root.join("a/x/link")).unwrap();
            std::fs::set_permissions(root.join("a/x/deep/file"), PermissionsExt::from_mode(0o640)).unwrap();
            std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o755)).unwrap();
        });
        outcome.unwrap();
        assert_eq!(names(&temp.path().join("a")), ["neighbour"]);
        assert_eq!(names(&temp.path().join("b")), ["x"]);
        assert_eq!(std::fs::read_to_string(temp.path().join("b/x/link")).unwrap(), "content");
        let mode = std::fs::metadata(temp.path().join("b/x/deep/file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }

    #[test]
    fn a_file_replaces_a_file_only_where_it_may() {
        let both = |root: &std::path::Path| {
            std::fs::write(root.join("a/x"), "new").unwrap();
            std::fs::write(root.join("b/x"), "old").unwrap();
        };
        let (temp, outcome) = moved(Replace::No, both);
        assert!(outcome.unwrap_err().to_string().contains("exists"));
        assert_eq!(std::fs::read_to_string(temp.path().join("a/x")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(temp.path().join("b/x")).unwrap(), "old");
        let (temp, outcome) = moved(Replace::Yes, both);
        outcome.unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("b/x")).unwrap(), "new");
        assert_eq!(names(&temp.path().join("a")), [""; 0]);
    }

    #[test]
    fn what_cannot_be_copied_stays_where_it_is() {
        let (temp, outcome) = moved(Replace::No, |root| {
            std::fs::create_dir(root.join("a/x")).unwrap();
            nix::unistd::mkfifo(&root.join("a/x/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        });
        assert!(outcome.unwrap_err().to_string().contains("FIFO"));
        assert_eq!(names(&temp.path().join("a/x")), ["fifo"]);
        assert_eq!(names(&temp.path().join("b")), [""; 0]);
    }
}
