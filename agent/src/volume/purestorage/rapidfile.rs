//! The RapidFile Toolkit: Pure Storage's parallel `du`, `cp` and `rm` for NFS mounts.
//!
//! No manual of it is public, so its output is read with suspicion. Where it is not installed, the common engines do the
//! work; where a copy by it fails, the copy has failed: half of it may be there. Its own measure is apparent sizes only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::fs::{Dir, FileKind, Name};
use crate::tree::{self, Control, CopyOptions, CopyReport, Interrupted, RemoveReport, TreeError, Usage};
use crate::volume::Trees;
use crate::volume::tool::{Tool, ToolError, copied, inherited, not_copied};

/// How long the toolkit may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// More entries at the top are copied by the common engine instead of by one process each.
const MOST_AT_TOP: usize = 256;
/// The longest record of `pdu` that is taken for one.
const LONGEST_RECORD: usize = 64 * 1024;

/// The toolkit, installed or not.
pub(super) struct RapidFile {
    volume: String,
    directory: Option<PathBuf>,
    found: OnceLock<Option<Toolkit>>,
}

struct Toolkit {
    /// 1 or 2.
    version: u8,
    du: Tool,
    cp: Tool,
    rm: Tool,
}

impl RapidFile {
    /// The toolkit in this directory, or in `PATH`. That it is missing is said once.
    pub(super) fn new(volume: &str, directory: Option<PathBuf>) -> Self {
        let toolkit = RapidFile { volume: volume.to_owned(), directory, found: OnceLock::new() };
        if toolkit.tool("pdu").is_none() {
            toolkit.say_missing("pdu is not there");
            let _ = toolkit.found.set(None);
        }
        toolkit
    }

    /// Whether it seems to be there; asking it for its version is left to the first use.
    pub(super) fn is_installed(&self) -> bool {
        !matches!(self.found.get(), Some(None))
    }

    /// What is known of it, for the operator.
    pub(super) fn described(&self) -> String {
        match self.toolkit() {
            Some(toolkit) => {
                format!("RapidFile Toolkit {} measures, copies and removes trees", toolkit.version)
            }
            None => "the RapidFile Toolkit is not there; trees are worked on without it".to_owned(),
        }
    }

    fn tool(&self, name: &str) -> Option<Tool> {
        tool(self.directory.as_deref(), name)
    }

    fn toolkit(&self) -> Option<&Toolkit> {
        let look = || {
            let looked = self.look();
            if let Err(why) = &looked {
                self.say_missing(why);
            }
            looked.ok()
        };
        self.found.get_or_init(look).as_ref()
    }

    fn look(&self) -> Result<Toolkit, String> {
        let tool = |name: &str| self.tool(name).ok_or_else(|| format!("{name} is not there"));
        let du = tool("pdu")?;
        let banner = du.ask(&["--version"], PATIENCE).map_err(|error| error.to_string())?;
        let version = version(&banner).ok_or("pdu does not tell a version that is known")?;
        let cp = tool(if version == 1 { "pcp" } else { "pcopy" })?;
        Ok(Toolkit { version, du, cp, rm: tool("prm")? })
    }

    fn say_missing(&self, why: &str) {
        tracing::warn!(
            volume = self.volume,
            "the RapidFile Toolkit is not used ({why}); trees are measured, copied and removed without it"
        );
    }
}

/// The tool of this name in the directory, or in `PATH`.
pub(super) fn tool(directory: Option<&Path>, name: &str) -> Option<Tool> {
    match directory {
        Some(directory) => Tool::within(directory, name),
        None => Tool::find(&[name.to_owned()]),
    }
}

/// The major version that the first line tells: `pdu (RapidFile Toolkit) 1.0`, `version pdu (RapidFile) 2.1.1`. One that is
/// yet to come is taken for the newest that is known.
fn version(banner: &str) -> Option<u8> {
    let line = banner.lines().next()?;
    let (_, number) = line.split_once("(RapidFile")?.1.split_once(')')?;
    let major: u8 = number.trim_start().split('.').next()?.parse().ok()?;
    match major {
        0 => None,
        1 => Some(1),
        _ => Some(2),
    }
}

/// Adds up what `pdu -0 -b -a .` prints: `SIZE<blank>PATH<NUL>` for each entry, the sizes of directories including what is
/// below them, so the one of `.` is the total.
#[derive(Default)]
struct Sum {
    pending: Vec<u8>,
    entries: u64,
    total: Option<u64>,
    odd: bool,
}

impl Sum {
    fn add(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == 0) {
            if self.pending.len() + part.len() > LONGEST_RECORD {
                self.odd = true;
                self.pending.clear();
                continue;
            }
            self.pending.extend_from_slice(part);
            if self.pending.last() == Some(&0) {
                self.record();
                self.pending.clear();
            }
        }
    }

    fn record(&mut self) {
        let record = self.pending.strip_suffix(b"\0").unwrap_or(&self.pending);
        let digits = record.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (size, path) = record.split_at_checked(digits).unwrap_or_default();
        let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<u64>().ok());
        match (size, path.trim_ascii_start()) {
            (Some(size), b"." | b"./") => self.total = Some(size),
            (Some(_), path) if !path.is_empty() => self.entries += 1,
            _ => self.odd = true,
        }
    }
}

