//! Copying a tree.
//!
//! Modes, times, `user.*` attributes, holes, links and hard links within the tree are kept, owners where the process
//! may. FIFOs, sockets and devices are left out and reported. The copy ends at the first file that can't be read or
//! written: half a folder must not pass for a whole one.

mod content;
mod links;
mod meta;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use content::Mover;
use links::Links;

use super::control::Control;
use super::descent::{Descent, open_entered};
use super::pool::{self, Pool};
use super::report::{Problem, Problems, TreeError};
use super::stack::DirStack;
use super::usage::moved;
use crate::fs::{Dir, Entry, FileId, FileKind, Name, RelPath, Stat};

/// How often an entry is looked at again because somebody put a file of another kind in its place.
const TRIES: u32 = 8;

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Entries of the source's root to leave out, such as a staging directory.
    pub skip_top: Vec<Name>,
    /// The only entry of the source's root to copy; all of them without it.
    pub only_top: Option<Name>,
    /// Threads, the calling one included.
    pub threads: usize,
    /// Make the copy durable before returning: one `syncfs(2)` of the destination's file system.
    pub sync: bool,
}

/// What came of a copy.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Files, directories and links made, the root not counted.
    pub entries: u64,
    /// Bytes of content in the copy, holes not counted.
    pub bytes: u64,
    /// Entries left out: FIFOs, sockets and devices, and what vanished while the copy ran.
    pub skipped: Problems,
    /// What could not be kept of entries that were copied: owner, attributes, hard links.
    pub imperfect: Problems,
}

/// Copies all below `src` into `dst`, an empty directory outside `src`, and gives `dst` the mode and times of `src`.
///
/// On an error the part that was copied stays; removing it is up to the caller.
pub fn copy(src: &Dir, dst: &Dir, options: &CopyOptions, control: &Control) -> Result<CopyReport, TreeError> {
    let at_root = |action| move |cause| Problem { path: ".".to_owned(), action, cause };
    let open = |dir: &Dir| dir.open_dir_nofollow(&RelPath::root());
    let root = Arc::new(open(dst).map_err(at_root("open the destination"))?);
    let job = Job {
        src: open(src).map_err(at_root("open"))?,
        dst: open(dst).map_err(at_root("open the destination"))?,
        path: Vec::new(),
    };
    let copier = Copier {
        options,
        control,
        dst_id: root.stat_self().map_err(at_root("look at the destination"))?.id(),
        mover: Mover::new(control),
        links: Links::new(root),
        report: Mutex::default(),
        entries: AtomicU64::new(0),
    };
    copier.refuse_inside(&src.stat_self().map_err(at_root("look at"))?).map_err(at_root("copy"))?;
    pool::run(options.threads, job, |job, pool| copier.job(job, pool))?;
    if options.sync {
        rustix::fs::syncfs(dst).map_err(|cause| at_root("make durable")(cause.into()))?;
    }
    let mut report = copier.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.entries = copier.entries.into_inner();
    report.bytes = copier.mover.bytes();
    Ok(report)
}

struct Job {
    src: Dir,
    dst: Dir,
    path: Vec<u8>,
}

struct Copier<'a> {
    options: &'a CopyOptions,
    control: &'a Control,
    dst_id: FileId,
    mover: Mover<'a>,
    links: Links,
    report: Mutex<CopyReport>,
    entries: AtomicU64,
}

/// The same place in source and destination.
struct Place {
    src: Descent<()>,
    dst: DirStack,
}

// === impl CopyOptions ===

impl CopyOptions {
    fn leaves_out(&self, top: &Name) -> bool {
        self.skip_top.contains(top) || self.only_top.as_ref().is_some_and(|only| only != top)
    }
}

// === impl Copier ===

