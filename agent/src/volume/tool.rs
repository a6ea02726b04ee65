//! Vendors' command-line tools as child processes.
//!
//! A tool runs in its own process group, with nothing of this process's environment but what vendors document, in a
//! directory that is handed over as an open handle. Its output is read as it comes, its complaints are kept up to a limit,
//! and it is killed with all its children when the work is cancelled or its time is up. All functions block.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::fs::{Access, access};

use crate::fs::{Dir, set_mode_as_allowed};
use crate::tree::{Control, CopyOptions, CopyReport, Interrupted, Problem, TreeError};

/// How often a running tool is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of complaints that are kept.
const COMPLAINTS: usize = 4096;
/// Where a tool finds the programs that it needs itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Places that a tool was told of by these variables, which it may write.
pub(super) fn directories() -> impl Iterator<Item = PathBuf> {
    HANDED_ON
        .iter()
        .filter_map(|name| std::env::var_os(name).map(PathBuf::from))
        .filter(|path| path.is_absolute())
}

/// Variables that vendors document (XCP's configuration, logs and catalog) and that are handed on where they are set.
const HANDED_ON: [&str; 3] = ["XCP_CONFIG_DIR", "XCP_LOG_DIR", "XCP_CATALOG_PATH"];

/// A command: a program and the arguments that always come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    program: PathBuf,
    first: Vec<String>,
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// It was never started, so nothing was done.
    #[error("{program} cannot be started: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The work was cancelled, or its time was up.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// It ended badly.
    #[error("{program} failed ({status}): {complaints}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it said on standard error.
        complaints: String,
    },
}

impl Tool {
    /// The command, if its program is there: an absolute path, or a name that is in `PATH`.
    pub(super) fn find(command: &[String]) -> Option<Self> {
        let (program, first) = command.split_first()?;
        let program = in_path(program, std::env::var_os("PATH").as_deref())?;
        Some(Tool { program, first: first.to_vec() })
    }

    /// The program of this name in a directory, if it is there.
    pub(super) fn within(directory: &Path, name: &str) -> Option<Self> {
        let program = directory.join(name);
        is_program(&program).then(|| Tool { program, first: Vec::new() })
    }

    /// Runs it in `dir`, or at the root, and hands what it prints to `each` piece by piece.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        dir: Option<&Dir>,
        control: &Control,
        each: impl FnMut(&[u8]) + Send,
    ) -> Result<(), ToolError> {
        let mut command = Command::new(&self.program);
        command.args(&self.first).args(arguments);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        command.envs(HANDED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // The handle is still open in the child when it goes there, so no path is looked up that somebody could change.
        match dir {
            Some(dir) => command.current_dir(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())),
            None => command.current_dir("/"),
        };
        let mut child = command.spawn().map_err(|source| self.not_started(source))?;
        let (outcome, complaints) =
            watch(&mut child, control, each).map_err(|source| self.not_started(source))?;
        let status = outcome?;
        if status.success() {
            return Ok(());
        }
        Err(self.failed(&status.to_string(), &complaints))
    }

    /// Runs it for at most this long and returns the beginning of all that it prints, however it ends.
    pub(super) fn ask(&self, arguments: &[&str], patience: Duration) -> Result<String, ToolError> {
        let control = Control::with_deadline(Instant::now() + patience);
        let mut printed = Vec::new();
        let keep = |piece: &[u8]| {
            let room = COMPLAINTS.saturating_sub(printed.len()).min(piece.len());
            printed.extend_from_slice(piece.get(..room).unwrap_or_default());
        };
        match self.run(arguments, None, &control, keep) {
            Ok(()) => Ok(String::from_utf8_lossy(&printed).into_owned()),
            Err(ToolError::Failed { complaints, .. }) => {
                Ok(format!("{}{complaints}", String::from_utf8_lossy(&printed)))
            }
            Err(error) => Err(error),
        }
    }

    /// A failure that the exit status did not tell.
    pub(super) fn failed(&self, status: &str, complaints: &str) -> ToolError {
        ToolError::Failed {
            program: self.name(),
            status: status.to_owned(),
            complaints: complaints.to_owned(),
        }
    }

    fn not_started(&self, source: io::Error) -> ToolError {
        ToolError::NotStarted { program: self.name(), source }
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }
}

/// A handle that children inherit, and its path in them.
pub(super) fn inherited(dir: &Dir) -> io::Result<(OwnedFd, OsString)> {
    // Unlike the handle itself, a plain duplicate is not closed when a program is executed.
    let fd = rustix::io::dup(dir)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
    Ok((fd, path))
}

/// The report of a copy that a tool has made, and made durable where that is wanted.
pub(super) fn copied(
    from: &Dir,
    to: &Dir,
    options: &CopyOptions,
    control: &Control,
) -> Result<CopyReport, TreeError> {
    let failed = |action| move |cause| TreeError::Failed(Problem { path: ".".into(), action, cause });
    // The directory itself was there already, so no tool has given it the mode of the source.
    let mode = from.stat_self().map_err(failed("look at"))?.permissions();
    let made = to.stat_self().map_err(failed("look at the copy"))?;
    set_mode_as_allowed(to, &made, mode).map_err(failed("set the mode"))?;
    if options.sync {
        rustix::fs::syncfs(to).map_err(|error| failed("make durable")(error.into()))?;
    }
    let progress = control.progress();
    let (entries, bytes) = (progress.entries_total, progress.bytes_total);
    control.advance(entries.saturating_sub(progress.entries_done), bytes.saturating_sub(progress.bytes_done));
    Ok(CopyReport { entries, bytes, ..CopyReport::default() })
}

