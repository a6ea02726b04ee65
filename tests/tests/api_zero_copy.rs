//! Downloads that leave without being copied: whatever happens to client, connection or file, a reply has exactly the
//! file's bytes or is broken off, and nothing is left open.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use storage_agent_tests::http::{Conn, Request};
use storage_agent_tests::site::{Dialect, Folder, Site};

const MIB: usize = 1 << 20;

/// Bytes that differ at every place, so that a shifted or repeated part is noticed.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = random(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The next number of a xorshift generator: the same at every run.
fn random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

fn target(folder: &Folder, name: &str) -> String {
    format!("/download?token={}", folder.download_token(name))
}

/// Descriptors of the agent that are files of the volume.
fn open_files(site: &Site) -> usize {
    let volume = site.path("local");
    let open = fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap();
    open.filter(|entry| {
        let link = entry.as_ref().ok().and_then(|entry| fs::read_link(entry.path()).ok());
        link.is_some_and(|link| link.starts_with(&volume) && !link.is_dir())
    })
    .count()
}

#[track_caller]
fn assert_nothing_left_open(site: &Site) {
    let begin = Instant::now();
    while open_files(site) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} files are still open", open_files(site));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn drop_from_cache(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn ten_thousand_random_ranges_are_the_files_bytes() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(16 * MIB + 4321);
    let path = folder.write("data", &content);
    let target = target(&folder, "data");
    let mut conn = Conn::open(site.client).unwrap();
    let mut state = 1;
    for number in 0..10_000 {
        state = random(state);
        let start = (state >> 16) as usize % content.len();
        state = random(state);
        // Mostly short ones, some across the border of a part that is sent at once.
        let longest = if number % 50 == 0 { 5 * MIB } else { 9000 };
        let end = content.len().min(start + 1 + (state >> 16) as usize % longest);
        if number % 1000 == 0 {
            drop_from_cache(&path);
        }
        let request = Request::new("GET", &target).header("Range", format!("bytes={start}-{}", end - 1));
        let reply = conn.exchange(&request).expect(206);
        assert!(reply.complete && reply.body == content[start..end], "range {start}..{end}");
    }
    drop(conn);
    assert_nothing_left_open(&site);
}

#[test]
fn pipelined_downloads_come_in_order_between_other_replies() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(5 * MIB + 1);
    folder.write("large", &content);
    folder.write("small", &content[..4096]);
    let [large, small] = ["large", "small"].map(|name| Request::new("GET", &target(&folder, name)).bytes());
    let status = Request::new("GET", "/").bytes();
    let head = Request::new("HEAD", &target(&folder, "large")).bytes();
    let all = [&large[..], &status, &small, &small, &head, &large, &status, &large].concat();
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&all.repeat(3)).unwrap();
    for _ in 0..3 {
        for (method, expected) in [
            ("GET", Some(&content[..])),
            ("GET", None),
            ("GET", Some(&content[..4096])),
            ("GET", Some(&content[..4096])),
            ("HEAD", Some(&[][..])),
            ("GET", Some(&content[..])),
            ("GET", None),
            ("GET", Some(&content[..])),
        ] {
            let reply = conn.reply_to(method).unwrap().expect(200);
            match expected {
                Some(bytes) => assert!(reply.complete && reply.body == bytes),
                None => assert_eq!(reply.json()["status"], "ok"),
            }
        }
    }
}

#[test]
fn a_slow_reader_gets_the_same_bytes_and_does_not_hinder_others() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(24 * MIB);
    folder.write("data", &content);
    let request = Request::new("GET", &target(&folder, "data")).bytes();
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(site.client).unwrap();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..50 {
        let begin = Instant::now();
        site.get("/").expect(200);
        assert!(begin.elapsed() < Duration::from_secs(1), "held up for {:?}", begin.elapsed());
    }
    let reader = slow.pop().unwrap();
    assert!(read_slowly(reader) == content);
    drop(slow);
    assert_nothing_left_open(&site);
}