impl Copier<'_> {
    fn job(&self, job: Job, pool: &Pool<Job, TreeError>) -> Result<(), TreeError> {
        let src = Descent::new(&job.src, job.path.clone()).map_err(|cause| Problem {
            path: crate::fs::Escaped(&job.path).to_string(),
            action: "open",
            cause,
        })?;
        let mut at = Place { src, dst: DirStack::new(Arc::new(job.dst), job.path) };
        while !pool.stopping() {
            self.control.check()?;
            match at.src.next() {
                Some(Ok(entry)) => self.entry(&mut at, entry, pool)?,
                Some(Err(cause)) => return Err(at.src.problem(None, "read", cause).into()),
                None => {
                    self.finish_directory(&at)?;
                    if !at.leave()? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&self, at: &mut Place, entry: Entry, pool: &Pool<Job, TreeError>) -> Result<(), TreeError> {
        let name = entry.name;
        if at.is_top() && self.options.leaves_out(&name) {
            return Ok(());
        }
        let mut kind = entry.kind;
        for _ in 0..TRIES {
            match self.make(at, &name, kind, pool) {
                Err(TreeError::Failed(problem)) => match kind_now(at, &name) {
                    None => {
                        self.note(|report| report.skipped.add(|| problem));
                        return Ok(());
                    }
                    Some(now) if now != kind => kind = now,
                    // It was away for a moment, as while a program puts a new version in its place.
                    Some(_) if problem.cause.kind() == io::ErrorKind::NotFound => {}
                    Some(_) => return Err(problem.into()),
                },
                other => return other,
            }
        }
        let cause = io::Error::other("it keeps changing");
        Err(at.problem(&name, "copy", cause).into())
    }

    fn make(
        &self,
        at: &mut Place,
        name: &Name,
        kind: FileKind,
        pool: &Pool<Job, TreeError>,
    ) -> Result<(), TreeError> {
        let kind = match kind {
            FileKind::Unknown => {
                at.src.dir().stat(name).map_err(|cause| at.problem(name, "look at", cause))?.kind
            }
            known => known,
        };
        match kind {
            FileKind::Dir => return self.directory(at, name, pool),
            FileKind::File => self.file(at, name)?,
            FileKind::Symlink => self.symlink(at, name)?,
            FileKind::Other | FileKind::Unknown => {
                let cause = io::Error::other("a FIFO, socket or device");
                self.note(|report| report.skipped.add(|| at.problem(name, "copy", cause)));
                return Ok(());
            }
        }
        self.count();
        Ok(())
    }

    fn directory(&self, at: &mut Place, name: &Name, pool: &Pool<Job, TreeError>) -> Result<(), TreeError> {
        let opened = open_entered(at.src.dir(), name).and_then(|opened| match opened {
            Some((dir, stat)) => self.refuse_inside(&stat).map(|()| (dir, stat)),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        let (src, stat) = opened.map_err(|cause| at.problem(name, "open", cause))?;
        let (dst, dst_stat) = make_directory(at.dst.top(), name)
            .map_err(|cause| at.problem(name, "make the directory", cause))?;
        self.count();
        let mut pair = Some((src, dst));
        let job = || {
            let (src, dst) = pair.take()?;
            Some(Job { src, dst, path: at.dst.path(Some(name)) })
        };
        pool.offer(job);
        if let Some((src, dst)) = pair {
            at.src.enter(name.clone(), &stat, src);
            at.dst.push(name.clone(), dst_stat.id(), dst);
        }
        Ok(())
    }

    fn file(&self, at: &Place, name: &Name) -> Result<(), TreeError> {
        let (src, stat) =
            at.src.dir().open_file_nofollow(name).map_err(|cause| at.problem(name, "open", cause))?;
        let copy = || -> Result<FileId, TreeError> {
            let mode = mode_to_fill(&stat);
            let dst =
                at.dst.top().create_new(name, mode).map_err(|cause| at.problem(name, "create", cause))?;
            let made = Stat::of(&dst).map_err(|cause| at.problem(name, "look at", cause))?;
            self.mover
                .copy(&src, &stat, &dst)
                .map_err(|failure| failure.at(|cause| at.problem(name, "copy", cause)))?;
            let lost = meta::apply(&src, &stat, &dst, &made)
                .map_err(|cause| at.problem(name, "set the mode", cause))?;
            self.imperfections(at, Some(name), lost);
            Ok(made.id())
        };
        if stat.nlink < 2 {
            return copy().map(drop);
        }
        let kept = self.links.copy_once(&stat, at.dst.top(), name, at.path(name), copy)?;
        if !kept {
            let cause = io::Error::other("it is a copy of its own");
            self.note(|report| report.imperfect.add(|| at.problem(name, "keep the hard link", cause)));
        }
        Ok(())
    }

    fn symlink(&self, at: &Place, name: &Name) -> Result<(), TreeError> {
        let (src, dst) = (at.src.dir(), at.dst.top());
        let stat = src.stat(name).map_err(|cause| at.problem(name, "look at", cause))?;
        let target = src.read_link(name).map_err(|cause| at.problem(name, "read the link", cause))?;
        dst.symlink(&target, name).map_err(|cause| at.problem(name, "make the link", cause))?;
        self.imperfections(at, Some(name), meta::apply_to_link(&stat, dst, name));
        Ok(())
    }

    /// Mode and times come last: filling the directory needs the one and changes the other.
    fn finish_directory(&self, at: &Place) -> Result<(), TreeError> {
        let (src, dst) = (at.src.dir(), at.dst.top());
        let problem = |action| move |cause| at.src.problem(None, action, cause);
        let stat = src.stat_self().map_err(problem("look at"))?;
        let made = dst.stat_self().map_err(problem("look at the copy"))?;
        let lost = meta::apply(src, &stat, dst, &made).map_err(problem("set the mode"))?;
        self.imperfections(at, None, lost);
        Ok(())
    }

    fn imperfections(&self, at: &Place, name: Option<&Name>, lost: Vec<meta::Lost>) {
        for meta::Lost { what, cause } in lost {
            self.note(|report| report.imperfect.add(|| at.src.problem(name, what, cause)));
        }
    }

    fn refuse_inside(&self, dir: &Stat) -> io::Result<()> {
        match dir.id() == self.dst_id {
            true => Err(io::Error::other("the destination of the copy lies in its source")),
            false => Ok(()),
        }
    }

    fn note(&self, add: impl FnOnce(&mut CopyReport)) {
        add(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.control.advance(1, 0);
    }
}

// === impl Place ===

impl Place {
    fn is_top(&self) -> bool {
        self.dst.path(None).is_empty()
    }

    fn path(&self, name: &Name) -> Vec<u8> {
        self.dst.path(Some(name))
    }

    fn problem(&self, name: &Name, action: &'static str, cause: io::Error) -> Problem {
        self.src.problem(Some(name), action, cause)
    }

    /// Goes up on both sides; `false` at the root.
    fn leave(&mut self) -> Result<bool, Problem> {
        let Some(left) = self.src.leave() else { return Ok(false) };
        let lost = self.dst.pop().is_none_or(|popped| popped.lost > 0);
        match left.lost || lost {
            true => Err(self.src.problem(None, "read on", moved())),
            false => Ok(true),
        }
    }
}

/// The mode to create a copy with: mostly what it is to have in the end, which then need not be set. Its directory is
/// closed to others meanwhile. Attributes can only be set on what the mode lets its owner write (xattr(7)).
fn mode_to_fill(stat: &Stat) -> u32 {
    stat.permissions() & 0o777 | 0o600
}

/// Makes a directory that only its owner can enter while it is being filled.
fn make_directory(parent: &Dir, name: &Name) -> io::Result<(Dir, Stat)> {
    parent.mkdir(name, 0o700)?;
    let dir = parent.open_child(name)?;
    let stat = dir.stat_self()?;
    Ok((dir, stat))
}

/// What the source's entry is by now; `None` when it is not there any more, which is no failure of the copy.
fn kind_now(at: &Place, name: &Name) -> Option<FileKind> {
    match at.src.dir().stat(name) {
        Ok(stat) => Some(stat.kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(FileKind::Unknown),
    }
}
