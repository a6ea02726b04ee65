//! Uploads that go wrong: broken and stalled connections, refused bodies, and traps laid in the folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use storage_agent_tests::agent::own;
use storage_agent_tests::http::{Conn, Reply, Request};
use storage_agent_tests::problem;
use storage_agent_tests::site::{Dialect, Folder, Site};

const SIZE: usize = 1 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 % 253) as u8).collect()
}

fn target(folder: &Folder) -> String {
    format!("/upload?token={}", folder.upload_token("up.bin", SIZE as u64))
}

fn patch(target: &str, offset: usize, body: &[u8]) -> Request {
    Request::new("PATCH", target).header("Upload-Offset", offset.to_string()).body(body)
}

fn offset(site: &Site, target: &str) -> usize {
    let head = Request::new("HEAD", target).send(site.client).expect(200);
    head.header("upload-offset").unwrap().parse().unwrap()
}

fn staging(folder: &Folder, target: &str) -> std::path::PathBuf {
    folder.path.join(".upload").join(Folder::session(target.split('=').nth(1).unwrap()))
}

/// Sends the head of a PATCH of everything, and this much of the body.
fn begin(site: &Site, target: &str, body: &[u8], sent: usize) -> Conn {
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&patch(target, 0, body).head()).unwrap();
    conn.write(&body[..sent]).unwrap();
    conn
}

/// Waits until the agent has so many bytes of a session.
fn until_offset(site: &Site, target: &str, at_least: usize) -> usize {
    let begin = Instant::now();
    loop {
        let now = offset(site, target);
        if now >= at_least {
            return now;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "the offset stays at {now}, below {at_least}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_broken_connection_keeps_what_arrived() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    drop(begin(&site, &target, &content, 700_000));
    let kept = until_offset(&site, &target, 700_000);
    assert_eq!(kept, 700_000);
    patch(&target, kept, &content[kept..]).send(site.client).expect(204);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_chunked_body_that_ends_in_the_middle_is_no_complete_body() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let mut conn = Conn::open(site.client).unwrap();
    let request = Request::new("PATCH", &target).header("Upload-Offset", "0").chunked(&content);
    let bytes = request.bytes();
    conn.write(&bytes[..bytes.len() / 2]).unwrap();
    conn.finish().unwrap();
    let _closed: std::io::Result<Reply> = conn.reply_to("PATCH");
    assert!(!folder.has("up.bin"));
    let kept = until_offset(&site, &target, 400_000);
    patch(&target, kept, &content[kept..]).send(site.client).expect(204);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_slow_body_in_small_pieces_arrives() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let mut conn = begin(&site, &target, &content, 10);
    for piece in content[10..200].chunks(10) {
        sleep(Duration::from_millis(5));
        conn.write(piece).unwrap();
    }
    conn.write(&content[200..]).unwrap();
    assert_eq!(conn.reply_to("PATCH").unwrap().status, 204);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_new_patch_takes_over_from_a_dead_holder() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let mut dead = begin(&site, &target, &content, 500_000);
    let kept = until_offset(&site, &target, 1);
    let begun = Instant::now();
    let mut reply = patch(&target, kept, &content[kept..]).send(site.client);
    if reply.status == 409 {
        // More bytes were on their way; a client asks again and goes on from there.
        let kept = offset(&site, &target);
        reply = patch(&target, kept, &content[kept..]).send(site.client);
    }
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    // What the dead one sends now must not reach the finished file.
    let _refused: std::io::Result<()> = dead.write(&vec![b'!'; 100_000]);
    sleep(Duration::from_millis(100));
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn of_many_writers_at_one_offset_the_file_gets_each_byte_once() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let send = || patch(&target, 0, &content).try_send(site.client).map_or(0, |reply| reply.status);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Others were too late, or were preempted, which ends their connection or is told as a conflict.
    assert!(statuses.iter().all(|status| matches!(status, 0 | 204 | 404 | 409 | 423)), "{statuses:?}");
    let kept = offset(&site, &target);
    if kept < SIZE {
        patch(&target, kept, &content[kept..]).send(site.client).expect(204);
    }
    assert!(folder.read("up.bin").unwrap() == content, "{statuses:?}");
}

#[test]
fn another_process_with_the_lock_keeps_us_out() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = target(&folder);
    let held = fs::File::options().read(true).write(true).open(staging(&folder, &target)).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let reply = patch(&target, 0, &content()).send(site.client);
    assert!(matches!(reply.status, 409 | 423), "{} {}", reply.status, reply.text());
    problem::client(&reply, reply.status).unwrap();
    assert_eq!(held.metadata().unwrap().len(), 0);
    drop(held);
    patch(&target, 0, &content()).send(site.client).expect(204);
}

#[test]
fn an_upload_goes_on_after_the_agent_was_killed() {
    let mut site = Site::start();
    let content = content();
    let (target, path) = {
        let folder = site.folder(Dialect::Bare);
        let target = target(&folder);
        patch(&target, 0, &content[..300_000]).send(site.client).expect(204);
        (target, folder.path.join("up.bin"))
    };
    let stalled = begin(&site, &target, &content, 0);
    site.kill();
    drop(stalled);
    site.launch();
    assert_eq!(offset(&site, &target), 300_000);
    patch(&target, 300_000, &content[300_000..]).send(site.client).expect(204);
    assert!(fs::read(path).unwrap() == content);
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&patch(&target, 0, &content).header("Expect", "100-continue").head()).unwrap();
    assert_eq!(conn.reply_head().unwrap().status, 100);
    conn.write(&content).unwrap();
    assert_eq!(conn.reply_to("PATCH").unwrap().status, 204);
    // A refusal comes at once, so that no body is sent in vain.
    let mut conn = Conn::open(site.client).unwrap();
    let target = self::target(&folder);
    conn.write(&patch(&target, 5, &content).header("Expect", "100-continue").head()).unwrap();
    assert_eq!(conn.reply_head().unwrap().status, 409);
}