/// The body of a reply that is taken in uneven pieces with pauses.
fn read_slowly(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut all = Vec::new();
    let mut piece = vec![0; 300_000];
    let mut state = 7;
    let (mut head, mut length) = (None, usize::MAX);
    while head.is_none_or(|head| all.len() < head + length) {
        state = random(state);
        let most = 1 + (state >> 20) as usize % piece.len();
        let count = stream.read(&mut piece[..most]).unwrap();
        assert!(count > 0, "ended after {} bytes", all.len());
        all.extend_from_slice(&piece[..count]);
        if state.is_multiple_of(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if head.is_none()
            && let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n")
        {
            head = Some(end + 4);
            let text = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
            length = text.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        }
    }
    all.split_off(head.unwrap())
}

#[test]
fn clients_that_go_away_leave_nothing_open() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(24 * MIB);
    folder.write("data", &content);
    let request = Request::new("GET", &target(&folder, "data")).bytes();
    for number in 0..200_usize {
        let mut stream = TcpStream::connect(site.client).unwrap();
        stream.write_all(&request).unwrap();
        let mut piece = vec![0; 1 + number * 1000];
        stream.read_exact(&mut piece).unwrap();
        if number % 2 == 0 {
            // What was received and not read makes the kernel send a reset instead of an orderly end.
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    assert_nothing_left_open(&site);
    let reply = Request::new("GET", &target(&folder, "data")).send(site.client).expect(200);
    assert!(reply.complete && reply.body == content);
}

/// Begins a download, changes the file, and reads the rest: what came, and whether all that was announced came.
fn changed_midway(site: &Site, folder: &Folder, name: &str, change: impl FnOnce()) -> (Vec<u8>, bool) {
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&Request::new("GET", &target(folder, name)).bytes()).unwrap();
    let length: usize = conn.reply_head().unwrap().header("content-length").unwrap().parse().unwrap();
    let mut body = conn.read_exact(100_000).unwrap();
    change();
    while body.len() < length {
        match conn.read_exact((length - body.len()).min(4096)) {
            Ok(more) => body.extend(more),
            Err(_) => return (body, false),
        }
    }
    (body, true)
}

#[test]
fn a_file_that_becomes_shorter_midway_breaks_the_connection() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(48 * MIB);
    for rest in [0, 20 * MIB, 20 * MIB + 1234, 48 * MIB - 1] {
        let path = folder.write("data", &content);
        let cut = || File::options().write(true).open(&path).unwrap().set_len(rest as u64).unwrap();
        let (body, complete) = changed_midway(&site, &folder, "data", cut);
        assert!(!complete, "cut to {rest}");
        assert!(body == content[..body.len()], "cut to {rest}: other bytes than the file's");
    }
    assert_nothing_left_open(&site);
}

#[test]
fn a_file_that_is_replaced_midway_is_sent_as_it_was() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(32 * MIB);
    let path = folder.write("data", &content);
    let replace = || {
        fs::write(path.with_extension("new"), vec![b'n'; 32 * MIB]).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
    };
    let (body, complete) = changed_midway(&site, &folder, "data", replace);
    assert!(complete && body == content);
    let (path, other) = (folder.write("other", &content), folder.path.join("gone"));
    let (body, complete) = changed_midway(&site, &folder, "other", || {
        fs::rename(&path, &other).unwrap();
        fs::remove_file(&other).unwrap();
    });
    assert!(complete && body == content);
    assert_nothing_left_open(&site);
}

#[test]
fn a_file_that_is_not_in_memory_is_read_from_the_disk() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content = content(33 * MIB + 17);
    let path = folder.write("data", &content);
    let target = target(&folder, "data");
    for _ in 0..3 {
        drop_from_cache(&path);
        let reply = Request::new("GET", &target).send(site.client).expect(200);
        assert!(reply.complete && reply.body == content);
    }
}
