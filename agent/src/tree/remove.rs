//! Removing a tree.
//!
//! Others may write into the tree meanwhile: what appears in a directory that was emptied is removed too, a bounded
//! number of times. No link is followed and no mount point entered. What can't be removed is named, and all the rest
//! is removed nevertheless.
//!
//! With several threads a first pass removes what it can in parallel; directories of which a part was handed to
//! another thread stay behind in it. The second pass, on one thread, removes those and reports what is left.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::control::{Control, Interrupted};
use super::descent::{Descent, Left, open_entered};
use super::pool::{self, Pool};
use super::report::{Problem, Problems};
use super::usage::moved;
use crate::fs::{Dir, Entry, FileKind, Name, Stat, TMPFS_MAGIC, XFS_MAGIC};

/// How often a directory is emptied again because somebody put something into it.
const TRIES: u32 = 8;

/// What came of a removal.
#[derive(Debug, Default)]
pub struct RemoveReport {
    /// Entries removed.
    pub removed: u64,
    /// What is still there and why; empty after a complete removal.
    pub leftovers: Problems,
}

/// Removes `name` of `parent` and all below it; nothing of that name is a success.
pub fn remove_tree(
    parent: &Dir,
    name: &Name,
    control: &Control,
    threads: usize,
) -> Result<RemoveReport, Interrupted> {
    run(parent, Some(name), control, threads)
}

/// Removes all below `dir`, but not `dir` itself.
pub fn remove_contents(dir: &Dir, control: &Control, threads: usize) -> Result<RemoveReport, Interrupted> {
    run(dir, None, control, threads)
}

/// Without a name, the content of `dir`; with one, that entry of `dir`.
fn run(
    dir: &Dir,
    name: Option<&Name>,
    control: &Control,
    threads: usize,
) -> Result<RemoveReport, Interrupted> {
    let removed = AtomicU64::new(0);
    let mut leftovers = Problems::default();
    let start = || -> io::Result<Job> {
        Ok(Job { parent: Arc::new(dir.try_clone()?), name: name.cloned(), path: Vec::new() })
    };
    let mount = dir.stat_self();
    match (mount, start(), start()) {
        (Ok(mount), Ok(first), Ok(second)) => {
            let remover = Remover { control, mount: &mount, removed: &removed };
            let threads = threads.min(useful_threads(dir));
            if threads > 1 {
                pool::run(threads, first, |job, pool| {
                    remover.job(job, &mut Problems::default(), Some(pool))
                })?;
            }
            remover.job(second, &mut leftovers, None)?;
        }
        (Err(cause), _, _) | (_, Err(cause), _) | (_, _, Err(cause)) => {
            leftovers.add(|| Problem { path: ".".to_owned(), action: "open", cause });
        }
    }
    Ok(RemoveReport { removed: removed.into_inner(), leftovers })
}

/// How many threads the file system has a use for. XFS frees files in the background and tmpfs under one lock, so that a
/// third thread there only takes time from the others.
fn useful_threads(dir: &Dir) -> usize {
    match rustix::fs::fstatfs(dir).map(|figures| figures.f_type as u64) {
        Ok(XFS_MAGIC | TMPFS_MAGIC) => 2,
        _ => usize::MAX,
    }
}

struct Job {
    parent: Arc<Dir>,
    /// Without one the parent's content is meant.
    name: Option<Name>,
    path: Vec<u8>,
}

type Helpers<'a> = Option<&'a Pool<Job, Interrupted>>;

struct Remover<'a> {
    control: &'a Control,
    /// What may be removed lies on the same mount as this.
    mount: &'a Stat,
    removed: &'a AtomicU64,
}

/// What is kept for each directory on the way.
#[derive(Debug, Default)]
struct State {
    /// How often it was emptied before.
    tries: u32,
    /// Something stays in it, so it can't be removed either.
    leftover: bool,
    /// Its mode was opened up, or that was tried.
    made_writable: bool,
}

type At = Descent<State>;

// === impl Remover ===

