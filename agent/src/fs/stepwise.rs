//! Resolving a path one name at a time, in user space.
//!
//! Used where `openat2(2)` can't be, and to find out where a link leads, which no system call tells. Each step
//! opens a single name without following links, relative to a handle reached the same way, so nothing can be
//! swapped between check and use. `..` in a link's target is only taken when it arrives at the very directory that
//! was passed on the way down.

use std::io;

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::dir::Dir;
use super::error::FileError;
use super::open::Links;
use super::path::{Name, RelPath};
use super::stat::{FileId, FileKind, Stat};

/// Links followed in one path before it counts as a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Steps in one path, links included: 40 links of 4 KiB could otherwise mean 80,000 system calls.
const MAX_STEPS: usize = 4096;

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens `path` below `root` with `flags`; the rules are those of [`super::open::open_beneath`].
pub(super) fn open(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
    let mut walk = Walk::new(root, path.names(), links);
    while let Some(step) = walk.pending.pop() {
        walk.step(step)?;
    }
    walk.reopen(flags)
}

/// Where the link `name` in `dir` leads, relative to `dir`: `.` for `dir` itself.
///
/// `None` when it leads outside (every absolute target does) or loops. What doesn't exist is named as it is written.
/// Fails when a directory on the way can't be searched.
pub fn link_target(dir: &Dir, name: &Name) -> io::Result<Option<Vec<u8>>> {
    let found = Walk::new(dir.as_fd(), std::slice::from_ref(name), Links::Follow).destination();
    match found {
        Ok(names) if names.is_empty() => Ok(Some(b".".to_vec())),
        Ok(names) => Ok(Some(names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/'))),
        Err(error)
            if super::is_escape(&error) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

enum Step {
    Up,
    Down(Name),
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    links: Links,
    followed: usize,
    steps: usize,
    /// What is still to do, last first.
    pending: Vec<Step>,
    /// The names from the root to `current`.
    passed: Vec<(Name, FileId)>,
    /// Nothing while at the root.
    current: Option<OwnedFd>,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, names: &[Name], links: Links) -> Walk<'a> {
        let pending = names.iter().rev().cloned().map(Step::Down).collect();
        Walk { root, links, followed: 0, steps: 0, pending, passed: Vec::new(), current: None }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.current.as_ref().map_or(self.root, |fd| fd.as_fd())
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        self.steps += 1;
        match step {
            _ if self.steps > MAX_STEPS => Err(Errno::LOOP.into()),
            Step::Up => self.up(),
            Step::Down(name) => self.down(name),
        }
    }

    fn down(&mut self, name: Name) -> io::Result<()> {
        let fd = openat(self.here(), name.as_bytes(), LOOK, Mode::empty())?;
        let stat = Stat::of(&fd)?;
        if stat.kind == FileKind::Symlink {
            return self.follow(&fd);
        }
        self.passed.push((name, stat.id()));
        self.current = Some(fd);
        Ok(())
    }

    fn up(&mut self) -> io::Result<()> {
        self.passed.pop().ok_or(FileError::Escape)?;
        let Some((_, expected)) = self.passed.last() else {
            self.current = None;
            return Ok(());
        };
        let parent = openat(self.here(), "..", LOOK | OFlags::DIRECTORY, Mode::empty())?;
        if Stat::of(&parent)?.id() != *expected {
            return Err(FileError::Escape.into());
        }
        self.current = Some(parent);
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.followed += 1;
        if self.links == Links::Refuse || self.followed > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(link, c"", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            return Err(FileError::Escape.into());
        }
        for part in target.rsplit(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => self.pending.push(Step::Up),
                name => self.pending.push(Step::Down(Name::new(name).map_err(|_| Errno::NAMETOOLONG)?)),
            }
        }
        Ok(())
    }

    /// Opens the file that was arrived at for real.
    fn reopen(self, flags: OFlags) -> io::Result<OwnedFd> {
        let Some((name, id)) = self.passed.last() else {
            return Ok(openat(self.root, ".", flags, Mode::empty())?);
        };
        // The arrived-at handle is a file's or a directory's. From a directory "." opens itself; a file has to be
        // opened once more by its name in the directory before.
        let arrived = self.here();
        let fd = match openat(arrived, ".", flags, Mode::empty()) {
            Err(Errno::NOTDIR) if !flags.contains(OFlags::DIRECTORY) => self.reopen_file(name, flags)?,
            other => other?,
        };
        match Stat::of(&fd)?.id() == *id {
            true => Ok(fd),
            false => Err(FileError::Replaced.into()),
        }
    }

    fn reopen_file(&self, name: &Name, flags: OFlags) -> io::Result<OwnedFd> {
        let (_, parents) = self.passed.split_last().ok_or(Errno::NOENT)?;
        let names = parents.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let mut parent = Walk::new(self.root, &names, Links::Refuse);
        while let Some(step) = parent.pending.pop() {
            parent.step(step)?;
        }
        Ok(openat(parent.here(), name.as_bytes(), flags | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// The names from the root to where the path leads, existing or not.
    fn destination(mut self) -> io::Result<Vec<Name>> {
        while let Some(step) = self.pending.pop() {
            let written = match &step {
                Step::Down(name) => Some(name.clone()),
                Step::Up => None,
            };
            match (self.step(step), written) {
                (Ok(()), _) => {}
                (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                    self.pending.push(Step::Down(name));
                    return self.rest_taken_literally();
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(self.passed.into_iter().map(|(name, _)| name).collect())
    }

    /// Takes the rest of the path literally.
    fn rest_taken_literally(mut self) -> io::Result<Vec<Name>> {
        let mut names: Vec<Name> = self.passed.into_iter().map(|(name, _)| name).collect();
        while let Some(step) = self.pending.pop() {
            match step {
                Step::Down(name) => names.push(name),
                Step::Up => drop(names.pop().ok_or(FileError::Escape)?),
            }
        }
        Ok(names)
    }
}
