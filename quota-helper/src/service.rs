//! Requests, and what is done about each.
//!
//! A project comes into being in an order that leaves nothing wrong wherever it ends: its limit is set, then both
//! lines and the record are written as one change, then the agent makes and tags the directory. What is interrupted
//! before the lines leaves a limit on an id that is free all the same; what is interrupted after them is a project
//! that the same request finds again. It goes in the other order: no files, no limit, no lines.

use std::fs::{self, File};
use std::io;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::protocol::*;

use crate::book::{self, Book, Damage, Key, Owned, Record};
use crate::config::{Config, Volume};
use crate::files::{self, Contents, Edit, Files, Stamp, State, failed};
use crate::mounts;
use crate::tool::{Tool, Usage};

/// How many ids are looked up in the kernel at once, and for how long the answer is believed: so making a project costs
/// no search.
const WINDOW: u32 = 256;
const WINDOW_LIFE: Duration = Duration::from_secs(30);
/// How many ids that the kernel has in use are passed over.
const MOST_IN_USE: usize = 4096;

/// The helper's state between requests.
pub struct Service {
    /// What root configured.
    pub config: Config,
    state: State,
    /// `/etc/projects`, `/etc/projid` and the record.
    paths: Files<PathBuf>,
    /// What was read last.
    pub book: Book,
    /// The files when the book was made of them.
    seen: Files<Option<Stamp>>,
    /// Where the next id is looked for: they are given round and round, so that one that was just freed rests.
    next: u32,
    /// What the kernel was asked last: on which mount, about which ids, when, and which of them are in use.
    asked: (String, RangeInclusive<u32>, Instant, Vec<u32>),
}

impl Service {
    /// Nothing but the state directory is touched yet.
    pub fn new(config: Config) -> Result<Self, Refusal> {
        let (state, next) = (State::open(&config.state)?, config.ids.0);
        let asked = (String::new(), 0..=0, Instant::now(), Vec::new());
        let paths = [config.projects.clone(), config.projid.clone(), state.path("record")];
        Ok(Service { config, state, paths, book: Book::default(), seen: [None; 3], next, asked })
    }

    /// Finishes what was interrupted, and writes the record anew without its history.
    pub fn start(&mut self) -> Result<(), Refusal> {
        let _working = self.lock_state()?;
        self.refresh()?;
        let on_record = self.book.projects.iter().filter(|(_, owned)| owned.limit != UNRECORDED);
        let text: String = on_record.map(|(key, owned)| book::record_line(key, Some(*owned))).collect();
        self.state.keep("record", text.as_bytes()).map(drop)
    }

    /// Carries out a request.
    pub fn answer(&mut self, request: Request) -> Result<Reply, Refusal> {
        request.check()?;
        let _working = self.lock_state()?;
        match (request, self.refresh()) {
            (Request::Status, ready) => Ok(Reply::Status(self.status(ready.err()))),
            (_, Err(unready)) => Err(unready),
            (Request::Create { volume, subject, limit }, _) => self.set((volume, subject), limit, true),
            (Request::SetLimit { volume, subject, limit }, _) => self.set((volume, subject), limit, false),
            (Request::Describe { volume, subject }, _) => self.describe(&(volume, subject)),
            (Request::Remove { volume, subject }, _) => self.remove(&(volume, subject)),
            (Request::List { volume, after }, _) => self.list(&volume, after),
        }
    }

    /// Sets the limit of a project, of a new one if need be and `create` says so.
    fn set(&mut self, key: Key, limit: u64, create: bool) -> Result<Reply, Refusal> {
        let tool = self.tool(&key.0)?;
        let (files, _shared) = self.lock(false)?;
        self.refresh()?;
        let created = create && !self.book.projects.contains_key(&key);
        let (id, usage) = if created {
            self.fresh_id(&tool, limit)?
        } else {
            let id = self.sound(&key)?;
            (id, tool.limit(id, limit)?)
        };
        let owned = Owned { id, limit };
        let lines = self.book.lines(&key, owned, self.volume(&key.0)?);
        let edits = files.iter().zip(&lines).map(|(file, line)| Edit::append(file, line)).collect();
        if let Err(refusal) = self.commit(&files, edits) {
            if created {
                tool.limit(id, 0)?;
            }
            return Err(refusal);
        }
        self.book.add(key, owned);
        self.seen = self.stamps();
        Ok(project(id, usage, created))
    }