/// Why a tool made no copy, or only a part.
pub(super) fn not_copied(error: ToolError) -> TreeError {
    match error {
        ToolError::Interrupted(interrupted) => interrupted.into(),
        error => {
            TreeError::Failed(Problem { path: ".".into(), action: "copy", cause: io::Error::other(error) })
        }
    }
}

fn in_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|program| program.is_absolute() && is_program(program));
    }
    let directories = path.map(std::env::split_paths).into_iter().flatten();
    directories
        .filter(|directory| directory.is_absolute())
        .map(|at| at.join(program))
        .find(|at| is_program(at))
}

fn is_program(path: &Path) -> bool {
    let executable = |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    std::fs::metadata(path).is_ok_and(executable) && access(path, Access::EXEC_OK).is_ok()
}

type Watched = (Result<ExitStatus, Interrupted>, String);

/// Reads what the child prints until it ends, or ends it.
fn watch(child: &mut Child, control: &Control, mut each: impl FnMut(&[u8]) + Send) -> io::Result<Watched> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || drain(stdout, &mut each));
        let complaints = scope.spawn(move || {
            let mut kept = Vec::new();
            drain(stderr, &mut |piece: &[u8]| {
                let room = COMPLAINTS.saturating_sub(kept.len()).min(piece.len());
                kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            });
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        let outcome = wait(child, control);
        let complaints = complaints.join().unwrap_or_default();
        outcome.map(|outcome| (outcome, complaints))
    })
}

fn drain(pipe: Option<impl Read>, each: &mut impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => each(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Waits for the child. Its group is killed while the child still holds the group's number: whatever it left behind would
/// keep the pipes open.
fn wait(child: &mut Child, control: &Control) -> io::Result<Result<ExitStatus, Interrupted>> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let interrupted = loop {
        if !matches!(waitid(Id::Pid(pid), ended)?, WaitStatus::StillAlive) {
            break None;
        }
        if let Err(interrupted) = control.check() {
            break Some(interrupted);
        }
        std::thread::sleep(LOOK);
    };
    // No such group: nobody but the child was in it, and it has ended.
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait()?;
    Ok(interrupted.map_or(Ok(status), Err))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Tool {
        Tool::find(&["/bin/sh".into(), "-c".into(), script.into()]).unwrap()
    }

    fn dir(path: &Path) -> Dir {
        Dir::open_root(path).unwrap()
    }

    #[test]
    fn a_tool_runs_in_the_directory_without_our_environment() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("seen"), "x").unwrap();
        let mut printed = Vec::new();
        let each = |piece: &[u8]| printed.extend_from_slice(piece);
        sh("ls; env; echo no >&2")
            .run::<&str>(&[], Some(&dir(directory.path())), &Control::new(), each)
            .unwrap();
        let text = String::from_utf8(printed).unwrap();
        assert!(text.starts_with("seen\n") && text.contains("PATH=/usr/local/sbin"), "{text}");
        assert!(!text.contains("CARGO") && !text.contains("HOME="), "{text}");
    }

    #[test]
    fn a_failure_tells_the_status_and_the_first_complaints() {
        let error = sh("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3");
        let error = error.run::<&str>(&[], None, &Control::new(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.len() < 5000, "{}", error.len());
    }

    #[test]
    fn what_takes_too_long_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let late = directory.path().join("late");
        let script = format!("(sleep 1; touch {}) & sleep 30", late.display());
        let begun = Instant::now();
        let control = Control::with_deadline(Instant::now() + Duration::from_millis(100));
        let outcome = sh(&script).run::<&str>(&[], None, &control, |_| {});
        assert!(matches!(outcome, Err(ToolError::Interrupted(Interrupted::Deadline))), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!late.exists());
    }

    #[test]
    fn what_a_tool_leaves_behind_does_not_keep_us() {
        let begun = Instant::now();
        sh("sleep 30 & exit 0").run::<&str>(&[], None, &Control::new(), |_| {}).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_inherited_handle_leads_to_its_directory_in_the_child() {
        let directory = tempfile::tempdir().unwrap();
        let (_held, path) = inherited(&dir(directory.path())).unwrap();
        let touch = Tool::find(&["touch".into()]).unwrap();
        let target = Path::new(&path).join("made");
        touch.run(&[&target], None, &Control::new(), |_| {}).unwrap();
        assert!(directory.path().join("made").exists());
    }

    #[test]
    fn only_a_program_is_a_tool() {
        assert_eq!(Tool::find(&["no-such-program-anywhere".into()]), None);
        assert_eq!(Tool::find(&["./relative".into()]), None);
        let plain = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Tool::find(&[plain.path().display().to_string()]), None);
        assert_eq!(Tool::find(&[]), None);
    }
}
