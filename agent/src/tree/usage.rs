//! Measuring a tree: how many entries, how many bytes.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::control::{Control, Interrupted};
use super::descent::{Descent, open_entered};
use super::pool::{self, Pool};
use super::report::Problems;
use crate::fs::{Dir, Entry, FileId, FileKind, Stat};

/// Files with several names that are remembered, to count their blocks once (16 bytes each). Of a tree with more,
/// the rest is counted once per name.
const MAX_LINKED: usize = 500_000;

/// What a tree holds. The root itself only counts in `allocated_bytes`, as du(1) has it.
#[derive(Debug, Default)]
pub struct Usage {
    /// Every entry below the root, directories and links included.
    pub entries: u64,
    /// Entries that are no directory.
    pub files: u64,
    /// The sizes of all entries as lstat(2) tells them; a file with two names counts twice.
    pub apparent_bytes: u64,
    /// Bytes allocated on the device; a file with two names counts once.
    pub allocated_bytes: u64,
    /// Directories and entries that could not be read and are missing above.
    pub unread: Problems,
}

/// Measures all below `dir` on up to `threads` threads.
pub fn usage(dir: &Dir, control: &Control, threads: usize) -> Result<Usage, Interrupted> {
    let scan = Scan { control, total: Mutex::default(), linked: Mutex::default() };
    let mut own = Usage::default();
    match dir.try_clone().and_then(|dir| Ok((dir.stat_self()?, dir))) {
        Ok((stat, dir)) => {
            own.allocated_bytes = stat.allocated;
            pool::run(threads, Job { dir, path: Vec::new() }, |job, pool| scan.job(job, pool))?;
        }
        Err(cause) => own.unread.add(|| super::Problem { path: ".".to_owned(), action: "look at", cause }),
    }
    own.merge(scan.total.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(own)
}

struct Job {
    dir: Dir,
    path: Vec<u8>,
}

struct Scan<'a> {
    control: &'a Control,
    total: Mutex<Usage>,
    linked: Mutex<HashSet<FileId>>,
}

// === impl Usage ===

impl Usage {
    fn merge(&mut self, other: Usage) {
        self.entries += other.entries;
        self.files += other.files;
        self.apparent_bytes += other.apparent_bytes;
        self.allocated_bytes += other.allocated_bytes;
        self.unread.merge(other.unread);
    }
}

// === impl Scan ===

impl Scan<'_> {
    fn job(&self, job: Job, pool: &Pool<Job, Interrupted>) -> Result<(), Interrupted> {
        let mut found = Usage::default();
        let result = match Descent::new(&job.dir, job.path) {
            Ok(mut at) => self.descend(&mut at, &mut found, pool),
            Err(cause) => {
                found.unread.add(|| super::Problem { path: ".".to_owned(), action: "open", cause });
                Ok(())
            }
        };
        self.total.lock().unwrap_or_else(PoisonError::into_inner).merge(found);
        result
    }

    fn descend(
        &self,
        at: &mut Descent<()>,
        found: &mut Usage,
        pool: &Pool<Job, Interrupted>,
    ) -> Result<(), Interrupted> {
        loop {
            self.control.check()?;
            match at.next() {
                Some(Ok(entry)) => self.entry(at, entry, found, pool),
                Some(Err(cause)) => found.unread.add(|| at.problem(None, "read", cause)),
                None => match at.leave() {
                    None => return Ok(()),
                    Some(left) if left.lost => {
                        found.unread.add(|| at.problem(None, "read on", moved()));
                    }
                    Some(_) => {}
                },
            }
        }
    }

    fn entry(&self, at: &mut Descent<()>, entry: Entry, found: &mut Usage, pool: &Pool<Job, Interrupted>) {
        let stat = match at.dir().stat_cached(&entry.name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(cause) => return found.unread.add(|| at.problem(Some(&entry.name), "look at", cause)),
        };
        self.count(&stat, found);
        if stat.kind != FileKind::Dir {
            return;
        }
        match open_entered(at.dir(), &entry.name) {
            Ok(None) => {}
            Ok(Some((dir, stat))) => {
                let mut dir = Some(dir);
                let path = || at.stack().path(Some(&entry.name));
                if !pool.offer(|| Some(Job { dir: dir.take()?, path: path() }))
                    && let Some(dir) = dir
                {
                    at.enter(entry.name, &stat, dir);
                }
            }
            Err(cause) => found.unread.add(|| at.problem(Some(&entry.name), "open", cause)),
        }
    }

    fn count(&self, stat: &Stat, found: &mut Usage) {
        found.entries += 1;
        found.files += u64::from(stat.kind != FileKind::Dir);
        found.apparent_bytes += stat.size;
        if stat.kind == FileKind::Dir || stat.nlink < 2 || self.first_name_of(stat.id()) {
            found.allocated_bytes += stat.allocated;
        }
        self.control.advance(1, stat.size);
    }

    fn first_name_of(&self, id: FileId) -> bool {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        match linked.len() < MAX_LINKED {
            true => linked.insert(id),
            false => !linked.contains(&id),
        }
    }
}

/// Why a directory that was being worked on can't be finished.
pub(super) fn moved() -> io::Error {
    io::Error::other("directories in it were moved meanwhile; what they still held is skipped")
}