impl Toolkit {
    /// The measure, or nothing if the tool could not tell it.
    fn usage(&self, dir: &Dir, control: &Control) -> Result<Option<Usage>, Interrupted> {
        let mut sum = Sum::default();
        match self.du.run(&["-0", "-b", "-a", "."], Some(dir), control, |piece| sum.add(piece)) {
            Ok(()) => {}
            Err(ToolError::Interrupted(interrupted)) => return Err(interrupted),
            Err(error) => {
                tracing::debug!(%error, "measured without the RapidFile Toolkit");
                return Ok(None);
            }
        }
        let own = dir.stat_self().map(|stat| stat.size).unwrap_or(0);
        Ok(sum.total.filter(|_| !sum.odd).map(|total| Usage {
            entries: sum.entries,
            files: sum.entries,
            apparent_bytes: total.saturating_sub(own),
            allocated_bytes: total,
            ..Usage::default()
        }))
    }

    /// Copies what is at the top one by one, since version 1 cannot copy onto a directory that is there, and neither can
    /// leave an entry out.
    fn copy(&self, from: &Dir, to: &Dir, names: &[Name], control: &Control) -> Result<(), ToolError> {
        let not_started = |source| ToolError::NotStarted { program: "pcopy".into(), source };
        let (_held, target) = inherited(to).map_err(not_started)?;
        for name in names {
            let is_dir = from.stat(name).is_ok_and(|stat| stat.kind == FileKind::Dir);
            let (mut source, mut place) = (OsString::from("./"), target.clone());
            source.push(name.as_os_str());
            place.push("/");
            place.push(name.as_os_str());
            let recursive: &[&str] = if is_dir { &["-r", "-p"] } else { &["-p"] };
            let mut arguments: Vec<OsString> = recursive.iter().map(OsString::from).collect();
            arguments.extend([source, place]);
            self.cp.run(&arguments, Some(from), control, |_| {})?;
        }
        Ok(())
    }
}

/// What is to be copied, if it is little enough.
fn top(from: &Dir, options: &CopyOptions) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    for entry in from.entries().ok()? {
        let name = entry.ok()?.name;
        if !options.skip_top.contains(&name) {
            names.push(name);
        }
        if names.len() > MOST_AT_TOP {
            return None;
        }
    }
    Some(names)
}

impl Trees for RapidFile {
    fn usage(&self, dir: &Dir, control: &Control, threads: usize) -> Result<Usage, Interrupted> {
        if let Some(toolkit) = self.toolkit()
            && let Some(usage) = toolkit.usage(dir, control)?
        {
            return Ok(usage);
        }
        tree::usage(dir, control, threads)
    }

    fn copy(
        &self,
        from: &Dir,
        to: &Dir,
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReport, TreeError> {
        let (Some(toolkit), Some(names)) = (self.toolkit(), top(from, options)) else {
            return tree::copy(from, to, options, control);
        };
        match toolkit.copy(from, to, &names, control) {
            Ok(()) => copied(from, to, options, control),
            // Nothing was done by a tool that never ran, unless one before it did.
            Err(ToolError::NotStarted { .. }) if to.entries().is_ok_and(|mut made| made.next().is_none()) => {
                tree::copy(from, to, options, control)
            }
            Err(error) => Err(not_copied(error)),
        }
    }

    fn remove(
        &self,
        parent: &Dir,
        name: &Name,
        control: &Control,
        threads: usize,
    ) -> Result<RemoveReport, Interrupted> {
        if let Some(toolkit) = self.toolkit()
            && parent.stat(name).is_ok()
        {
            let mut path = OsString::from("./");
            path.push(name.as_os_str());
            match toolkit.rm.run(&[OsString::from("-r"), path], Some(parent), control, |_| {}) {
                Err(ToolError::Interrupted(interrupted)) => return Err(interrupted),
                Err(error) => tracing::debug!(%error, "removed without the RapidFile Toolkit"),
                Ok(()) => {}
            }
        }
        // What the tool left, and the account of what cannot be removed.
        tree::remove_tree(parent, name, control, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_both_banners() {
        assert_eq!(version("pdu (RapidFile Toolkit) 1.0\n"), Some(1));
        assert_eq!(version("version pdu (RapidFile) 2.1.1"), Some(2));
        assert_eq!(version("version pdu (RapidFile) 3.0"), Some(2));
        for odd in ["", "pdu: not a version", "(RapidFile)", "pdu (RapidFile Toolkit) x.1"] {
            assert_eq!(version(odd), None, "{odd}");
        }
    }

    #[test]
    fn records_are_added_up_however_they_are_cut() {
        let output = b"13\t./a\nb\x004096 ./sub\x004122\t.\x00";
        for size in [1, 7, output.len()] {
            let mut sum = Sum::default();
            output.chunks(size).for_each(|piece| sum.add(piece));
            assert_eq!((sum.entries, sum.total, sum.odd), (2, Some(4122), false));
        }
        let mut sum = Sum::default();
        sum.add(b"pdu: warning\0");
        assert!(sum.odd);
    }
}