    /// An id that neither the files nor the kernel know, with its limit set.
    fn fresh_id(&mut self, tool: &Tool, limit: u64) -> Result<(u32, Usage), Refusal> {
        let ((first, last), next) = (self.config.ids, self.next);
        let free = (next..=last).chain(first..next).filter(|id| self.book.is_free(*id));
        for id in free.take(MOST_IN_USE) {
            self.next = if id < last { id + 1 } else { first };
            let (point, ids, since, _) = &self.asked;
            if *point != tool.point || !ids.contains(&id) || since.elapsed() > WINDOW_LIFE {
                let end = id.saturating_add(WINDOW - 1).min(last);
                let in_use = tool.in_use(id, end)?;
                self.asked = (tool.point.clone(), id..=end, Instant::now(), in_use);
            }
            if self.asked.3.contains(&id) {
                continue;
            }
            let usage = tool.limit(id, limit)?;
            if usage.unused().is_ok() {
                return Ok((id, usage));
            }
            // Somebody has begun to use it since the kernel was asked.
            tool.limit(id, 0)?;
        }
        Err(refusal!(Exhausted: "no free project id was found in {first}-{last}; configure more ids"))
    }

    fn describe(&self, key: &Key) -> Result<Reply, Refusal> {
        let (tool, id) = (self.tool(&key.0)?, self.known(key)?);
        Ok(project(id, tool.usage(id)?, false))
    }

    fn remove(&mut self, key: &Key) -> Result<Reply, Refusal> {
        let tool = self.tool(&key.0)?;
        let (files, _shared) = self.lock(false)?;
        let content = self.read()?;
        let id = self.sound(key)?;
        let before = tool.usage(id)?.unused()?;
        let without = book::without(key, id, &self.config.volumes, &content);
        let cleared = tool.limit(id, 0).and_then(Usage::unused);
        if let Err(refusal) = cleared.and_then(|_| self.commit(&files, edits(content, without))) {
            tool.limit(id, before.limit)?;
            return Err(refusal);
        }
        self.seen = [None; 3];
        Ok(Reply::Removed)
    }

    fn list(&self, volume: &VolumeName, after: Option<Subject>) -> Result<Reply, Refusal> {
        self.volume(volume)?;
        let start = Included((volume.clone(), Subject::Scope(0.into())));
        let start = after.map_or(start, |last| Excluded((volume.clone(), last)));
        let range = self.book.projects.range((start, Unbounded)).take_while(|((name, _), _)| name == volume);
        let listed =
            |(key, owned): (&Key, &Owned)| Listed { subject: key.1, id: owned.id, limit: owned.limit };
        let mut entries: Vec<_> = range.take(PAGE + 1).map(listed).collect();
        let more = entries.len() > PAGE;
        entries.truncate(PAGE);
        Ok(Reply::List { entries, more })
    }

    fn status(&self, unready: Option<Refusal>) -> Status {
        let unready = unready.map(|refusal| refusal.message);
        let problem = |name| unready.clone().or(self.problems(name).into_iter().next());
        let volumes = self.config.volumes.iter().map(|v| VolumeStatus::new(v.name.clone(), problem(&v.name)));
        Status { version: env!("CARGO_PKG_VERSION").to_owned(), volumes: volumes.collect() }
    }

    /// What is wrong with a volume, or else with the lines of its projects.
    pub fn problems(&self, name: &VolumeName) -> Vec<String> {
        if let Err(refusal) = self.tool(name) {
            return vec![refusal.message];
        }
        let damage = self.book.damage.iter().filter(|((volume, _), _)| volume == name);
        let told = damage.map(|((_, subject), damage)| {
            format!("lines of {subject} differ from the record ({damage:?}); see quota-helper check")
        });
        told.collect()
    }

    fn known(&self, key: &Key) -> Result<u32, Refusal> {
        let known = self.book.projects.get(key).map(|owned| owned.id);
        known.ok_or_else(|| refusal!(NotFound: "{} of volume {} has no project; create it", key.1, key.0))
    }

    /// The id of a project, when it is beyond doubt.
    fn sound(&self, key: &Key) -> Result<u32, Refusal> {
        let id = self.known(key)?;
        if matches!(self.book.damage.get(key), None | Some(Damage::Missing)) {
            return Ok(id);
        }
        Err(refusal!(FilesDamaged: "project {id} of {} is in doubt; see quota-helper check", key.1))
    }

