//! SIGHUP: what it changes, what it leaves alone, and what it does with a configuration that is wrong.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use storage_agent_tests::agent::own;
use storage_agent_tests::certificate::certificate;
use storage_agent_tests::http::{Conn, Request};
use storage_agent_tests::settings::{MANAGER_SECRET, TOKEN_SECRET};
use storage_agent_tests::site::{AUTH, Dialect, Folder, Site, fresh_uuid};

/// Both ways in which a reload ends in the log.
const ENDS: [&str; 2] = ["reloaded: limits", "not reloaded:"];

/// Sends SIGHUP and waits until the log tells the end of it; what was logged for it.
fn reload(site: &Site) -> String {
    let before = site.log();
    kill_process(Pid::from_raw(site.pid() as i32).unwrap(), Signal::HUP).unwrap();
    let begin = Instant::now();
    loop {
        let log = site.log();
        let new = &log[before.len()..];
        if ENDS.iter().any(|end| new.contains(end)) {
            return new.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no end of the reload in the log: {new}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Replaces text in the configuration file, which has to be there.
fn rewrite(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(site.config(), text.replace(from, to)).unwrap();
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// Begins a PATCH of `size` bytes and sends none of them.
fn begin_upload(site: &Site, folder: &Folder, size: usize) -> Conn {
    let token = folder.upload_token("up.bin", size as u64);
    let request = Request::new("PATCH", &format!("/upload?token={token}"))
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Offset", "0")
        .header("Content-Type", "application/offset+octet-stream")
        .header("Content-Length", size.to_string());
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&request.head()).unwrap();
    conn
}

#[test]
fn a_hundred_reloads_during_transfers_drop_none() {
    const RELOADS: usize = 100;
    let site = Site::with(|settings| {
        settings.set("limits", "json-size", "\"8m\"");
    });
    let folders: Vec<Folder> = (0..4).map(|_| site.folder(Dialect::Scoped)).collect();
    let content = content(1_000_000);
    let (over, downloads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for folder in &folders[..2] {
            // One upload for as long as all the reloads take, a piece at a time.
            scope.spawn(|| {
                let mut conn = begin_upload(&site, folder, content.len());
                let mut pieces = content.chunks(1000).peekable();
                while let Some(piece) = pieces.next() {
                    conn.write(piece).unwrap();
                    if pieces.peek().is_some() && !over.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                assert_eq!(conn.reply_to("PATCH").unwrap().status, 204);
                assert!(folder.read("up.bin").unwrap() == content);
            });
        }
        for folder in &folders[2..] {
            // Downloads one after another on one connection, each whole.
            scope.spawn(|| {
                folder.write("down.bin", &content);
                let token = folder.download_token("down.bin");
                let request = Request::new("GET", &format!("/download?token={token}"));
                let mut conn = Conn::open(site.client).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let reply = conn.exchange(&request);
                    assert_eq!(reply.status, 200);
                    assert!(reply.body == content, "a download broke after {} bytes", reply.body.len());
                    downloads.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        for number in 0..RELOADS {
            let (from, to) = if number % 2 == 0 { ("\"8m\"", "\"9m\"") } else { ("\"9m\"", "\"8m\"") };
            rewrite(&site, from, to);
            let log = reload(&site);
            assert!(log.contains(ENDS[0]), "reload {number}: {log}");
        }
        over.store(true, Ordering::Relaxed);
    });
    let downloads = downloads.into_inner();
    println!("{RELOADS} reloads during 2 uploads and {downloads} downloads: none dropped");
    assert!(downloads > 2);
}

/// The status of a request with a JSON body of 1.5 MiB.
fn large_request(site: &Site) -> u16 {
    let params = json!({"volume": "local", "filler": "x".repeat(1_500_000)});
    site.call("GET volume/hwinfo", &params).status
}

#[test]
fn a_new_limit_and_a_new_level_are_in_force_at_once() {
    let site = Site::with(|settings| {
        settings.set("limits", "json-size", "\"8m\"").set("limits", "connections-per-peer", "256");
        settings.set("limits", "trusted-proxies", "[]");
    });
    assert_eq!(large_request(&site), 200);
    rewrite(&site, "json-size = \"8m\"", "json-size = \"1m\"");
    rewrite(&site, "connections-per-peer = 256", "connections-per-peer = 3");
    reload(&site);
    assert_eq!(large_request(&site), 413);
    let held: Vec<Conn> = (0..3).map(|_| Conn::open(site.client).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let refused = Request::new("GET", "/").try_send(site.client);
    assert!(refused.as_ref().is_ok_and(|reply| reply.status == 503), "{refused:?}");
    drop(held);
    rewrite(&site, "level = \"INFO\"", "level = \"DEBUG\"");
    reload(&site);
    rewrite(&site, "level = \"DEBUG\"", "level = \"ERROR\"");
    // This reload's last line is below its own level.
    kill_process(Pid::from_raw(site.pid() as i32).unwrap(), Signal::HUP).unwrap();
    let begin = Instant::now();
    loop {
        let before = site.log().len();
        site.call("GET volumes", &Value::Null).expect(200);
        std::thread::sleep(Duration::from_millis(20));
        if site.log().len() == before {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "requests are still logged");
    }
}

#[test]
fn an_old_secret_is_refused_and_the_new_one_accepted() {
    const OTHER: &str = "another-secret-of-the-tests-0cc175b9c0f1b6a8";
    let site = Site::start();
    let folder = site.folder(Dialect::Bare);
    folder.write("file", "content");
    let token = folder.download_token("file");
    let content = content(100_000);
    let mut upload = begin_upload(&site, &folder, content.len());
    upload.write(&content[..1000]).unwrap();
    rewrite(&site, MANAGER_SECRET, OTHER);
    rewrite(&site, TOKEN_SECRET, "a-new-token-secret-of-the-tests-92eb5ffee6ae2fec");
    let log = reload(&site);
    assert!(!log.contains(OTHER) && !log.contains(MANAGER_SECRET), "a secret is in the log");
    let ask = |secret: &str| {
        let params = folder.params(json!({"relpath": "file"}));
        site.manager_request("POST folder/file/download", &params).header(AUTH, secret).send(site.manager)
    };
    assert_eq!(ask(MANAGER_SECRET).status, 403);
    let new = ask(OTHER).expect(200).json()["token"].as_str().unwrap().to_owned();
    assert_eq!(site.get(&format!("/download?token={token}")).status, 400, "a token of the old key");
    assert_eq!(site.get(&format!("/download?token={new}")).expect(200).text(), "content");
    // The request that was let in before goes on.
    upload.write(&content[1000..]).unwrap();
    assert_eq!(upload.reply_to("PATCH").unwrap().status, 204);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_told() {
    let site = Site::with(|settings| {
        settings.set("limits", "json-size", "\"8m\"").set("limits", "json-depth", "64");
    });
    rewrite(&site, "json-size = \"8m\"", "json-size = \"1m\"");
    rewrite(&site, "json-depth = 64", "json-depth = \"deep\"");
    let log = reload(&site);
    assert!(log.contains(ENDS[1]) && !log.contains(ENDS[0]), "{log}");
    assert!(log.contains("limits.json-depth") && log.contains("deep"), "the key and the value: {log}");
    assert_eq!(large_request(&site), 200, "not even the part that was right took effect");
    rewrite(&site, "json-depth = \"deep\"", "json-depth = 64");
    assert!(reload(&site).contains(ENDS[0]));
    assert_eq!(large_request(&site), 413);
}

#[test]
fn what_needs_a_restart_is_named() {
    let site = Site::with(|settings| {
        settings.set("agent", "seccomp", "true");
    });
    rewrite(&site, &format!("port = {}", site.client.port()), "port = 1");
    rewrite(&site, "seccomp = true", "seccomp = false");
    rewrite(&site, "[volume.second]", "[volume.third]");
    let log = reload(&site);
    for key in ["api.client.service-addr", "agent.seccomp", "volume.second", "volume.third"] {
        assert!(log.contains(&format!("key={key:?}")) || log.contains(&format!("key={key}")), "{key}: {log}");
    }
    let volumes = site.call("GET volumes", &Value::Null).expect(200).text();
    assert!(volumes.contains("second") && !volumes.contains("third"), "{volumes}");
}

#[test]
fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let mut site = Site::prepare(|settings| {
        settings.set("api.client", "ssl-enabled", "true");
        settings.set("api.client", "ssl-cert", "'cert.pem'").set("api.client", "ssl-privkey", "'key.pem'");
    });
    if !certificate(&site, "first", true, "cert.pem", "key.pem") {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    site.launch_unready();
    let begin = Instant::now();
    while Request::new("GET", "/").try_send(site.manager).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", site.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let served = || {
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &site.client.to_string(), "-brief"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&shown.stderr).into_owned()
    };
    assert!(served().contains("CN = first") || served().contains("CN=first"), "{}", served());
    // As certbot does it: new files under the old names.
    certificate(&site, "second", true, "new.pem", "new-key.pem");
    fs::rename(site.path("new.pem"), site.path("cert.pem")).unwrap();
    // A certificate whose key has not come yet.
    let log = reload(&site);
    assert!(log.contains(ENDS[1]) && log.contains("api.client.ssl-privkey"), "{log}");
    assert!(served().contains("first"));
    fs::rename(site.path("new-key.pem"), site.path("key.pem")).unwrap();
    assert!(reload(&site).contains(ENDS[0]));
    assert!(served().contains("second"), "{}", served());
}

#[test]
fn a_file_outside_of_what_the_sandbox_allows_is_told_as_that() {
    let elsewhere = tempfile::TempDir::with_prefix("storage-agent-elsewhere-").unwrap();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, MANAGER_SECRET).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    own(elsewhere.path());
    let site = Site::start();
    let landlock = site.call("GET status", &Value::Null).json()["sandbox"]["landlock"] == "on";
    rewrite(&site, &format!("secret = \"{MANAGER_SECRET}\""), &format!("secret-file = {secret:?}"));
    let log = reload(&site);
    assert_eq!(log.contains("for another folder, restart the agent"), landlock, "{log}");
    assert_eq!(log.contains(ENDS[1]), landlock, "{log}");
    let folder = site.folder_named("local", &fresh_uuid());
    folder.call("POST folder/create", json!({})).expect(204);
}
