//! Who the agent is while it serves, what it tells of its secrets, and how it stops.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage_agent_tests::agent::{AGENT_ID, command, is_root, output};
use storage_agent_tests::http::{Conn, Request};
use storage_agent_tests::settings::{MANAGER_SECRET, TOKEN_SECRET};
use storage_agent_tests::site::{AUTH, DIALECTS, Dialect, Site};

/// A field of `/proc/PID/status` (proc(5)).
fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

fn assert_harmless(pid: u32) {
    for id in ["Uid", "Gid"] {
        assert!(status(pid, id).split_whitespace().all(|id| id != "0"), "{id}: {}", status(pid, id));
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = status(pid, set);
        // The bounding set can only be emptied by a process that has CAP_SETPCAP (capabilities(7)).
        assert!(set == "CapBnd" || bits == "0000000000000000", "{set}: {bits}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Groups").split_whitespace().filter(|group| *group == "0").count(), 0);
    if is_root() {
        // Files of a process that isn't dumpable belong to root (proc(5)).
        assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0, "dumpable");
    }
}

#[test]
fn the_serving_agent_has_no_privilege_whatsoever() {
    let site = Site::start();
    site.folder(Dialect::Scoped);
    assert_harmless(site.pid());
    for field in ["Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"] {
        println!("{field}: {}", status(site.pid(), field));
    }
}

#[test]
fn running_as_root_is_refused() {
    if !is_root() {
        eprintln!("skipped: these tests don't run as root");
        return;
    }
    let site = Site::prepare(|_| {});
    output(&mut command(site.dir(), &["--version"]));
    let mut as_root = Command::new(site.path("storage-agent"));
    let begin = Instant::now();
    let output = output(as_root.args(["-f", site.config().to_str().unwrap()]).uid(0));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && begin.elapsed() < Duration::from_secs(5), "{text}");
    assert!(text.contains("root") || text.contains("uid 0"), "it says why: {text}");
    assert!(text.contains("allow-root") || text.contains("user"), "and what to do: {text}");
}

