//! Sockets that a service manager keeps open: the agent restarts behind them, and nobody is refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use storage_agent_tests::agent::{AGENT_ID, address, command, is_root, output};
use storage_agent_tests::site::Site;

/// Two listening sockets without `FD_CLOEXEC`, as a service manager hands them over.
struct Sockets([OwnedFd; 2]);

impl Sockets {
    fn bind(addresses: [SocketAddr; 2]) -> Self {
        Sockets(addresses.map(|address| rustix::io::dup(TcpListener::bind(address).unwrap()).unwrap()))
    }

    /// Starts the agent with them as descriptors 3 and 4, the way of sd_listen_fds(3).
    fn start(&self, site: &Site, names: &str) -> Child {
        // Puts the binary where the agent's user reaches it.
        output(&mut command(site.dir(), &["--version"]));
        let program = command(site.dir(), &[]).get_program().to_owned();
        let [first, second] = [self.0[0].as_raw_fd(), self.0[1].as_raw_fd()];
        // Out of the way first: a redirection to 3 would close what is still to be moved to 4.
        let script =
            format!("exec 8<&{first} 9<&{second} 3<&8 4<&9 8<&- 9<&-; LISTEN_PID=$$ exec \"$0\" -f \"$1\"");
        let log = std::fs::File::options().create(true).append(true).open(site.path("agent.log")).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg(program).arg(site.config()).current_dir(site.dir()).env_clear();
        shell.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
        if is_root() {
            shell.uid(AGENT_ID).gid(AGENT_ID);
        }
        shell.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }
}

/// Ends the agent as a service manager does.
fn stop(mut agent: Child) {
    kill_process(Pid::from_raw(agent.id() as i32).unwrap(), Signal::TERM).unwrap();
    let begin = Instant::now();
    while agent.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            agent.kill().unwrap();
            panic!("the agent does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Connects, asks, and reads the reply to its end.
fn ask(api: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// What the log says, for a panic.
fn log(site: &Site) -> String {
    std::fs::read_to_string(site.path("agent.log")).unwrap_or_default()
}

#[test]
fn ten_restarts_refuse_nobody() {
    const RESTARTS: usize = 10;
    let site = Site::prepare(|_| {});
    let sockets = Sockets::bind([site.client, site.manager]);
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    let last = std::thread::scope(|scope| {
        for api in [site.client, site.manager, site.client, site.manager] {
            let (over, asked, failures) = (&over, &asked, &failures);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match ask(api) {
                        Ok(reply) if reply.starts_with("HTTP/1.1 200") => {
                            let _ = asked.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failures.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            });
        }
        for _ in 0..RESTARTS {
            let agent = sockets.start(&site, "client:manager");
            let until = asked.load(Ordering::Relaxed) + 50;
            let begin = Instant::now();
            while asked.load(Ordering::Relaxed) < until && begin.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(2));
            }
            stop(agent);
        }
        over.store(true, Ordering::Relaxed);
        // Those who are still waiting have to be answered.
        sockets.start(&site, "client:manager")
    });
    stop(last);
    let failures = failures.into_inner().unwrap();
    println!(
        "{RESTARTS} restarts, {} requests on new connections, {} failed",
        asked.into_inner(),
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:?}\n{}", log(&site));
}

#[test]
fn a_socket_is_known_by_its_port_where_it_has_no_name_of_ours() {
    let site = Site::prepare(|_| {});
    let sockets = Sockets::bind([site.manager, site.client]);
    let agent = sockets.start(&site, "storage-agent.socket:storage-agent.socket");
    let replies = [ask(site.client).unwrap(), ask(site.manager).unwrap()];
    stop(agent);
    assert!(replies[0].contains("client-facing") && replies[1].contains("manager-facing"), "{replies:?}");
}

#[test]
fn a_socket_that_nobody_wants_stops_the_start() {
    let site = Site::prepare(|_| {});
    let sockets = Sockets::bind([site.client, address(7)]);
    let mut agent = sockets.start(&site, ":");
    let status = agent.wait().unwrap();
    assert!(!status.success());
    assert!(log(&site).contains("no API listens on"), "{}", log(&site));
}
