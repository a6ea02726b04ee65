//! The quota helper killed at every system call of every operation.
//!
//! A first run under `strace` lists the calls; then, for each of them, the helper is put back into the same state and
//! killed there. After each kill all lines of others have to be there byte for byte, the next start has to leave
//! nothing half done and nothing twice, and the same request has to succeed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::protocol::{FrameError, RefusalKind, Reply, Request, call};
use storage_agent_tests::helper::{AGENT, Helper, as_user, connect, create, remove, scope, volume};

const MIB: u64 = 1 << 20;
const FILES: [&str; 6] =
    ["projects", "projid", "state/record", "state/kernel", "state/intent", "state/mounts.data"];

/// The content of all files at one moment.
type Saved = Vec<Option<Vec<u8>>>;

fn save(helper: &Helper) -> Saved {
    FILES.iter().map(|name| fs::read(helper.path(name)).ok()).collect()
}

/// The same content in the same inodes, as after the helper was killed.
fn restore(helper: &Helper, saved: &Saved) {
    for (name, content) in FILES.iter().zip(saved) {
        match content {
            Some(content) => fs::write(helper.path(name), content).unwrap(),
            None => drop(fs::remove_file(helper.path(name))),
        }
    }
}

/// A system call: its name, and how many of that name came before it, and it.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    number: usize,
}

/// What `strace` shall do to the process.
enum Aim<'a> {
    Trace(&'a Path),
    Kill(&'a Call),
}

fn strace(aim: &Aim<'_>) -> Command {
    let mut strace = Command::new("strace");
    match aim {
        Aim::Trace(to) => strace.args(["-qq", "-o"]).arg(to),
        Aim::Kill(Call { name, number }) => {
            strace.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={name}:signal=KILL:when={number}")])
        }
    };
    strace
}

/// The calls of a trace, in their order.
fn calls(trace: &Path) -> Vec<Call> {
    let mut counts = HashMap::new();
    let text = fs::read_to_string(trace).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.trim());
    let names =
        names.filter(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    names
        .map(|name| {
            let number = counts.entry(name.to_owned()).or_default();
            *number += 1;
            Call { name: name.to_owned(), number: *number }
        })
        .collect()
}

/// Attaches to a running helper, which waits for a request, or is killed in doing so.
fn attach(helper: &Helper, aim: &Aim<'_>) -> Child {
    let pid = helper.pid().to_string();
    let mut child = strace(aim).args(["-p", &pid]).spawn().expect("these tests need strace: install it");
    let begin = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let waits = !status.contains("TracerPid:\t0\n") && status.contains("State:\tS");
        if waits || child.try_wait().unwrap().is_some_and(|status| status.success()) {
            return child;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "strace does not attach");
        sleep(Duration::from_millis(1));
    }
}

/// Asks the same in the same state again and again, killing one system call later each time, and `check`s the state
/// after a restart. Gives the number of kills.
fn sweep(name: &str, before: &[Request], request: &Request, check: impl Fn(&Helper)) -> usize {
    let mut helper = Helper::started("");
    for request in before {
        helper.project(request);
    }
    let (saved, trace) = (save(&helper), helper.path("trace"));
    ask_once(&mut helper, &Aim::Trace(&trace), request)
        .expect("the request is answered when nothing is killed");
    let (calls, mut kills) = (calls(&trace), 0);
    for call in &calls {
        helper.kill();
        restore(&helper, &saved);
        kills += usize::from(ask_once(&mut helper, &Aim::Kill(call), request).is_err());
        check_after(&helper, request, &format!("killed at {call:?}"));
        check(&helper);
    }
    println!("{name}: {} system calls, {kills} kills", calls.len());
    // How often it looks whether xfs_quota has ended differs from run to run.
    assert!(kills > 20 && kills * 10 >= calls.len() * 9, "{kills} of {}", calls.len());
    kills
}

/// One request to a fresh helper, and a restart after it.
fn ask_once(helper: &mut Helper, aim: &Aim<'_>, request: &Request) -> Result<Reply, FrameError> {
    helper.start();
    let mut tracer = attach(helper, aim);
    let socket = helper.path("socket");
    let outcome =
        as_user(AGENT, || call(&mut UnixStream::connect(&socket).map_err(FrameError::Io)?, request));
    helper.check_foreign_lines();
    helper.kill();
    tracer.wait().unwrap();
    helper.start();
    outcome
}

fn check_after(helper: &Helper, request: &Request, when: &str) {
    helper.check_foreign_lines();
    helper.check_no_duplicates();
    assert!(!helper.path("state/intent").exists(), "{when}: a change is still unfinished");
    let Reply::Status(status) = helper.ask(&Request::Status) else { panic!("{when}: no status") };
    assert_eq!(status.volumes[0].problem, None, "{when}");
    match helper.ask(request) {
        Reply::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::NotFound, "{when}: {refusal}"),
        reply => assert!(matches!(reply, Reply::Project(_) | Reply::Removed), "{when}: {reply:?}"),
    }
    helper.check_foreign_lines();
    helper.check_no_duplicates();
}

fn limit_of(helper: &Helper, number: u128) -> u64 {
    helper.project(&Request::Describe { volume: volume(), subject: scope(number) }).limit
}

fn others() -> Vec<Request> {
    (2..=4).map(|number| create(number, MIB)).collect()
}