#[test]
fn a_refused_body_is_never_read_as_a_request() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = target(&folder);
    let smuggled = format!("DELETE {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    for (name, request) in [
        ("wrong offset", patch(&target, 7, smuggled.as_bytes())),
        ("no token", Request::new("PATCH", "/upload").header("Upload-Offset", "0").body(&smuggled)),
        ("wrong type", patch(&target, 0, smuggled.as_bytes()).header("Content-Type", "text/plain")),
        ("no route", Request::new("POST", "/upload").body(&smuggled)),
        ("chunked", Request::new("PATCH", &target).header("Upload-Offset", "7").chunked(&smuggled)),
    ] {
        let mut conn = Conn::open(site.client).unwrap();
        let next = Request::new("GET", "/");
        conn.write(&[request.bytes(), next.bytes()].concat()).unwrap();
        let reply = conn.reply_to("PATCH").unwrap();
        assert!(reply.status >= 400, "{name}: {}", reply.status);
        match conn.reply_to("GET") {
            Ok(second) => assert_eq!(second.json()["type"], "client-facing", "{name}"),
            Err(_) => assert_eq!(reply.header("connection").as_deref(), Some("close"), "{name}"),
        }
        assert_eq!(offset(&site, &target), 0, "{name}: the session lives");
    }
}

#[test]
fn a_large_refused_body_still_gets_its_answer() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = target(&folder);
    let large = vec![0; 64 << 20];
    let reply = patch(&target, 0, &large).send(site.client);
    problem::client(&reply, 413).unwrap();
    let reply = patch(&target, 9, &large[..SIZE]).send(site.client);
    problem::client(&reply, 409).unwrap();
    assert_eq!(offset(&site, &target), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    let mut conn = Conn::open(site.client).unwrap();
    let head = Request::new("HEAD", &target);
    let first = patch(&target, 0, &content[..1000]);
    let second = patch(&target, 1000, &content[1000..]);
    conn.write(&[head.bytes(), first.bytes(), head.bytes(), second.bytes(), head.bytes()].concat()).unwrap();
    let offsets: Vec<String> = ["HEAD", "PATCH", "HEAD", "PATCH", "HEAD"]
        .iter()
        .map(|method| conn.reply_to(method).unwrap().header("upload-offset").unwrap())
        .collect();
    let size = SIZE.to_string();
    assert_eq!(offsets, ["0", "1000", "1000", size.as_str(), size.as_str()]);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_link_at_the_destination_is_replaced_and_not_followed() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    for (name, to) in [("up.bin", site.path("outside/canary")), ("dangling", site.path("outside/new"))] {
        folder.link(name, to);
        let target = format!("/upload?token={}", folder.upload_token(name, 5));
        patch(&target, 0, b"hello").send(site.client).expect(204);
        assert!(folder.path.join(name).symlink_metadata().unwrap().is_file(), "{name} is a file now");
    }
    assert_eq!(fs::read(site.path("outside/canary")).unwrap(), b"untouched");
    assert!(!site.path("outside/new").exists());
}

