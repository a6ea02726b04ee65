//! The process under test: found, started as an ordinary user, watched, and ended by its own pid.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::http::Request;

/// The user and group that the agent has when the tests themselves run as root.
pub const AGENT_ID: u32 = 1100;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the tests run as root, so that they can mount and must drop privileges themselves.
pub fn is_root() -> bool {
    geteuid().is_root()
}

thread_local! {
    /// The first port of this test: cargo's own test runner runs each test in a thread.
    static FIRST_PORT: u16 = {
        static TESTS: AtomicU16 = AtomicU16::new(0);
        6021 + 10 * TESTS.fetch_add(1, Ordering::Relaxed)
    };
}

/// An address for the `index`-th listener (0 to 9) of this test. Each process has its own IPv4 address in 127/8 and
/// each thread its own ports, so that tests which run at the same time never meet each other's agent.
pub fn address(index: u16) -> SocketAddr {
    let pid = std::process::id();
    let ip = Ipv4Addr::new(127, 64 + ((pid >> 16) & 63) as u8, (pid >> 8) as u8, pid as u8);
    SocketAddr::from((ip, FIRST_PORT.with(|first| first + index)))
}

/// The binary under test: `STORAGE_AGENT_BIN`, or the one that was built next to this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("STORAGE_AGENT_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let found = ["", "../debug", "../release"].iter().map(|dir| profile.join(dir).join("storage-agent"));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| {
        panic!("no storage-agent below {}: build it, or name it in STORAGE_AGENT_BIN", profile.display())
    })
}

/// Puts the binary where the agent's user can reach it, whatever the permissions of the build directory.
fn reachable(dir: &Path) -> PathBuf {
    if !is_root() {
        return binary();
    }
    let to = dir.join("storage-agent");
    if !to.exists() {
        let from = binary();
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
    }
    to
}

/// A command that runs the agent as an ordinary user, with an empty environment.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(reachable(dir));
    command.args(args).current_dir(dir).env_clear();
    if is_root() {
        // The supplementary groups of root go as well: std clears them when root sets another uid.
        command.uid(AGENT_ID).gid(AGENT_ID);
    }
    command
}

/// Starts a program. A copy of the binary stays "busy" while another thread's child still has it open for writing,
/// from before its own exec; that passes.
fn spawned(command: &mut Command) -> Child {
    let begin = Instant::now();
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            started => return started.unwrap(),
        }
    }
}

/// Runs a command that must end by itself, and kills it if it does not.
///
/// # Panics
/// If it goes on for too long: a program that serves instead of refusing.
pub fn output(command: &mut Command) -> Output {
    let mut child = spawned(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Gives a tree to the agent's user. Links themselves change hands, not what they point to.
pub fn own(path: &Path) {
    if !is_root() {
        return;
    }
    lchown(path, Some(AGENT_ID), Some(AGENT_ID)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path()));
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent with this configuration file and waits until both APIs answer.
    ///
    /// # Panics
    /// If it ends or stays silent; its log is in the message.
    pub fn start(dir: &Path, config: &Path, apis: [SocketAddr; 2]) -> Self {
        let mut agent = Agent::spawn(dir, config);
        agent.wait_until_ready(apis);
        agent
    }

    /// Starts the agent and waits for nothing.
    pub fn spawn(dir: &Path, config: &Path) -> Self {
        let log = dir.join("agent.log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = command(dir, &["-f", config.to_str().unwrap()]);
        let child = spawned(command.stdout(output.try_clone().unwrap()).stderr(output));
        Agent { child, log }
    }

    fn wait_until_ready(&mut self, apis: [SocketAddr; 2]) {
        let begin = Instant::now();
        while !apis.iter().all(|api| answers(*api)) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended ({status}):\n{}", self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "the agent does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the agent wrote so far, standard output and error together.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for the end of the process for at most this long.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if begin.elapsed() > within => return None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _: io::Result<()> = self.child.kill();
        let _: io::Result<ExitStatus> = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- end of the agent's log ---\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

fn answers(api: SocketAddr) -> bool {
    TcpStream::connect(api).is_ok()
        && Request::new("GET", "/").try_send(api).is_ok_and(|reply| reply.status == 200)
}
