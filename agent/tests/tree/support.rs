//! Trees to work on, and an unprivileged identity to do it with.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use storage_agent::fs::{Dir, Name};
use tempfile::TempDir;

/// A directory to work in, removed at the end.
pub(crate) struct Scene {
    pub(crate) temp: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene { temp: tempfile::tempdir().unwrap() }
    }

    /// In memory where possible, for trees that take long on a disk.
    pub(crate) fn in_memory() -> Scene {
        Scene { temp: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap() }
    }

    pub(crate) fn path(&self, at: &str) -> PathBuf {
        self.temp.path().join(at)
    }

    pub(crate) fn dir(&self, at: &str) -> Dir {
        fs::create_dir_all(self.path(at)).unwrap();
        Dir::open_root(&self.path(at)).unwrap()
    }

    pub(crate) fn file(&self, at: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn fifo(&self, at: &str) {
        use rustix::fs::{CWD, Mode, mkfifoat};
        mkfifoat(CWD, self.path(at), Mode::RWXU).unwrap();
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs a test body on a thread whose file accesses are those of an ordinary user, also when the tests run as root.
pub(crate) fn as_user(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                // setfsuid(2) takes the file capabilities off this thread, too.
                nix::unistd::setfsgid(nix::unistd::Gid::from_raw(65534));
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
            }
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Every path below `root` with what a copy has to keep of it.
pub(crate) fn fingerprint(root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                kind if kind.is_file() => format!("{:?}", crc32c::crc32c(&fs::read(&path).unwrap())),
                _ => String::new(),
            };
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            let kept = format!(
                "{:o} {} {}.{:09} {content}",
                metadata.mode(),
                metadata.nlink(),
                metadata.mtime(),
                metadata.mtime_nsec()
            );
            found.push((path.strip_prefix(root).unwrap().to_owned(), kept));
        }
    }
    found.sort();
    found
}
