//! Runs the real `quota-helper` as root, confined as in production, with a fake `xfs_quota` and a fake mount, and
//! speaks to it as any user, in requests or in raw bytes. Its protocol is the one thing of the project's own crates
//! that is used here: a test of single bytes in `common` pins it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::protocol::{Project, RefusalKind, Reply, Request, Subject, VolumeName, call};
use rustix::process::{Gid, Pid, Signal, Uid, kill_process_group};
use tempfile::TempDir;

/// The user whose requests are answered.
pub const AGENT: u32 = 6021;
/// Lines of others in both files: they are never touched.
pub const FOREIGN: [&str; 2] =
    ["# projects\n\n7:/srv/seven\nnonsense\n8:/srv/eight:with:colons\n", "seven:7\n#eight\neight:8\n"];

/// A helper with its files, running or not.
pub struct Helper {
    dir: TempDir,
    child: Option<Child>,
}

impl Helper {
    /// Files and configuration of a helper that isn't running yet. `more` is added to the configuration.
    pub fn new(more: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests start quota-helper as root: run them as root"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let helper = Helper { dir, child: None };
        for name in ["volume", "second"] {
            fs::create_dir(helper.path(name)).unwrap();
        }
        for (name, content) in ["projects", "projid"].iter().zip(FOREIGN) {
            fs::write(helper.path(name), content).unwrap();
        }
        fs::copy(built("fake_xfs_quota"), helper.path("xfs_quota")).unwrap();
        let base = helper.dir.path().display().to_string();
        let mount =
            |name: &str| format!("27 26 98:0 / {base}/{name} rw,relatime - xfs /dev/{name} rw,prjquota\n");
        fs::write(helper.path("mounts"), format!("{}{}", mount("volume"), mount("second"))).unwrap();
        let config = format!(
            "agent {AGENT}\nxfs_quota {base}/xfs_quota\nids 1000-99999\nstate {base}/state\n\
             socket {base}/socket\nprojects {base}/projects\nprojid {base}/projid\nmounts {base}/mounts\n\
             volume data {base}/volume\nvolume second {base}/second\nrequests-per-second 10000\n{more}"
        );
        fs::write(helper.path("conf"), config).unwrap();
        helper
    }

    /// A helper that runs.
    pub fn started(more: &str) -> Self {
        let mut helper = Helper::new(more);
        helper.start();
        helper
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        fs::write(self.path("log"), "").unwrap();
        let mut command = self.command("serve");
        self.spawn(&mut command);
        assert!(!self.wait_until_ready_or_end(), "the helper does not start: {}", self.log());
        fs::set_permissions(self.path("socket"), fs::Permissions::from_mode(0o666)).unwrap();
    }

