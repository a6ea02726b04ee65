//! Long work: seen, cancelled, and carried on after the agent was killed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage_agent_tests::http::Conn;
use storage_agent_tests::problem;
use storage_agent_tests::settings::MANAGER_SECRET;
use storage_agent_tests::site::{AUTH, Dialect, Folder, Site, fresh_uuid};

/// Fills a folder with this many small files, 1,000 to a directory.
fn fill(folder: &Folder, count: usize) {
    for number in 0..count {
        let dir = folder.path.join(format!("d{}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("marked-{number}")), "x").unwrap();
    }
    folder.own();
}

fn marked(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        count += usize::from(entry.file_name().to_string_lossy().starts_with("marked-"));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count += marked(&entry.path());
        }
    }
    count
}

fn start(folder: &Folder, route: &str, params: Value) -> String {
    folder.call(route, params).expect(202).json()["bgtask_id"].as_str().unwrap().into()
}

fn listed(site: &Site) -> Vec<Value> {
    let tasks = site.call("GET tasks", &Value::Null).expect(200).json();
    tasks["tasks"].as_array().unwrap().clone()
}

#[test]
fn a_finished_task_tells_what_it_did() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    fill(&folder, 50);
    let id = start(&folder, "POST folder/file/delete-async", json!({"relpaths": ["d0"], "recursive": true}));
    let task = site.finished(&id);
    assert_eq!((&task["id"], &task["state"]), (&json!(id), &json!("done")), "{task}");
    assert!(!folder.has("d0"));
    assert!(listed(&site).iter().any(|listed| listed["id"] == id.as_str()), "it is in the list");
}

#[test]
fn a_purge_goes_on_after_the_agent_was_killed() {
    let mut site = Site::start();
    let count = 30_000;
    let (vfid, id) = {
        let folder = site.folder(Dialect::Scoped);
        fill(&folder, count);
        let id = start(&folder, "POST folder/delete", json!({}));
        assert!(!folder.path.exists());
        (folder.vfid, id)
    };
    site.kill();
    let left = marked(&site.path("local"));
    assert!(left > 0, "the test was too slow: the purge was over before the kill");
    site.launch();
    let seen = site.call(&format!("GET tasks/{id}"), &Value::Null).expect(200).json();
    assert_eq!(seen["id"], id.as_str(), "the task kept its id");
    assert_eq!(site.finished(&id)["state"], "done");
    assert_eq!(marked(&site.path("local")), 0, "of {left} files");
    problem::manager(&site.folder_named("local", &vfid).call("GET folder/usage", json!({})), 404).unwrap();
}

#[test]
fn a_bare_folders_purge_goes_on_too() {
    let mut site = Site::start();
    {
        let folder = site.folder(Dialect::Bare);
        fill(&folder, 30_000);
        folder.call("POST folder/delete", json!({})).expect(204);
    }
    site.kill();
    assert!(marked(&site.path("local")) > 0, "the test was too slow: the purge was over before the kill");
    site.launch();
    let begin = Instant::now();
    while marked(&site.path("local")) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "files stay behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_killed_clone_leaves_no_half_copy_that_looks_whole() {
    let mut site = Site::with(|settings| {
        settings.set("agent", "clone-wait", "\"0s\"");
    });
    let copy = format!("user:{}/{}", fresh_uuid(), fresh_uuid());
    let (source, id) = {
        let source = site.folder(Dialect::Scoped);
        fill(&source, 20_000);
        let params =
            json!({"src_volume": "local", "src_vfid": source.vfid, "dst_volume": "local", "dst_vfid": copy});
        let id = site.call("POST folder/clone", &params).expect(200).json()["bgtask_id"]
            .as_str()
            .unwrap()
            .to_owned();
        (source.vfid, id)
    };
    site.kill();
    site.launch();
    let over = site.finished(&id);
    let copied = marked(&site.folder_named("local", &copy).path);
    match over["state"].as_str() {
        Some("done") => assert_eq!(copied, 20_000, "{over}"),
        _ => assert_eq!(copied, 0, "{over}"),
    }
    assert_eq!(marked(&site.folder_named("local", &source).path), 20_000);
}

