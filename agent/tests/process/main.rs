//! The program as an operator meets it: how it starts, who it is then, what it says, and how it ends.
//!
//! Run as root, the tests have the program switch to an ordinary user by its configuration; otherwise it stays who
//! runs them.

// clippy's exceptions for tests do not reach helpers of integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod check;
mod identity;
mod service;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

/// Nothing in these tests may take longer.
const LONG: Duration = Duration::from_secs(10);
/// Who the program becomes when the tests run as root.
const ORDINARY: u32 = 61_100;
const TOKEN_SECRET: &str = "TOKENSECRET-0123456789abcdef0123456789abcdef";
const MANAGER_SECRET: &str = "MANAGERSECRET-0123456789abcdef0123456789abcdef";

fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A site: a directory with a configuration and a volume.
struct Site {
    dir: TempDir,
    client: u16,
    manager: u16,
    internal: u16,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let site = Site { dir, client: free_port(), manager: free_port(), internal: free_port() };
        fs::create_dir(site.path("volume")).unwrap();
        fs::create_dir(site.path("run")).unwrap();
        if is_root() {
            for place in ["volume", "run"] {
                chown(site.path(place), Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
        site.configure("", "");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("storage-proxy.toml")
    }

    /// Writes the configuration with lines added to `[storage-proxy]` and at the end.
    fn configure(&self, proxy: &str, more: &str) {
        let user = if is_root() { format!("user = {ORDINARY}\ngroup = {ORDINARY}\n") } else { String::new() };
        self.write(&format!(
            "[storage-proxy]\nnode-id = \"node-7\"\nsecret = \"{TOKEN_SECRET}\"\nsession-expire = \"1d\"\n\
             pid-file = \"run/agent.pid\"\n{user}{proxy}\n\
             [api.client]\nservice-addr = \"127.0.0.1:{}\"\nssl-enabled = false\n\
             [api.manager]\nservice-addr = \"127.0.0.1:{}\"\nssl-enabled = false\nsecret = \"{MANAGER_SECRET}\"\n\
             internal-addr = \"127.0.0.1:{}\"\n\
             [volume.local]\nbackend = \"vfs\"\npath = \"{}\"\n{more}\n",
            self.client, self.manager, self.internal, self.path("volume").display()
        ));
    }

    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage-agent"));
        command.args(arguments).arg("-f").arg(self.config()).env_remove("NOTIFY_SOCKET").current_dir("/");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts the service and waits until it says that it is ready.
    fn serve(&self, arguments: &[&str]) -> Service {
        self.serve_with(arguments, &[])
    }

    fn serve_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let notify = UnixDatagram::bind(self.path("notify")).unwrap();
        fs::set_permissions(self.path("notify"), fs::Permissions::from_mode(0o777)).unwrap();
        notify.set_read_timeout(Some(LONG)).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(arguments);
        let child =
            command.envs(environment.iter().copied()).env("NOTIFY_SOCKET", self.path("notify")).stderr(log);
        let child = child.stdin(Stdio::null()).spawn();
        let service = Service { child: child.unwrap(), notify, log: self.path("log") };
        assert_eq!(service.state(), "READY=1", "{}", service.log());
        service
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running service; killed when dropped.
struct Service {
    child: Child,
    notify: UnixDatagram,
    log: PathBuf,
}

impl Service {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// What it tells systemd next.
    fn state(&self) -> String {
        let mut buffer = [0; 64];
        let read = self.notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end; the exit status.
    fn end(&mut self) -> Option<i32> {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(LONG / 1000);
        }
        panic!("the service does not end\n{}", self.log());
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request and reads to the end of the connection.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

fn get(port: u16, path: &str, headers: &str) -> String {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