    /// Runs a command as this helper, with its standard error going to the log.
    pub fn spawn(&mut self, command: &mut Command) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().unwrap());
    }

    /// Takes over a helper that was started otherwise.
    pub fn adopt(&mut self, child: Child) {
        self.child = Some(child);
    }

    /// `quota-helper COMMAND --config …`.
    pub fn command(&self, command: &str) -> Command {
        let mut helper = Command::new(built("quota-helper"));
        helper.arg(command).arg("--config").arg(self.path("conf")).env_clear();
        helper
    }

    /// Output of a command of the operator's, with `more` arguments, and whether it ended well.
    pub fn operator(&self, command: &str, more: &[&str]) -> (String, bool) {
        let output = self.command(command).args(more).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8(said).unwrap(), output.status.success())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // With all that it runs, or that runs it.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            child.wait().unwrap();
        }
    }

    /// Waits until it says that it is ready (`false`) or has ended before.
    pub fn wait_until_ready_or_end(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            if self.log().ends_with("ready\n") {
                return false;
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return true;
            }
            sleep(Duration::from_millis(1));
        }
        panic!("the helper neither starts nor ends: {}", self.log());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// A file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a file of its own says.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.text("log")
    }

    /// Makes the fake `xfs_quota` misbehave.
    pub fn misbehave(&self, mode: &str) {
        fs::write(self.path("state/mode"), mode).unwrap();
    }

    /// Adds files to a project of the fake kernel.
    pub fn fill(&self, id: u32, used: u64, inodes: u64, limit_kib: u64) {
        let kernel = self.text("state/kernel") + &format!("{id} {used} {inodes} {limit_kib}\n");
        fs::write(self.path("state/kernel"), kernel).unwrap();
    }

    /// One request of the agent's on a connection of its own.
    pub fn ask(&self, request: &Request) -> Reply {
        self.as_user(AGENT, |stream| {
            call(stream, request).unwrap_or_else(|error| panic!("{request:?}: {error}; log:\n{}", self.log()))
        })
    }

    /// The project in the reply.
    pub fn project(&self, request: &Request) -> Project {
        match self.ask(request) {
            Reply::Project(project) => project,
            other => panic!("{request:?} was answered with {other:?}; log:\n{}", self.log()),
        }
    }

    /// The kind and text of the refusal.
    pub fn refusal(&self, request: &Request) -> (RefusalKind, String) {
        match self.ask(request) {
            Reply::Refused(refusal) => (refusal.kind, refusal.message),
            other => panic!("{request:?} was answered with {other:?}"),
        }
    }

    /// Connects as a user and uses the connection as that user.
    pub fn as_user<T: Send>(&self, uid: u32, act: impl FnOnce(&mut UnixStream) -> T + Send) -> T {
        let socket = self.path("socket");
        as_user(uid, || act(&mut connect(&socket)))
    }

    /// Whether the files hold all lines of others, in their order, and nothing else than lines of subjects.
    pub fn check_foreign_lines(&self) {
        for (name, foreign) in ["projects", "projid"].iter().zip(FOREIGN) {
            let text = self.text(name);
            let kept: String = text.split_inclusive('\n').filter(|line| foreign.contains(line)).collect();
            assert_eq!(kept, foreign, "the lines of others in {name}:\n{text}");
        }
    }

    /// Whether no id, directory or name is twice in the lines that are not of others.
    pub fn check_no_duplicates(&self) -> usize {
        let base = self.dir.path().display().to_string();
        let own = |name: &str| -> Vec<(String, String)> {
            let text = self.text(name);
            let lines = text.lines().filter(|line| line.contains(&base) || line.len() > 32);
            lines
                .map(|line| line.split_once(':').unwrap())
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .collect()
        };
        let (projects, projid) = (own("projects"), own("projid"));
        for column in [
            projects.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            projects.iter().map(|(_, path)| path).collect(),
            projid.iter().map(|(name, _)| name).collect(),
            projid.iter().map(|(_, id)| id).collect(),
        ] {
            let different: std::collections::HashSet<_> = column.iter().collect();
            assert_eq!(different.len(), column.len(), "something is twice in {column:?}");
        }
        projects.len()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Does something as another user, in a thread of its own.
pub fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (gid, uid) = (Gid::from_raw(uid), Uid::from_raw(uid));
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A connection that gives up after a while.
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Writes bytes, and gives all that comes back until the connection ends.
pub fn exchange(stream: &mut UnixStream, bytes: &[u8]) -> Vec<u8> {
    // A helper that has closed the connection need not take the rest.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

/// The first volume of the configuration.
pub fn volume() -> VolumeName {
    "data".parse().unwrap()
}

/// The scope with this number in its last digits.
pub fn scope(number: u128) -> Subject {
    Subject::Scope(((0xa << 124) | number).into())
}

/// A request for a scope with this number and limit.
pub fn create(number: u128, limit: u64) -> Request {
    Request::Create { volume: volume(), subject: scope(number), limit }
}

/// A request to remove it.
pub fn remove(number: u128) -> Request {
    Request::Remove { volume: volume(), subject: scope(number) }
}

/// A program that was built beside this test.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "build it first: {}", path.display());
    path
}
