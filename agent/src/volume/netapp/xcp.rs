//! XCP, NetApp's copier that speaks NFS itself: measures, copies and removes trees on the array's own paths.
//!
//! It needs root, a licence and a catalog (XCP user guide), so at many sites it cannot be used by a service without
//! privileges, other than by a wrapper that the site provides. Where it cannot, the common engines do the work; where a copy
//! by it fails, the copy has failed: half of it may be there.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ontap::Ontap;
use crate::fs::{Dir, Name};
use crate::tree::{self, Control, CopyOptions, CopyReport, Interrupted, RemoveReport, TreeError, Usage};
use crate::volume::Trees;
use crate::volume::tool::{Tool, ToolError, copied, not_copied};

/// How long XCP may take to show its licence.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a verdict about the licence holds.
const VERDICT: Duration = Duration::from_secs(3600);
/// The part of a scan's output that is kept; its figures stand at the end.
const KEPT: usize = 256 * 1024;

/// Where and how XCP is to be called.
pub(super) struct Settings {
    /// The volume's name.
    pub(super) volume: String,
    /// The command that begins each call.
    pub(super) command: Vec<String>,
    /// The host of the array's NFS paths.
    pub(super) host: Option<String>,
    /// The directory that the ONTAP volume, or this qtree of it, is mounted at.
    pub(super) mounted: PathBuf,
    pub(super) qtree: Option<String>,
}

/// XCP, installed or not.
pub(super) struct Xcp {
    settings: Settings,
    ontap: Arc<Ontap>,
    tool: Option<(Tool, String)>,
    licence: Mutex<Licence>,
}

#[derive(Default)]
struct Licence {
    /// When it was looked at, and whether it is active.
    verdict: Option<(Instant, bool)>,
    /// Whether it was said that it is not.
    said: bool,
}

impl Xcp {
    /// XCP as configured. That it is missing is said once.
    pub(super) fn new(settings: Settings, ontap: Arc<Ontap>) -> Self {
        let tool = Tool::find(&settings.command).zip(settings.host.clone());
        let xcp = Xcp { settings, ontap, tool, licence: Mutex::default() };
        match (&xcp.tool, &xcp.settings.host) {
            (Some(_), _) => {}
            (None, Some(_)) => xcp.say_unused("its program is not there"),
            (None, None) => tracing::info!(volume = xcp.settings.volume, "XCP is not configured"),
        }
        xcp
    }

    /// Whether its program is there; its licence is looked at when it is first used.
    pub(super) fn is_installed(&self) -> bool {
        self.tool.is_some()
    }

    /// What is known of it, for the operator.
    pub(super) fn described(&self) -> String {
        match self.usable() {
            Some(_) => "XCP is licensed; it measures, copies and removes trees".to_owned(),
            None => "XCP is not there or has no active licence; trees are worked on without it".to_owned(),
        }
    }

    fn say_unused(&self, why: &str) {
        tracing::warn!(
            volume = self.settings.volume,
            "XCP is not used ({why}); trees are measured, copied and removed without it"
        );
    }

    /// The tool, if its licence is active.
    fn usable(&self) -> Option<&Tool> {
        let (tool, _) = self.tool.as_ref()?;
        let mut licence = self.licence.lock().unwrap_or_else(PoisonError::into_inner);
        let known = licence.verdict.filter(|(at, _)| at.elapsed() < VERDICT).map(|(_, active)| active);
        let active = known.unwrap_or_else(|| {
            let told = tool.ask(&["license"], PATIENCE);
            let active = told.as_ref().is_ok_and(|told| is_active(told));
            licence.verdict = Some((Instant::now(), active));
            if !active && !std::mem::replace(&mut licence.said, true) {
                match told {
                    Ok(_) => self.say_unused("its licence is not active; see `xcp license`"),
                    Err(error) => self.say_unused(&format!("its licence cannot be looked at: {error}")),
                }
            }
            active
        });
        active.then_some(tool)
    }

    /// The tool and the array's path of a directory, or of an entry in it.
    fn prepared(&self, dirs: &[(&Dir, Option<&Name>)]) -> Option<(&Tool, Vec<OsString>)> {
        let tool = self.usable()?;
        let paths = dirs.iter().map(|(dir, name)| self.nfs_path(dir, *name));
        match paths.collect::<Result<Vec<_>, _>>() {
            Ok(paths) => Some((tool, paths)),
            Err(why) => {
                tracing::debug!(volume = self.settings.volume, why, "done without XCP");
                None
            }
        }
    }

    /// `HOST:/JUNCTION/REL`. XCP knows no handles, only paths. Those above a vfolder are this service's own, so nobody else
    /// can put something in their place.
    fn nfs_path(&self, dir: &Dir, name: Option<&Name>) -> Result<OsString, String> {
        let Some((_, host)) = &self.tool else { return Err("XCP is not configured".into()) };
        let handle = tokio::runtime::Handle::try_current().map_err(|error| error.to_string())?;
        let place = handle.block_on(self.ontap.place()).map_err(|error| error.to_string())?;
        let junction = place.junction.as_ref().ok_or("the ONTAP volume has no junction path")?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
        let path = path.map_err(|error| error.to_string())?;
        let mounted = std::fs::canonicalize(&self.settings.mounted).map_err(|error| error.to_string())?;
        let below = path.strip_prefix(&mounted).map_err(|_| "the directory is not below the mount point")?;
        let mut inner = Path::new(junction).to_owned();
        inner.extend(self.settings.qtree.as_deref());
        inner.push(below);
        inner.extend(name.map(Name::as_os_str));
        let mut all = format!("{host}:").into_bytes();
        all.extend_from_slice(inner.as_os_str().as_bytes());
        Ok(OsString::from_vec(all))
    }
}

