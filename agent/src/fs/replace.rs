//! Renaming, with and without replacing what is there.

use std::io;

use rustix::fd::AsFd as _;
use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::dir::Dir;
use super::path::Name;
use super::stat::FileKind;

/// Whether a rename may replace an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// As rename(2): a file replaces a file, a directory an empty directory.
    Yes,
    /// Fail with `EEXIST` when there is anything of that name.
    No,
}

pub(super) fn rename(from: &Dir, name: &Name, to: &Dir, to_name: &Name, replace: Replace) -> io::Result<()> {
    match replace {
        Replace::Yes => over(from, name, to, to_name),
        Replace::No => match exclusively(from, name, to, to_name) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => by_placeholder(from, name, to, to_name),
            other => Ok(other?),
        },
    }
}

fn over(from: &Dir, name: &Name, to: &Dir, to_name: &Name) -> io::Result<()> {
    Ok(renameat(from.as_fd(), name.as_bytes(), to.as_fd(), to_name.as_bytes())?)
}

fn exclusively(from: &Dir, name: &Name, to: &Dir, to_name: &Name) -> Result<(), Errno> {
    renameat_with(from.as_fd(), name.as_bytes(), to.as_fd(), to_name.as_bytes(), RenameFlags::NOREPLACE)
}

/// For file systems without `RENAME_NOREPLACE` (older NFS, some FUSE): claims the name with an empty file or
/// directory of our own, which only succeeds where there is nothing, and renames over that.
fn by_placeholder(from: &Dir, name: &Name, to: &Dir, to_name: &Name) -> io::Result<()> {
    if from.stat(name)?.kind == FileKind::Dir {
        to.mkdir(to_name, 0o700)?;
        over(from, name, to, to_name).inspect_err(|_| give_up(to.rmdir(to_name), to_name))
    } else {
        drop(to.create_new(to_name, 0o600)?);
        over(from, name, to, to_name).inspect_err(|_| give_up(to.unlink(to_name), to_name))
    }
}

/// The failed rename is what the caller hears of; that the empty placeholder stays is worth a line in the log.
fn give_up(removed: io::Result<()>, name: &Name) {
    if let Err(error) = removed {
        tracing::warn!(%name, %error, "an empty placeholder of a failed rename could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn without_replacing_both_the_kernels_way_and_ours_keep_what_is_there() {
        type Way = fn(&Dir, &Name, &Dir, &Name) -> io::Result<()>;
        let kernel: Way = |from, name, to, to_name| rename(from, name, to, to_name, Replace::No);
        for way in [kernel, by_placeholder] {
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open_root(temp.path()).unwrap();
            let path = |name: &str| temp.path().join(name);
            std::fs::write(path("a"), "a").unwrap();
            std::fs::write(path("b"), "b").unwrap();
            std::fs::create_dir_all(path("d/inside")).unwrap();
            std::fs::create_dir(path("e")).unwrap();
            std::os::unix::fs::symlink("nowhere", path("link")).unwrap();

            for (from, to) in [("a", "b"), ("d", "e"), ("a", "e"), ("d", "b"), ("a", "link")] {
                let error = way(&dir, &name(from), &dir, &name(to)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{from} -> {to}");
            }
            assert_eq!(std::fs::read(path("b")).unwrap(), b"b");

            way(&dir, &name("a"), &dir, &name("new-a")).unwrap();
            way(&dir, &name("d"), &dir, &name("new-d")).unwrap();
            way(&dir, &name("link"), &dir, &name("new-link")).unwrap();
            assert_eq!(std::fs::read(path("new-a")).unwrap(), b"a");
            assert!(path("new-d/inside").is_dir());
            assert!(path("new-link").is_symlink());
            assert!(way(&dir, &name("missing"), &dir, &name("free")).is_err());
            assert!(!path("free").exists(), "a failed rename leaves no placeholder");
        }
    }
}
