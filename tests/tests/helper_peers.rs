//! Who may speak to the quota helper, what it makes of bytes that mean nothing, and what its process holds.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::protocol::{FrameError, RefusalKind, Reply, Request, call, encode, read_frame};
use storage_agent_tests::helper::{AGENT, FOREIGN, Helper, as_user, connect, create, exchange};

/// The whole reply that comes back for these bytes, if any.
fn reply_to(helper: &Helper, bytes: &[u8]) -> Option<Reply> {
    let back = helper.as_user(AGENT, |stream| exchange(stream, bytes));
    if back.is_empty() { None } else { Some(read_frame(&mut back.as_slice()).unwrap()) }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes(), payload].concat()
}

#[test]
fn only_the_agents_user_is_answered_and_others_are_not_even_read() {
    let helper = Helper::started("");
    for uid in [0, 1, AGENT - 1, AGENT + 1, 65534] {
        let back = helper.as_user(uid, |stream| exchange(stream, &encode(&create(1, 0)).unwrap()));
        assert_eq!(back, b"", "uid {uid} was answered");
        assert!(helper.log().contains(&format!("uid=Some({uid}) refused")), "{}", helper.log());
    }
    assert_eq!([helper.text("projects"), helper.text("projid")], FOREIGN);
    assert!(matches!(helper.ask(&Request::Status), Reply::Status(_)));
}

#[test]
fn a_connection_that_was_passed_on_is_of_no_use() {
    let helper = Helper::started("");
    // Connected by the agent, used by others.
    for uid in [0, 1] {
        let mut stream = as_user(AGENT, || connect(&helper.path("socket")));
        let back = as_user(uid, || exchange(&mut stream, &encode(&create(1, 0)).unwrap()));
        assert_eq!(back, b"", "uid {uid} was answered");
    }
    // Connected by others, used by the agent.
    for uid in [0, 1] {
        let mut stream = as_user(uid, || connect(&helper.path("socket")));
        assert_eq!(as_user(AGENT, || exchange(&mut stream, &encode(&create(1, 0)).unwrap())), b"");
    }
    // The second half of a request from another user.
    let mut stream = as_user(AGENT, || connect(&helper.path("socket")));
    let request = encode(&create(1, 0)).unwrap();
    let (first, second) = request.split_at(20);
    as_user(AGENT, || stream.write_all(first).unwrap());
    sleep(Duration::from_millis(50));
    assert_eq!(as_user(1, || exchange(&mut stream, second)), b"");
    assert_eq!([helper.text("projects"), helper.text("projid")], FOREIGN);
}

#[test]
fn bytes_that_mean_nothing_are_refused_and_the_connection_is_closed() {
    let helper = Helper::started("");
    let good = encode(&create(1, 0)).unwrap();
    let body = &good[5..];
    let name = |bytes: &[u8]| {
        let name = [&(bytes.len() as u64).to_le_bytes(), bytes].concat();
        frame(&[&[1, 3, 0, 0, 0], name.as_slice(), &[0; 4], &[7; 16]].concat())
    };
    let mut cases = vec![
        ("no payload", vec![0; 4], RefusalKind::Malformed),
        ("a payload of 4097", [&4097u32.to_le_bytes()[..], &[1; 4097]].concat(), RefusalKind::Malformed),
        ("a payload of 2^32-1", vec![0xff; 64], RefusalKind::Malformed),
        ("version 0", frame(&[&[0], body].concat()), RefusalKind::Version),
        ("version 2", frame(&[&[2], body].concat()), RefusalKind::Version),
        ("a version alone", frame(&[1]), RefusalKind::Malformed),
        ("an unknown request", frame(&[1, 6, 0, 0, 0]), RefusalKind::Malformed),
        ("the largest request", frame(&[1, 0xff, 0xff, 0xff, 0xff]), RefusalKind::Malformed),
        ("one byte too many", frame(&[&good[4..], &[0]].concat()), RefusalKind::Malformed),
        ("4000 bytes too many", frame(&[&good[4..], &[0; 4000]].concat()), RefusalKind::Malformed),
        ("one byte too few", frame(&good[4..good.len() - 1]), RefusalKind::Malformed),
        (
            "a name without end",
            frame(&[&[1, 3, 0, 0, 0], [0xff; 8].as_slice(), b"data"].concat()),
            RefusalKind::Malformed,
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), RefusalKind::Malformed),
        (
            "a subject of an unknown kind",
            frame(&[&[1, 3, 0, 0, 0], &good[9..21], &[2, 0, 0, 0], &[7; 16]].concat()),
            RefusalKind::Malformed,
        ),
        ("a name that is no text", name(b"da\xfftb"), RefusalKind::Malformed),
    ];
    for text in
        ["", ".", "..", "../etc", "/etc", "a/b", "a b", "a\n", "a:b", "-x", "a\0", "\u{e9}", &"v".repeat(65)]
    {
        cases.push(("a name that is none", name(text.as_bytes()), RefusalKind::Malformed));
    }
    for (what, bytes, kind) in &cases {
        match reply_to(&helper, bytes) {
            Some(Reply::Refused(refusal)) => assert_eq!(refusal.kind, *kind, "{what}"),
            other => panic!("{what} was answered with {other:?}"),
        }
        // What follows on the same connection is not looked at.
        let back = helper.as_user(AGENT, |stream| exchange(stream, &[bytes.as_slice(), &good].concat()));
        let mut back = back.as_slice();
        // The kernel may drop a reply when a connection is closed with bytes that were never read.
        if read_frame::<Reply>(&mut back).is_ok() {
            assert_eq!(back, b"", "{what}: the connection was used further");
        }
    }
    for length in 1..good.len() {
        assert_eq!(reply_to(&helper, &good[..length]), None, "cut after {length} bytes");
    }
    println!("{} malformed frames, {} cut ones", cases.len(), good.len() - 1);
    assert_eq!([helper.text("projects"), helper.text("projid")], FOREIGN);
    assert_eq!(helper.project(&create(1, 0)).id, 1000);
}