#[test]
fn creating_a_project_survives_a_kill_anywhere() {
    sweep("create", &others(), &create(1, 5 * MIB), |helper| {
        assert_eq!(limit_of(helper, 1), 5 * MIB);
        assert_eq!(helper.check_no_duplicates(), 4);
    });
}

#[test]
fn creating_the_first_project_survives_a_kill_anywhere() {
    sweep("create the first", &[], &create(1, 5 * MIB), |helper| {
        assert_eq!(limit_of(helper, 1), 5 * MIB);
        assert_eq!(helper.check_no_duplicates(), 1);
    });
}

#[test]
fn changing_a_limit_survives_a_kill_anywhere() {
    let request = Request::SetLimit { volume: volume(), subject: scope(3), limit: 7 * MIB };
    sweep("set limit", &others(), &request, |helper| {
        assert_eq!(limit_of(helper, 3), 7 * MIB);
        assert_eq!(helper.check_no_duplicates(), 3);
    });
}

#[test]
fn removing_a_project_survives_a_kill_anywhere() {
    sweep("remove", &others(), &remove(3), |helper| {
        let gone = helper.refusal(&Request::Describe { volume: volume(), subject: scope(3) });
        assert_eq!(gone.0, RefusalKind::NotFound);
        assert_eq!(helper.check_no_duplicates(), 2);
    });
}

#[test]
fn describing_survives_a_kill_anywhere() {
    let request = Request::Describe { volume: volume(), subject: scope(3) };
    sweep("describe", &others(), &request, |helper| assert_eq!(limit_of(helper, 3), MIB));
}

/// A state in which a change is half done: the kill of this request that leaves an intent and one file changed.
fn torn(request: &Request) -> Helper {
    let mut helper = Helper::started("");
    for request in others() {
        helper.project(&request);
    }
    let (saved, trace) = (save(&helper), helper.path("trace"));
    let _ = ask_once(&mut helper, &Aim::Trace(&trace), request);
    for call in calls(&trace).into_iter().filter(|call| call.name == "ftruncate" || call.name == "fsync") {
        helper.kill();
        restore(&helper, &saved);
        helper.start();
        let mut tracer = attach(&helper, &Aim::Kill(&call));
        let socket = helper.path("socket");
        let _ = as_user(AGENT, || common::protocol::call(&mut connect(&socket), request));
        helper.kill();
        tracer.wait().unwrap();
        let changed = |at: usize| fs::read(helper.path(FILES[at])).ok() != saved[at];
        if helper.path("state/intent").exists() && changed(0) && !changed(1) {
            return helper;
        }
    }
    panic!("no system call leaves the change half done");
}

/// Runs a command of the helper's again and again in the same state, and kills it one system call later each time.
/// `check` is called after each kill. Gives the number of kills.
fn sweep_command(helper: &mut Helper, arguments: &[&str], mut check: impl FnMut(&mut Helper)) -> usize {
    let (saved, trace) = (save(helper), helper.path("trace"));
    let run = |helper: &mut Helper, aim: &Aim<'_>| {
        let (program, mut strace) = (helper.command(arguments[0]), strace(aim));
        strace.arg(program.get_program()).args(program.get_args()).args(&arguments[1..]).env_clear();
        fs::write(helper.path("log"), "").unwrap();
        helper.spawn(strace.env("PATH", "/usr/bin:/bin"));
        let killed = helper.wait_until_ready_or_end();
        helper.kill();
        killed
    };
    run(helper, &Aim::Trace(&trace));
    let calls = calls(&trace);
    let mut kills = 0;
    // Before this one, the program is only being loaded.
    let first = calls.iter().position(|call| call.name == "sigaltstack").unwrap();
    for call in &calls[first..] {
        restore(helper, &saved);
        kills += usize::from(run(helper, &Aim::Kill(call)));
        helper.check_foreign_lines();
        check(helper);
    }
    println!("{arguments:?}: {} system calls, {kills} kills", calls.len());
    kills
}

#[test]
fn the_start_after_a_crash_survives_a_kill_anywhere() {
    for (request, projects) in [(create(1, 5 * MIB), 4), (remove(3), 2)] {
        let mut helper = torn(&request);
        let kills = sweep_command(&mut helper, &["serve"], |helper| {
            helper.start();
            helper.check_foreign_lines();
            assert_eq!(helper.check_no_duplicates(), projects);
            assert!(!helper.path("state/intent").exists());
            helper.kill();
        });
        assert!(kills > 50, "{kills}");
    }
}

#[test]
fn repairing_survives_a_kill_anywhere() {
    let mut helper = Helper::started("");
    for request in others() {
        helper.project(&request);
    }
    helper.kill();
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let good = [helper.text("projects"), helper.text("projid")].map(sorted);
    fs::write(helper.path("projects"), helper.text("projects").replace("1001:", "1099:")).unwrap();
    fs::write(helper.path("projid"), helper.text("projid").replace(":1002\n", ":2002\n")).unwrap();
    let kills = sweep_command(&mut helper, &["repair", "--apply"], |helper| {
        let (said, fine) = helper.operator("repair", &["--apply"]);
        assert!(fine, "{said}");
        assert_eq!([helper.text("projects"), helper.text("projid")].map(sorted), good);
    });
    assert!(kills > 50, "{kills}");
}