impl Remover<'_> {
    fn job(&self, job: Job, problems: &mut Problems, helpers: Helpers<'_>) -> Result<(), Interrupted> {
        let mut at = match Descent::new(&job.parent, job.path) {
            Ok(at) => at,
            Err(cause) => {
                problems.add(|| Problem { path: ".".to_owned(), action: "open", cause });
                return Ok(());
            }
        };
        let Some(name) = job.name else {
            return self.empty(&mut at, problems, helpers);
        };
        // The directory around a named entry is not part of the tree: its mode is left alone.
        at.data().made_writable = true;
        self.entry(&mut at, name, FileKind::Unknown, problems, None);
        while at.depth() > 0 {
            self.step(&mut at, problems, helpers)?;
        }
        Ok(())
    }

    fn empty(&self, at: &mut At, problems: &mut Problems, helpers: Helpers<'_>) -> Result<(), Interrupted> {
        while self.step(at, problems, helpers)? {}
        Ok(())
    }

    /// Deals with the next entry, or with the end of the current directory; `false` at the end of the root.
    fn step(&self, at: &mut At, problems: &mut Problems, helpers: Helpers<'_>) -> Result<bool, Interrupted> {
        self.control.check()?;
        match at.next() {
            Some(Ok(Entry { name, kind, .. })) => self.entry(at, name, kind, problems, helpers),
            Some(Err(cause)) => self.stays(at, None, "read", cause, problems),
            None => match at.leave() {
                None => return Ok(false),
                Some(left) => self.left(at, left, problems),
            },
        }
        Ok(true)
    }

    fn entry(&self, at: &mut At, name: Name, kind: FileKind, problems: &mut Problems, helpers: Helpers<'_>) {
        let kind = match kind {
            FileKind::Unknown => at.dir().stat(&name).map_or(kind, |stat| stat.kind),
            known => known,
        };
        if kind == FileKind::Dir {
            return self.directory(at, name, 0, problems, helpers);
        }
        match self.retrying(at, |dir| dir.unlink(&name)) {
            Ok(()) => self.done(),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => {}
                Some(Errno::ISDIR) => self.directory(at, name, 0, problems, helpers),
                _ => self.stays(at, Some(&name), "remove", error, problems),
            },
        }
    }

    /// Hands a directory to another thread or goes down into it.
    fn directory(&self, at: &mut At, name: Name, tries: u32, problems: &mut Problems, helpers: Helpers<'_>) {
        let job =
            || Job { parent: Arc::clone(at.dir()), name: Some(name.clone()), path: at.stack().path(None) };
        if helpers.is_some_and(|pool| pool.offer(|| Some(job()))) {
            at.data().leftover = true;
            return;
        }
        match self.retrying(at, |dir| open_writable(dir, &name)) {
            Ok(Some((_, stat))) if !stat.same_mount(self.mount) => {
                let cause = io::Error::other("another file system is mounted here");
                self.stays(at, Some(&name), "enter", cause, problems);
            }
            Ok(Some((dir, stat))) => {
                at.enter(name, &stat, dir);
                at.data().tries = tries;
            }
            // Somebody put something else in its place.
            Ok(None) => match at.dir().unlink(&name) {
                Ok(()) => self.done(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => self.stays(at, Some(&name), "remove", cause, problems),
            },
            Err(cause) => self.stays(at, Some(&name), "open", cause, problems),
        }
    }

    /// Removes the directory that was just left; goes back into it when somebody filled it again.
    fn left(&self, at: &mut At, left: Left<State>, problems: &mut Problems) {
        let Left { name, data, lost } = left;
        if lost {
            return self.stays(at, None, "read on", moved(), problems);
        }
        if data.leftover {
            at.data().leftover = true;
            return;
        }
        match self.retrying(at, |dir| dir.rmdir(&name)) {
            Ok(()) => self.done(),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => {}
                Some(Errno::NOTEMPTY | Errno::EXIST) if data.tries < TRIES => {
                    self.directory(at, name, data.tries + 1, problems, None);
                }
                _ => self.stays(at, Some(&name), "remove", error, problems),
            },
        }
    }

    /// Tries something in the current directory; when its mode forbids it, opens that up and tries once more.
    fn retrying<T>(&self, at: &mut At, action: impl Fn(&Dir) -> io::Result<T>) -> io::Result<T> {
        let error = match action(at.dir()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            other => return other,
        };
        if std::mem::replace(&mut at.data().made_writable, true) {
            return Err(error);
        }
        let mode = at.dir().stat_self()?.permissions();
        match at.dir().set_mode(mode & 0o777 | 0o700) {
            Ok(()) => action(at.dir()),
            // Not the owner: what the caller needs to hear is why the removal failed.
            Err(_) => Err(error),
        }
    }

    fn stays(
        &self,
        at: &mut At,
        name: Option<&Name>,
        action: &'static str,
        cause: io::Error,
        problems: &mut Problems,
    ) {
        problems.add(|| at.problem(name, action, cause));
        at.data().leftover = true;
    }

    fn done(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed);
        self.control.advance(1, 0);
    }
}

/// Opens a directory to empty it; where its mode forbids reading it, that is changed first.
fn open_writable(parent: &Dir, name: &Name) -> io::Result<Option<(Dir, Stat)>> {
    match open_entered(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            parent.unlock_child(name).map_err(|_| error)?;
            open_entered(parent, name)
        }
        other => other,
    }
}