#[test]
fn requests_come_byte_by_byte_and_one_after_the_other() {
    let helper = Helper::started("");
    let request = encode(&create(1, 0)).unwrap();
    helper.as_user(AGENT, |stream| {
        for byte in &request {
            stream.write_all(&[*byte]).unwrap();
            sleep(Duration::from_millis(1));
        }
        assert!(matches!(read_frame(stream).unwrap(), Reply::Project(_)));
        stream.write_all(&[request.as_slice(), &request].concat()).unwrap();
        for _ in 0..2 {
            assert!(matches!(read_frame(stream).unwrap(), Reply::Project(p) if !p.created));
        }
    });
}

#[test]
fn a_request_that_does_not_arrive_in_time_ends_its_connection() {
    let helper = Helper::started("");
    let begin = Instant::now();
    helper.as_user(AGENT, |stream| {
        let mut writer = stream.try_clone().unwrap();
        let request = encode(&create(1, 0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for byte in request {
                    if writer.write_all(&[byte]).is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(500));
                }
            });
            let mut end = Vec::new();
            let _ = stream.read_to_end(&mut end);
            assert_eq!(end, b"");
            let _ = stream.shutdown(Shutdown::Both);
        });
    });
    let taken = begin.elapsed();
    println!("a slow request was cut off after {taken:.1?}");
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&taken), "{taken:?}");
}

#[test]
fn the_ninth_connection_waits_and_the_twentyfirst_request_of_a_second_is_refused() {
    let mut helper = Helper::new("");
    let conf = helper.text("conf").replace("requests-per-second 10000\n", "");
    fs::write(helper.path("conf"), conf).unwrap();
    helper.start();
    as_user(AGENT, || {
        let mut streams: Vec<UnixStream> = (0..8).map(|_| connect(&helper.path("socket"))).collect();
        for stream in &mut streams {
            assert!(matches!(call(stream, &Request::Status).unwrap(), Reply::Status(_)));
        }
        let mut ninth = connect(&helper.path("socket"));
        ninth.write_all(&encode(&Request::Status).unwrap()).unwrap();
        ninth.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(matches!(read_frame::<Reply>(&mut ninth), Err(FrameError::Io(_))), "the ninth has to wait");
        streams.truncate(1);
        ninth.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(read_frame(&mut ninth).unwrap(), Reply::Status(_)));
        drop(ninth);
        sleep(Duration::from_millis(1500));
        let begin = Instant::now();
        let replies: Vec<Reply> = (0..60).map(|_| call(&mut streams[0], &Request::Status).unwrap()).collect();
        let answered = replies.iter().filter(|reply| matches!(reply, Reply::Status(_))).count();
        let most = 20.0 + 20.0 * begin.elapsed().as_secs_f64() + 1.0;
        println!("{answered} of 60 requests were answered within {:.2?}", begin.elapsed());
        assert!(answered >= 20 && (answered as f64) <= most, "{answered} of at most {most}");
        sleep(Duration::from_millis(1100));
        assert!(matches!(call(&mut streams[0], &Request::Status).unwrap(), Reply::Status(_)));
    });
}