#[test]
fn a_running_task_shows_progress_and_can_be_cancelled() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    fill(&folder, 30_000);
    let id =
        start(&folder, "POST folder/file/delete-async", json!({"relpaths": ["d0", "d1"], "recursive": true}));
    let dirs: Vec<String> = (2..30).map(|number| format!("d{number}")).collect();
    let long = start(&folder, "POST folder/file/delete-async", json!({"relpaths": dirs, "recursive": true}));
    let reply = site.call(&format!("DELETE tasks/{long}"), &Value::Null);
    assert!(matches!(reply.status, 200 | 202 | 204), "{} {}", reply.status, reply.text());
    assert_eq!(site.finished(&long)["state"], "cancelled");
    let left = marked(&folder.path);
    assert!(left > 0, "it was stopped before the end");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(site.finished(&id)["state"], "done", "the other task went on");
    assert!(marked(&folder.path) >= left.saturating_sub(2000), "nothing is removed after the cancellation");
    problem::manager(&site.call(&format!("DELETE tasks/{}", fresh_uuid()), &Value::Null), 404).unwrap();
    for wrong in ["x", "..", "0b6c1d7ea6f24d57a1b2c3d4e5f60718x", "%00"] {
        let reply = site.call(&format!("GET tasks/{wrong}"), &Value::Null);
        assert!(matches!(reply.status, 400 | 404), "{wrong}: {}", reply.status);
        problem::manager(&reply, reply.status).unwrap();
    }
}

#[test]
fn a_delete_async_that_cannot_be_done_is_refused_or_fails() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("dir/file", "x");
    let reply = folder.call("POST folder/file/delete-async", json!({"relpaths": ["dir"]}));
    if reply.status == 202 {
        let over = site.finished(reply.json()["bgtask_id"].as_str().unwrap());
        assert_eq!(over["state"], "failed", "{over}");
    } else {
        assert_eq!(problem::manager(&reply, 400).unwrap()["errno"], 21);
    }
    assert!(folder.has("dir/file"));
}

#[test]
fn a_graceful_stop_lets_the_work_be_carried_on() {
    let mut site = Site::start();
    let id = {
        let folder = site.folder(Dialect::Scoped);
        fill(&folder, 30_000);
        start(&folder, "POST folder/delete", json!({}))
    };
    site.agent().terminate();
    let status = site.agent().wait(Duration::from_secs(10)).expect("SIGTERM ends the agent");
    assert!(status.success(), "{status}");
    let left = marked(&site.path("local"));
    site.launch();
    // A task that ended before the stop is not kept.
    if left > 0 {
        assert_eq!(site.finished(&id)["state"], "done");
    }
    assert_eq!(marked(&site.path("local")), 0);
}

#[test]
fn a_delete_whose_manager_hangs_up_is_finished() {
    let site = Site::start();
    let folders: Vec<Folder> = (0..40).map(|_| site.folder(Dialect::Scoped)).collect();
    for folder in &folders {
        fill(folder, 20);
        let request = site.manager_request("POST folder/delete", &folder.params(json!({})));
        let mut conn = Conn::open(site.manager).unwrap();
        conn.write(&request.header(AUTH, MANAGER_SECRET).bytes()).unwrap();
    }
    let begin = Instant::now();
    // What has begun must end; a request that was never read is none.
    let unfinished = || listed(&site).into_iter().any(|task| !matches!(task["state"].as_str(), Some("done")));
    let half = || {
        let intact = folders.iter().filter(|folder| folder.path.exists()).count();
        marked(&site.path("local")) != intact * 20
    };
    std::thread::sleep(Duration::from_millis(300));
    while unfinished() || half() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", listed(&site));
        std::thread::sleep(Duration::from_millis(50));
    }
}