#[test]
fn a_directory_at_the_destination_is_refused_and_the_bytes_are_kept() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let (content, target) = (content(), target(&folder));
    folder.write("up.bin/inside", "x");
    let reply = patch(&target, 0, &content).send(site.client);
    assert!(matches!(reply.status, 400 | 409), "{} {}", reply.status, reply.text());
    problem::client(&reply, reply.status).unwrap();
    assert!(folder.has("up.bin/inside"));
    assert!(staging(&folder, &target).is_file(), "the staging file is kept");
}

#[test]
fn a_trap_in_place_of_the_staging_file_is_not_touched() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let canary = site.path("outside/canary");
    for trap in ["link", "hard link", "fifo", "directory"] {
        let target = target(&folder);
        let staging = staging(&folder, &target);
        fs::remove_file(&staging).unwrap();
        match trap {
            "link" => symlink(&canary, &staging).unwrap(),
            "hard link" => fs::hard_link(&canary, &staging).unwrap(),
            "fifo" => mknodat(CWD, &staging, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap(),
            _ => fs::create_dir(&staging).unwrap(),
        }
        own(&folder.path);
        let begin = Instant::now();
        for request in [Request::new("HEAD", &target), patch(&target, 0, b"evil"), patch(&target, 9, b"evil")]
        {
            let reply = request.send(site.client);
            let told_as_error = (400..500).contains(&reply.status);
            // A hard link can't be told from a staging file of that size; its bytes must stay.
            assert!(told_as_error || trap == "hard link", "{trap}: {} {}", reply.status, reply.text());
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{trap} made the agent wait");
        assert_eq!(&fs::read(&canary).unwrap()[..9], b"untouched", "{trap}");
        assert!(!folder.has("up.bin"), "{trap}");
        drop(Request::new("DELETE", &target).send(site.client));
    }
}

#[test]
fn a_staging_directory_that_leads_out_is_refused() {
    let site = Site::start();
    for dialect in [Dialect::Bare, Dialect::Scoped] {
        let folder = site.folder(dialect);
        folder.link(".upload", site.path("outside/nest"));
        let reply = folder.call("POST folder/file/upload", serde_json::json!({"relpath": "x", "size": 5}));
        assert!((400..500).contains(&reply.status), "{} {}", reply.status, reply.text());
        assert_eq!(fs::read_dir(site.path("outside/nest")).unwrap().count(), 0);
        fs::remove_file(folder.path.join(".upload")).unwrap();
        folder.write(".upload", "a file");
        let reply = folder.call("POST folder/file/upload", serde_json::json!({"relpath": "x", "size": 5}));
        problem::manager(&reply, 400).unwrap();
    }
}

#[test]
fn a_parent_that_became_a_link_between_two_patches_leads_nowhere() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.mkdir("dir");
    let target = format!("/upload?token={}", folder.upload_token("dir/sub/up.bin", 10));
    patch(&target, 0, b"01234").send(site.client).expect(204);
    fs::remove_dir_all(folder.path.join("dir")).unwrap();
    folder.link("dir", site.path("outside/nest"));
    let reply = patch(&target, 5, b"56789").send(site.client);
    problem::client(&reply, 400).unwrap();
    assert_eq!(fs::read_dir(site.path("outside/nest")).unwrap().count(), 0);
}

#[test]
fn a_folder_deleted_under_an_upload_ends_it() {
    let site = Site::start();
    for dialect in [Dialect::Bare, Dialect::Scoped] {
        let folder = site.folder(dialect);
        let target = target(&folder);
        patch(&target, 0, b"01234").send(site.client).expect(204);
        folder.call("POST folder/delete", serde_json::json!({}));
        let reply = patch(&target, 5, b"5").send(site.client);
        problem::client(&reply, 404).unwrap();
        assert_eq!(Request::new("HEAD", &target).send(site.client).status, 404);
        assert!(!folder.path.exists(), "the folder doesn't come back");
    }
}