#[test]
fn a_socket_that_is_standard_input_is_served_and_what_waits_there_is_answered() {
    let mut helper = Helper::new("");
    let listener = UnixListener::bind(helper.path("socket")).unwrap();
    fs::set_permissions(helper.path("socket"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    // Asked before the helper runs, as with a socket that systemd listens on.
    let mut early = as_user(AGENT, || {
        let mut stream = connect(&helper.path("socket"));
        stream.write_all(&encode(&create(1, 0)).unwrap()).unwrap();
        stream
    });
    let log = fs::File::create(helper.path("log")).unwrap();
    let mut command = helper.command("serve");
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(log).process_group(0);
    helper.adopt(command.spawn().unwrap());
    assert!(matches!(read_frame(&mut early).unwrap(), Reply::Project(p) if p.id == 1000));
    assert_eq!(helper.project(&create(2, 0)).id, 1001);
}

#[test]
fn the_process_holds_one_capability_and_little_else() {
    let mut helper = Helper::new("");
    // A descriptor that was left open for it.
    let (_end, left_open) = std::io::pipe().unwrap();
    let fd = OwnedFd::from(left_open);
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
    helper.start();
    helper.project(&create(1, 1 << 20));
    let status = fs::read_to_string(format!("/proc/{}/status", helper.pid())).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000200000", "{set} is CAP_SYS_ADMIN alone");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()));
    let rss: usize = field("VmRSS").trim_end_matches(" kB").parse().unwrap();
    println!("resident memory {rss} kB, capabilities {}", field("CapPrm"));
    assert!(rss <= 4096, "{rss} kB");
    let limits = fs::read_to_string(format!("/proc/{}/limits", helper.pid())).unwrap();
    for (name, most) in [("Max open files", "64"), ("Max core file size", "0"), ("Max processes", "4")] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(most), "{line}");
    }
}

#[test]
fn an_own_uid_with_the_ambient_capability_does_as_well() {
    let mut helper = Helper::new("");
    const OWN: u32 = 6022;
    for name in ["projects", "projid"] {
        std::os::unix::fs::chown(helper.path(name), Some(OWN), None).unwrap();
    }
    fs::create_dir(helper.path("state")).unwrap();
    std::os::unix::fs::chown(helper.path("state"), Some(OWN), None).unwrap();
    let listener = UnixListener::bind(helper.path("socket")).unwrap();
    fs::set_permissions(helper.path("socket"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let program = helper.command("serve");
    let mut setpriv = std::process::Command::new("setpriv");
    let uid = OWN.to_string();
    setpriv.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--securebits", "+noroot"]);
    setpriv.args([
        "--inh-caps",
        "-all,+sys_admin",
        "--ambient-caps",
        "-all,+sys_admin",
        "--bounding-set",
        "-all,+sys_admin",
    ]);
    setpriv.arg(program.get_program()).args(program.get_args());
    let log = fs::File::create(helper.path("log")).unwrap();
    setpriv.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(log).process_group(0);
    helper.adopt(setpriv.spawn().unwrap());
    assert!(!helper.wait_until_ready_or_end(), "{}", helper.log());
    let status = fs::read_to_string(format!("/proc/{}/status", helper.pid())).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{OWN}\t{OWN}")) && status.contains("CapEff:\t0000000000200000"),
        "{status}"
    );
    assert_eq!(helper.project(&create(1, 1 << 20)).limit, 1 << 20);
    assert!(helper.text("projects").contains("1000:"));
}

#[test]
fn two_agents_that_create_a_thousand_scopes_each_at_once_get_no_id_twice() {
    let helper = Helper::started("");
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for half in 0..2u128 {
            let helper = &helper;
            scope.spawn(move || {
                helper.as_user(AGENT, |stream| {
                    for number in 0..1000 {
                        let reply = call(stream, &create(half * 1000 + number, 1 << 20)).unwrap();
                        assert!(matches!(reply, Reply::Project(p) if p.created), "{reply:?}");
                    }
                });
            });
        }
    });
    assert_eq!(helper.check_no_duplicates(), 2000);
    helper.check_foreign_lines();
    println!("2 x 1,000 creations at once in {:.1?}: 0 duplicates", begin.elapsed());
}
