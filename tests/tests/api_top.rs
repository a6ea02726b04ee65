//! `storage-agent top` beside a running agent: what an operator sees.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage_agent_tests::agent::{command, output};
use storage_agent_tests::certificate::certificate;
use storage_agent_tests::http::{Conn, Request};
use storage_agent_tests::settings::MANAGER_SECRET;
use storage_agent_tests::site::{Dialect, Site};

/// What `top` prints with these options, and whether it ended well.
fn top(site: &Site, options: &[&str]) -> (bool, String) {
    let config = site.config();
    let all = [&["top", "-f", config.to_str().unwrap()], options].concat();
    let output = output(&mut command(site.dir(), &all));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

/// Asks until the page has all of this, as what goes on is seen with a delay.
fn until(site: &Site, parts: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let (well, page) = top(site, &["--once"]);
        if well && parts.iter().all(|part| page.contains(part)) {
            return page;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{parts:?} is not in:\n{page}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_upload_under_way_is_shown_with_its_speed_until_it_ends() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = vec![7u8; 3 << 20];
    let token = folder.upload_token("up.bin", content.len() as u64);
    let request =
        Request::new("PATCH", &format!("/upload?token={token}")).header("Upload-Offset", "0").body(&content);
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&request.head()).unwrap();
    conn.write(&content[..1 << 20]).unwrap();
    let page = until(&site, &["TRANSFERS (1)", "PATCH /upload", "1.0M", "/s"]);
    println!("{page}");
    assert!(page.contains("local") && page.contains("second") && page.contains("ready"), "{page}");
    assert!(!page.contains(&token) && !page.contains(MANAGER_SECRET) && !page.contains('\x1b'), "{page}");
    let (well, json) = top(&site, &["--json"]);
    let overview: Value = serde_json::from_str(&json).unwrap();
    assert!(well);
    assert_eq!(overview["transfers"][0]["received_bytes"], 1 << 20);
    assert_eq!(overview["volumes"].as_array().unwrap().len(), 2);
    assert!(
        overview["volumes"][0]["capacity_bytes"].as_u64() > overview["volumes"][0]["used_bytes"].as_u64()
    );
    conn.write(&content[1 << 20..]).unwrap();
    assert_eq!(conn.reply_to("PATCH").unwrap().status, 204);
    drop(conn);
    until(&site, &["TRANSFERS (0)"]);
}

#[test]
fn tasks_lost_volumes_and_errors_are_shown() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let reply = folder.call("POST folder/delete", json!({})).expect(202).json();
    site.finished(reply["bgtask_id"].as_str().unwrap());
    fs::rename(site.path("second"), site.path("aside")).unwrap();
    let page = until(&site, &["TASKS (1)", "delete", "done", &folder.vfid, "NOT READY"]);
    assert!(page.contains("LAST WARNINGS AND ERRORS"), "{page}");
    // Something that the log calls an error: a wrong reload.
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{text}\n[limits]\njson-depth = \"deep\"\n")).unwrap();
    let pid = rustix::process::Pid::from_raw(site.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let begin = Instant::now();
    while !site.log().contains("not reloaded") {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::write(site.config(), text).unwrap();
    until(&site, &["json-depth", "not reloaded"]);
}

#[test]
fn what_keeps_it_from_asking_is_told() {
    let site = Site::prepare(|_| {});
    let (well, text) = top(&site, &["--once"]);
    assert!(!well && text.contains("no agent answers"), "{text}");
    let site = Site::start();
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text.replace(MANAGER_SECRET, "another-secret-of-the-tests-0cc175b9c0f1b6a8"))
        .unwrap();
    let (well, text) = top(&site, &["--once"]);
    assert!(!well && text.contains("api.manager.secret"), "{text}");
    assert!(!text.contains(MANAGER_SECRET), "{text}");
}

#[test]
fn an_agent_with_tls_is_known_by_its_certificate_whatever_the_name() {
    let mut site = Site::prepare(|settings| {
        settings.set("api.manager", "ssl-enabled", "true");
        settings.set("api.manager", "ssl-cert", "'cert.pem'").set("api.manager", "ssl-privkey", "'key.pem'");
    });
    if !certificate(&site, "storage.example.com", false, "cert.pem", "key.pem") {
        return;
    }
    site.launch_unready();
    until(&site, &["TRANSFERS (0)", "ready"]);
}