/// Whether the output of `xcp license` has the line that says so; its exit status says nothing.
fn is_active(told: &str) -> bool {
    told.lines().any(|line| line.trim() == "License status: ACTIVE")
}

/// The figures of `xcp scan -csv`, the start directory taken out.
fn usage_of(report: &str) -> Option<Usage> {
    let figure = |name: &str, place: usize| {
        let line = report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(','))?;
        line.split(',').nth(place)?.trim().parse::<u64>().ok()
    };
    let passed = report.lines().any(|line| line.replace(' ', "") == "STATUS:PASSED");
    let entries = figure("Total count", 0).filter(|_| passed)?;
    let directories = figure("Directories", 0)?;
    let kinds = ["Total space for regular files", "Total space for symlinks", "Total space for directories"];
    let apparent_bytes = kinds.into_iter().map(|kind| figure(kind, 1)).sum::<Option<u64>>()?;
    Some(Usage {
        entries: entries.saturating_sub(1),
        files: entries.saturating_sub(directories),
        apparent_bytes,
        allocated_bytes: figure("Total space used", 0)?,
        ..Usage::default()
    })
}

impl Trees for Xcp {
    fn usage(&self, dir: &Dir, control: &Control, threads: usize) -> Result<Usage, Interrupted> {
        let Some((tool, paths)) = self.prepared(&[(dir, None)]) else {
            return tree::usage(dir, control, threads);
        };
        let arguments = ["scan", "-noid", "-csv"].iter().map(OsString::from).chain(paths);
        let mut printed: Vec<u8> = Vec::new();
        let keep_the_end = |piece: &[u8]| {
            printed.extend_from_slice(piece);
            let over = printed.len().saturating_sub(KEPT);
            printed.drain(..over);
        };
        let scanned = tool.run(&arguments.collect::<Vec<_>>(), None, control, keep_the_end);
        match (scanned, usage_of(&String::from_utf8_lossy(&printed))) {
            (Err(ToolError::Interrupted(interrupted)), _) => Err(interrupted),
            (Ok(()), Some(usage)) => Ok(usage),
            (outcome, _) => {
                let error = outcome.err().map(|error| error.to_string());
                tracing::debug!(error, "measured without XCP");
                tree::usage(dir, control, threads)
            }
        }
    }

    fn copy(
        &self,
        from: &Dir,
        to: &Dir,
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReport, TreeError> {
        // XCP copies all or nothing of what is at the top.
        let whole = options.skip_top.iter().all(|name| from.stat(name).is_err());
        let Some((tool, paths)) = self.prepared(&[(from, None), (to, None)]).filter(|_| whole) else {
            return tree::copy(from, to, options, control);
        };
        let arguments: Vec<_> = [OsString::from("copy")].into_iter().chain(paths).collect();
        match tool.run(&arguments, None, control, |_| {}) {
            Ok(()) => copied(from, to, options, control),
            Err(ToolError::NotStarted { .. }) => tree::copy(from, to, options, control),
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
        if parent.stat(name).is_ok()
            && let Some((tool, paths)) = self.prepared(&[(parent, Some(name))])
        {
            let arguments = ["delete", "-force", "-removetopdir"].iter().map(OsString::from).chain(paths);
            match tool.run(&arguments.collect::<Vec<_>>(), None, control, |_| {}) {
                Err(ToolError::Interrupted(interrupted)) => return Err(interrupted),
                Err(error) => tracing::debug!(%error, "removed without XCP"),
                Ok(()) => {}
            }
        }
        // What XCP left, and the account of what cannot be removed.
        tree::remove_tree(parent, name, control, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_line_says_that_the_licence_is_active() {
        assert!(is_active("XCP 1.9.3\n\nLicense type: SANDBOX\nLicense status: ACTIVE\n"));
        for told in
            ["License status: EXPIRED", "License status: NOT ACTIVE", "xcp: ERROR: must run as root", ""]
        {
            assert!(!is_active(told), "{told}");
        }
    }

    #[test]
    fn a_scan_is_counted_without_the_directory_it_began_at() {
        let report = "scan 10.0.0.7:/vol1\nTotal count,13\nDirectories,3\nRegular files,10\nSymbolic links,0\n\
            Total space for regular files,size,10240,used,40960\nTotal space for symlinks,size,0,used,0\n\
            Total space for directories,size,12288,used,12288\nTotal space used,53248\nSTATUS : PASSED\n";
        let usage = usage_of(report).unwrap();
        assert_eq!((usage.entries, usage.files), (12, 10));
        assert_eq!((usage.apparent_bytes, usage.allocated_bytes), (22528, 53248));
        assert!(usage_of(&report.replace("PASSED", "FAILED")).is_none());
        assert!(usage_of("Total count,13\nSTATUS : PASSED\n").is_none());
    }
}