    fn volume(&self, name: &VolumeName) -> Result<&Volume, Refusal> {
        let volume = self.config.volumes.iter().find(|volume| volume.name == *name);
        volume.ok_or_else(|| refusal!(UnknownVolume: "quota-helper.conf has no volume {name}; add it"))
    }

    /// The tool for a volume's mount, which is looked up each time.
    pub fn tool(&self, name: &VolumeName) -> Result<Tool, Refusal> {
        let config = &self.config;
        let mountinfo = fs::read_to_string(&config.mounts).map_err(failed("read", &config.mounts))?;
        let (point, line) = mounts::find(&mountinfo, &self.volume(name)?.directory)?;
        let mounts = self.state.keep(&format!("mounts.{name}"), line.as_bytes())?;
        Ok(Tool { program: config.xfs_quota.clone(), mounts, point })
    }

    /// Finishes an interrupted change, and reads the files again if they have changed.
    fn refresh(&mut self) -> Result<(), Refusal> {
        if self.state.intent().exists() {
            self.lock(false)?;
        }
        if self.seen != self.stamps() {
            self.read()?;
        }
        Ok(())
    }

    /// Reads the files; nothing is written.
    pub fn read(&mut self) -> Result<Contents, Refusal> {
        let (seen, [projects, projid, record]) = (self.stamps(), &self.paths);
        let mut content = [files::read(projects)?, files::read(projid)?, files::read(record)?];
        // A line of the record that a crash cut short is as if it had never been written.
        let whole = content[2].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        content[2].truncate(whole);
        self.book = Book::new(&self.config.volumes, &content)?;
        self.seen = seen;
        if let damaged @ 1.. = self.book.damage.len() {
            crate::log(&format!("{damaged} projects differ from the record; see quota-helper check"));
        }
        Ok(content)
    }

    fn stamps(&self) -> Files<Option<Stamp>> {
        self.paths.each_ref().map(|path| files::stamp(path))
    }

    /// Keeps other processes of this program from working at the same time, for as long as the file lives.
    fn lock_state(&self) -> Result<File, Refusal> {
        files::lock(&self.state.path("lock"), true, Some(0o600))
    }

    /// All files, with both project files locked and an interrupted change finished. A lock file that is shared with
    /// other programs goes first.
    fn lock(&self, create: bool) -> Result<(Files<File>, Option<File>), Refusal> {
        // Reading is enough to lock it, and may be all that the directory's sticky bit allows.
        let shared = self.config.lock.as_ref().map(|p| files::lock(p, false, Some(0o666))).transpose()?;
        let lock = |path| files::lock(path, true, create.then_some(0o644));
        let [projects, projid, record] = &self.paths;
        let files = [lock(projects)?, lock(projid)?, files::lock(record, true, Some(0o600))?];
        let intent = self.state.intent();
        if intent.exists() && !self.state.recover(&files).map_err(failed("finish", &intent))? {
            crate::log("others changed a project file after an interrupted change; see quota-helper check");
        }
        Ok((files, shared))
    }

    fn commit(&self, files: &Files<File>, edits: io::Result<Vec<Edit>>) -> Result<(), Refusal> {
        if self.seen != self.stamps() {
            return Err(refusal!(StorageFailed: "others are changing a project file; ask again"));
        }
        let done = edits.and_then(|edits| self.state.commit(files, &edits));
        done.map_err(failed("change", Path::new("a project file")))
    }

    /// Makes the files what the record says, after further projects have been put on record. Without `apply` nothing
    /// is written. The changed lines are given, `-` or `+` in front.
    pub fn repair(&mut self, further: &Record, apply: bool) -> Result<Vec<String>, Refusal> {
        let _working = self.lock_state()?;
        let locked = if apply { Some(self.lock(true)?) } else { None };
        let content = self.read()?;
        let repaired = book::repaired(further, &self.config.volumes, &content)?;
        let both = content.iter().zip(&repaired);
        let changes = both.flat_map(|(old, new)| book::difference(old, new)).collect();
        if let Some((files, _shared)) = locked {
            self.state.keep("projects.backup", &content[0])?;
            self.state.keep("projid.backup", &content[1])?;
            self.commit(&files, edits(content, repaired))?;
        }
        Ok(changes)
    }
}

fn edits(old: Contents, new: Contents) -> io::Result<Vec<Edit>> {
    Ok(old.into_iter().zip(new).map(|(old, new)| Edit::between(old, new)).collect())
}

fn project(id: u32, usage: Usage, created: bool) -> Reply {
    Reply::Project(Project { id, limit: usage.limit, used: usage.used, created })
}