#[test]
fn started_as_root_with_a_user_it_becomes_that_user() {
    if !is_root() {
        eprintln!("skipped: these tests don't run as root");
        return;
    }
    let site = Site::prepare(|settings| {
        settings.set("storage-proxy", "user", AGENT_ID.to_string());
        settings.set("storage-proxy", "group", AGENT_ID.to_string());
    });
    output(&mut command(site.dir(), &["--version"]));
    let log = fs::File::create(site.path("root.log")).unwrap();
    let mut child = Command::new(site.path("storage-agent"))
        .args(["-f", site.config().to_str().unwrap()])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !Request::new("GET", "/").try_send(site.client).is_ok_and(|reply| reply.status == 200) {
        let log = || fs::read_to_string(site.path("root.log")).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let outcome = std::panic::catch_unwind(|| assert_harmless(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    outcome.unwrap();
}

#[test]
fn neither_secrets_nor_tokens_are_ever_logged() {
    let mut site = Site::with(|settings| {
        settings.set("logging", "level", "\"TRACE\"").set("debug", "enabled", "true");
    });
    let mut hidden = vec![MANAGER_SECRET.to_owned(), TOKEN_SECRET.to_owned(), "almost-the-secret".to_owned()];
    {
        let site = &site;
        for dialect in DIALECTS {
            let folder = site.folder(dialect);
            folder.write("file", "content");
            let upload = folder.upload_token("up.bin", 5);
            let download = folder.download_token("file");
            let forged = format!("{}x", &download[..download.len() - 1]);
            for token in [&upload, &download, &forged] {
                for (method, path) in [
                    ("GET", "/download"),
                    ("PATCH", "/upload"),
                    ("HEAD", "/upload"),
                    ("GET", "/download-archive"),
                    ("GET", "/none"),
                ] {
                    let request = Request::new(method, &format!("{path}?token={token}"));
                    request
                        .header("Upload-Offset", "0")
                        .header("Referer", format!("http://x/?token={token}"))
                        .body("hello")
                        .send(site.client);
                }
                // The payload is what is valuable to an attacker; a header part is the same in all tokens.
                hidden.extend(token.split('.').skip(1).map(str::to_owned));
            }
            folder.call("POST folder/file/list", json!({"relpath": "none"}));
        }
        site.manager_request("GET volumes", &Value::Null)
            .header(AUTH, "almost-the-secret")
            .send(site.manager);
        site.manager_request("GET volumes?token=almost-the-secret", &Value::Null).send(site.manager);
    }
    site.agent().terminate();
    site.agent().wait(Duration::from_secs(10)).expect("it stops");
    let log = site.log();
    assert!(log.contains("/download") && log.contains("folder/create"), "there is an access log:\n{log}");
    for secret in hidden {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
    assert!(!log.contains("token=ey"), "a token is in the log");
}

#[test]
fn log_lines_cannot_be_forged_through_a_request() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.call("POST folder/file/fetch", json!({"relpath": "a\nFORGED-1 line\r\n\u{1b}[31mFORGED-2"}));
    site.get("/none%0aFORGED-3");
    Request::new("GET", "/x")
        .header("User-Agent", "a\tFORGED-4")
        .header("X-Request-Id", "a\u{1b}[2JFORGED-5")
        .send(site.client);
    let log = site.log();
    assert!(log.lines().all(|line| !line.trim_start().starts_with("FORGED")), "{log}");
    assert!(log.bytes().all(|byte| byte == b'\n' || byte >= b' '), "control characters in the log");
}

#[test]
fn a_stopping_agent_lets_a_transfer_finish_and_takes_no_new_one() {
    let mut site = Site::start();
    let (target, path) = {
        let folder = site.folder(Dialect::Scoped);
        (format!("/upload?token={}", folder.upload_token("up.bin", 10)), folder.path.join("up.bin"))
    };
    let mut conn = Conn::open(site.client).unwrap();
    let request = Request::new("PATCH", &target).header("Upload-Offset", "0").body("0123456789");
    conn.write(&request.head()).unwrap();
    conn.write(b"01234").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    site.agent().terminate();
    let begin = Instant::now();
    while Conn::open(site.client).is_ok_and(|mut conn| {
        conn.write(&Request::new("GET", "/").bytes()).is_ok() && conn.reply_head().is_ok()
    }) {
        assert!(begin.elapsed() < Duration::from_secs(5), "it still accepts");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(site.agent().wait(Duration::from_millis(50)).is_none(), "it waits for the transfer");
    conn.write(b"56789").unwrap();
    assert_eq!(conn.reply_to("PATCH").unwrap().status, 204);
    let status = site.agent().wait(Duration::from_secs(10)).expect("then it stops");
    assert!(status.success(), "{status}");
    assert_eq!(fs::read(path).unwrap(), b"0123456789");
}

#[test]
fn the_number_of_open_files_does_not_grow() {
    if !is_root() {
        eprintln!("skipped: only root can look into a process that isn't dumpable");
        return;
    }
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("dir/file", "content");
    let open = || fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().count();
    let round = || {
        let download = folder.download_token("dir/file");
        site.get(&format!("/download?token={download}"));
        site.get(&format!("/download?token={}&archive=true", folder.download_token(".")));
        let upload = format!("/upload?token={}", folder.upload_token("up", 4));
        Request::new("PATCH", &upload).header("Upload-Offset", "0").body("1234").send(site.client);
        folder.call("POST folder/file/list", json!({"relpath": "dir/file"}));
        folder.call("GET folder/usage", json!({}));
        let mut aborted = Conn::open(site.client).unwrap();
        aborted.write(b"PATCH /upload HTTP/1.1\r\nHost").unwrap();
    };
    (0..20).for_each(|_| round());
    std::thread::sleep(Duration::from_millis(300));
    let before = open();
    (0..100).for_each(|_| round());
    std::thread::sleep(Duration::from_millis(300));
    assert!(open() <= before + 5, "{before} -> {}", open());
}
