//! The tus protocol at `/upload`, verb by verb: request headers and body, expected status and headers.
//!
//! Each case starts with a new session of a 10-byte upload to `up.bin`, of which the bytes named under
//! `stored` are there already. After it HEAD must tell the expected offset.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha1::Digest;
use storage_agent_tests::http::{Reply, Request};
use storage_agent_tests::problem;
use storage_agent_tests::site::{Dialect, Folder, Site};
use storage_agent_tests::table::Table;

const CONTENT: &[u8] = b"0123456789";
const OCTETS: (&str, &str) = ("Content-Type", "application/offset+octet-stream");
const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");

/// One step of the protocol.
struct Case {
    name: &'static str,
    stored: usize,
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    chunked: bool,
    status: u16,
    expect: Vec<(&'static str, &'static str)>,
    offset: usize,
}

/// A PATCH of the rest after `stored` bytes, to be changed.
fn patch(name: &'static str, stored: usize) -> Case {
    Case {
        name,
        stored,
        method: "PATCH",
        headers: vec![
            ("Upload-Offset", stored.to_string()),
            (OCTETS.0, OCTETS.1.into()),
            (TUS.0, TUS.1.into()),
        ],
        body: CONTENT[stored..].to_vec(),
        chunked: false,
        status: 204,
        expect: vec![("upload-offset", "10")],
        offset: 10,
    }
}

impl Case {
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| *key != name);
        self.headers.push((name, value.into()));
        self
    }

    fn also(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| *key != name);
        self
    }

    fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The expected status and the offset afterwards.
    fn gives(mut self, status: u16, offset: usize) -> Self {
        (self.status, self.offset) = (status, offset);
        self.expect.clear();
        self
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.expect.push((name, value));
        self
    }

    fn run(&self, site: &Site) -> Result<String, String> {
        let folder = site.folder(Dialect::Scoped);
        let target = format!("/upload?token={}", folder.upload_token("up.bin", 10));
        if self.stored > 0 {
            let first =
                Request::new("PATCH", &target).header("Upload-Offset", "0").body(&CONTENT[..self.stored]);
            first.send(site.client).expect(204);
        }
        let mut request = Request::new(self.method, &target);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if self.method == "PATCH" {
            request = if self.chunked { request.chunked(&self.body) } else { request.body(&self.body) };
        }
        let reply = request.send(site.client);
        if reply.status != self.status {
            return Err(format!("status {}, not {}: {}", reply.status, self.status, reply.text()));
        }
        cors(&reply)?;
        for (name, value) in &self.expect {
            match reply.header(name) {
                Some(found) if found == *value || *value == "<any>" => {}
                found => return Err(format!("{name} is {found:?}, not {value}")),
            }
        }
        if reply.status >= 400 && self.method != "HEAD" {
            problem::client(&reply, self.status)?;
        }
        self.check_offset(site, &target, &folder)?;
        Ok(format!("{} offset {}", reply.status, self.offset))
    }

    fn check_offset(&self, site: &Site, target: &str, folder: &Folder) -> Result<(), String> {
        let head = Request::new("HEAD", target).header(TUS.0, TUS.1).send(site.client);
        let found = head.header("upload-offset").unwrap_or_default();
        if (head.status, found.as_str()) != (200, self.offset.to_string().as_str()) {
            return Err(format!("HEAD afterwards: {} offset {found:?}, not {}", head.status, self.offset));
        }
        match folder.read("up.bin") {
            Some(bytes) if self.offset == 10 && bytes == CONTENT => Ok(()),
            None if self.offset < 10 => Ok(()),
            other => Err(format!("up.bin is {other:?} at offset {}", self.offset)),
        }
    }
}

/// Browsers read a reply only with these headers, and need them on errors most of all.
fn cors(reply: &Reply) -> Result<(), String> {
    if reply.header("access-control-allow-origin").as_deref() != Some("*") {
        return Err(format!("no Access-Control-Allow-Origin: {:?}", reply.headers));
    }
    let exposed = reply.header("access-control-expose-headers").unwrap_or_default().to_lowercase();
    match ["upload-offset", "upload-length", "tus-resumable"].iter().find(|name| !exposed.contains(**name)) {
        Some(name) => Err(format!("{name} is not exposed: {exposed:?}")),
        None => Ok(()),
    }
}

fn run(title: &str, cases: Vec<Case>) {
    let site = Site::start();
    let mut table = Table::new(title);
    cases.iter().for_each(|case| table.row(case.name, case.run(&site)));
    table.finish();
}

#[test]
fn patch_stores_bytes_at_the_offset() {
    run(
        "PATCH",
        vec![
            patch("all at once", 0)
                .with("upload-length", "10")
                .with("tus-resumable", "1.0.0")
                .with("cache-control", "no-store"),
            patch("the rest", 4),
            patch("a part", 0).body("012").gives(204, 3).with("upload-offset", "3"),
            patch("chunked", 0).chunked(),
            patch("a chunked part", 2).body("23").chunked().gives(204, 4).with("upload-offset", "4"),
            patch("nothing", 3).body("").gives(204, 3).with("upload-offset", "3"),
            patch("no Content-Type", 0).without("Content-Type"),
            patch("no Tus-Resumable", 0).without("Tus-Resumable"),
            patch("Content-Type in capitals", 0).header("Content-Type", "APPLICATION/OFFSET+OCTET-STREAM"),
            patch("lower-case header names", 0).without("Upload-Offset").header("upload-offset", "0"),
            patch("blanks around the offset", 0).header("Upload-Offset", "  0  "),
        ],
    );
}

#[test]
fn patch_refuses_what_does_not_fit() {
    run(
        "PATCH, refused",
        vec![
            patch("no offset", 0).without("Upload-Offset").gives(400, 0),
            patch("offset too small", 4)
                .header("Upload-Offset", "0")
                .gives(409, 4)
                .with("upload-offset", "4"),
            patch("offset too large", 4)
                .header("Upload-Offset", "5")
                .gives(409, 4)
                .with("upload-offset", "4"),
            patch("offset beyond the size", 4)
                .header("Upload-Offset", "11")
                .gives(409, 4)
                .with("upload-offset", "4"),
            patch("offset 2^63", 4).header("Upload-Offset", "9223372036854775808").gives(409, 4),
            patch("wrong protocol version", 0)
                .header("Tus-Resumable", "0.2.2")
                .gives(412, 0)
                .with("tus-version", "1.0.0"),
            patch("wrong Content-Type", 0).header("Content-Type", "application/json").gives(415, 0),
            patch("a form's Content-Type", 0)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .gives(415, 0),
            patch("one byte too many", 0).body("0123456789A").gives(413, 0),
            patch("one byte too many at the end", 9).body("9A").gives(413, 9),
        ],
    );
}

#[test]
fn offsets_that_lie_are_refused() {
    let lies: &[&str] = &[
        "-1",
        "-0",
        "",
        "abc",
        "1.5",
        "0x0",
        "+0",
        "1e1",
        "0,0",
        "0, 0",
        "0 0",
        "\u{660}",
        "18446744073709551616",
        "99999999999999999999999999999999999999",
        "NaN",
        "null",
        "0;q=1",
        "\"0\"",
    ];
    let cases = lies.iter().map(|lie| patch(lie, 0).header("Upload-Offset", *lie).gives(400, 0));
    let two = patch("two equal offsets", 0).also("Upload-Offset", "0").gives(400, 0);
    let differ = patch("two different offsets", 4).also("Upload-Offset", "0").gives(400, 4);
    run("offsets that lie", cases.chain([two, differ]).collect());
}

#[test]
fn a_chunked_body_that_is_too_long_is_cut_off() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = format!("/upload?token={}", folder.upload_token("up.bin", 10));
    let long = Request::new("PATCH", &target).header("Upload-Offset", "0").chunked(vec![b'x'; 1 << 20]);
    let reply = long.send(site.client);
    problem::client(&reply, 413).unwrap();
    cors(&reply).unwrap();
    assert!(!folder.has("up.bin"), "no file of a body that was refused");
    let head = Request::new("HEAD", &target).send(site.client).expect(200);
    let offset: usize = head.header("upload-offset").unwrap().parse().unwrap();
    assert!(offset <= 10, "{offset}");
    let session = folder.path.join(".upload").join(Folder::session(target.split('=').nth(1).unwrap()));
    assert!(std::fs::metadata(session).unwrap().len() <= 10, "what is too much is not kept");
}

#[test]
fn head_tells_offset_and_length() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = format!("/upload?token={}", folder.upload_token("up.bin", 10));
    let head = Request::new("HEAD", &target).send(site.client).expect(200);
    for (name, value) in [
        ("Access-Control-Allow-Origin", "*"),
        ("Cache-Control", "no-store"),
        ("Tus-Resumable", "1.0.0"),
        ("Upload-Offset", "0"),
        ("Upload-Length", "10"),
    ] {
        assert_eq!(head.header(name).as_deref(), Some(value), "{name}");
    }
    for name in
        ["Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Allow-Methods"]
    {
        assert!(head.header(name).is_some(), "{name}");
    }
    cors(&head).unwrap();
    let wrong = Request::new("HEAD", &target).header("Tus-Resumable", "2.0.0").send(site.client);
    assert_eq!((wrong.status, wrong.header("tus-version").as_deref()), (412, Some("1.0.0")));
}

#[test]
fn options_answer_discovery_and_preflight() {
    let site = Site::start();
    let plain = Request::new("OPTIONS", "/upload").send(site.client);
    assert!(matches!(plain.status, 200 | 204) && plain.body.is_empty());
    assert_eq!(plain.header("tus-version").as_deref(), Some("1.0.0"));
    assert_eq!(plain.header("tus-resumable").as_deref(), Some("1.0.0"));
    assert_eq!(plain.header("tus-max-size").unwrap(), (100u64 << 30).to_string());
    assert_eq!(plain.header("x-content-type-options").as_deref(), Some("nosniff"));
    let extensions = plain.header("tus-extension").unwrap();
    for extension in ["checksum", "termination", "expiration"] {
        assert!(extensions.split(',').any(|name| name.trim() == extension), "{extensions}");
    }
    let algorithms = plain.header("tus-checksum-algorithm").unwrap();
    for algorithm in ["sha1", "sha256", "crc32c"] {
        assert!(algorithms.split(',').any(|name| name.trim() == algorithm), "{algorithms}");
    }
    let preflight = Request::new("OPTIONS", "/upload?token=whatever")
        .header("Origin", "https://webui.example.com")
        .header("Access-Control-Request-Method", "PATCH")
        .header("Access-Control-Request-Headers", "content-type,tus-resumable,upload-offset,x-custom")
        .send(site.client);
    assert!(matches!(preflight.status, 200 | 204));
    assert_eq!(preflight.header("access-control-allow-origin").as_deref(), Some("*"));
    let allowed = preflight.header("access-control-allow-headers").unwrap().to_lowercase();
    for name in ["content-type", "tus-resumable", "upload-offset", "x-custom"] {
        assert!(allowed == "*" || allowed.contains(name), "{name} in {allowed}");
    }
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PATCH") && methods.contains("HEAD"), "{methods}");
}

fn checksum(algorithm: &str, bytes: &[u8]) -> String {
    let digest = match algorithm {
        "sha1" => sha1::Sha1::digest(bytes).to_vec(),
        "sha256" => sha2::Sha256::digest(bytes).to_vec(),
        _ => crc32c::crc32c(bytes).to_be_bytes().to_vec(),
    };
    format!("{algorithm} {}", STANDARD.encode(digest))
}

#[test]
fn checksums_guard_each_patch() {
    let mut cases = Vec::new();
    for algorithm in ["sha1", "sha256", "crc32c"] {
        cases.push(patch("right", 4).header("Upload-Checksum", checksum(algorithm, &CONTENT[4..])));
        cases.push(
            patch("right, chunked", 0).header("Upload-Checksum", checksum(algorithm, CONTENT)).chunked(),
        );
        cases.push(
            patch("of other bytes", 4).header("Upload-Checksum", checksum(algorithm, CONTENT)).gives(460, 4),
        );
        cases.push(
            patch("of other bytes, not the last", 4)
                .body("45")
                .header("Upload-Checksum", checksum(algorithm, b"46"))
                .gives(460, 4),
        );
    }
    for wrong in
        ["md5 1B2M2Y8AsgTpgAmY7PhCfg==", "sha1", "sha1 !!!", "sha1 AAAA", "", "sha256 ", "crc32c AAAAAAAA"]
    {
        cases.push(patch("no checksum that we know", 4).header("Upload-Checksum", wrong).gives(400, 4));
    }
    run("checksum extension", cases);
}

#[test]
fn termination_removes_the_session_and_no_file() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = |name: &str| format!("/upload?token={}", folder.upload_token(name, 10));
    let send =
        |method: &str, target: &str| Request::new(method, target).header(TUS.0, TUS.1).send(site.client);
    let begun = target("begun");
    Request::new("PATCH", &begun).header("Upload-Offset", "0").body("0123").send(site.client).expect(204);
    let reply = send("DELETE", &begun).expect(204);
    cors(&reply).unwrap();
    assert_eq!(reply.header("tus-resumable").as_deref(), Some("1.0.0"));
    for method in ["HEAD", "DELETE"] {
        let again = send(method, &begun);
        assert!(matches!(again.status, 404 | 410), "{method}: {}", again.status);
    }
    let patched = Request::new("PATCH", &begun).header("Upload-Offset", "4").body("4").send(site.client);
    assert!(matches!(patched.status, 404 | 410), "{}", patched.status);
    assert!(
        !folder.has("begun")
            && !folder.has(&format!(".upload/{}", Folder::session(begun.split('=').nth(1).unwrap())))
    );
    let done = target("done");
    Request::new("PATCH", &done).header("Upload-Offset", "0").body(CONTENT).send(site.client).expect(204);
    send("DELETE", &done);
    assert_eq!(folder.read("done").unwrap(), CONTENT, "what is finished is a file like any other");
}

#[test]
fn every_reply_about_a_session_says_when_it_expires() {
    let site = Site::with(|settings| {
        settings.set("storage-proxy", "session-expire", "\"1h\"");
    });
    let folder = site.folder(Dialect::Scoped);
    let target = format!("/upload?token={}", folder.upload_token("up.bin", 10));
    let head = Request::new("HEAD", &target).send(site.client).expect(200);
    let patch =
        Request::new("PATCH", &target).header("Upload-Offset", "0").body("0").send(site.client).expect(204);
    for reply in [head, patch] {
        let expires = reply.header("upload-expires").expect("Upload-Expires");
        assert!(expires.ends_with(" GMT") && expires.len() == 29, "an IMF-fixdate (RFC 9110): {expires}");
    }
}

#[test]
fn a_finished_session_is_remembered_also_after_a_restart() {
    let mut site = Site::start();
    let (target, path) = {
        let folder = site.folder(Dialect::Scoped);
        let target = format!("/upload?token={}", folder.upload_token("dir/up.bin", 10));
        Request::new("PATCH", &target)
            .header("Upload-Offset", "0")
            .body(CONTENT)
            .send(site.client)
            .expect(204);
        (target, folder.path.join("dir/up.bin"))
    };
    for _ in 0..2 {
        let head = Request::new("HEAD", &target).send(site.client).expect(200);
        assert_eq!(head.header("upload-offset").as_deref(), Some("10"));
        assert_eq!(head.header("upload-length").as_deref(), Some("10"));
        let late =
            Request::new("PATCH", &target).header("Upload-Offset", "0").body(CONTENT).send(site.client);
        assert!(matches!(late.status, 404 | 409), "a late repetition: {}", late.status);
        assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
        site.kill();
        site.launch();
    }
}

#[test]
fn an_empty_upload_makes_an_empty_file_without_a_patch() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let token = folder.upload_token("made/at/once", 0);
    assert_eq!(folder.read("made/at/once").as_deref(), Some(&b""[..]), "the SDK sends nothing at all");
    let head = Request::new("HEAD", &format!("/upload?token={token}&dst_dir=elsewhere"))
        .send(site.client)
        .expect(200);
    assert_eq!(head.header("upload-offset").as_deref(), Some("0"));
    assert_eq!(head.header("upload-length").as_deref(), Some("0"));
    assert_eq!(folder.read("elsewhere/made/at/once").as_deref(), Some(&b""[..]));
    folder.write("old", "content");
    let token = folder.upload_token("old", 0);
    assert_eq!(folder.read("old").unwrap(), b"content", "an existing file stays until the client comes");
    Request::new("HEAD", &format!("/upload?token={token}")).send(site.client).expect(200);
    assert_eq!(folder.read("old").unwrap(), b"");
}

#[test]
fn dst_dir_leads_to_a_directory_of_the_folder() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let put = |dst_dir: &str, relpath: &str| {
        let token = folder.upload_token(relpath, 10);
        let request = Request::new("PATCH", &format!("/upload?token={token}&dst_dir={dst_dir}"));
        request.header("Upload-Offset", "0").body(CONTENT).send(site.client)
    };
    for (dst_dir, relpath, path) in [
        ("", "plain", "plain"),
        ("sub", "deep/x", "sub/deep/x"),
        ("a%20b%2Fc", "x", "a b/c/x"),
        ("%ED%95%9C%EA%B8%80", "x", "한글/x"),
        ("sub/./deep/", "y", "sub/deep/y"),
    ] {
        put(dst_dir, relpath).expect(204);
        assert_eq!(folder.read(path).as_deref(), Some(CONTENT), "dst_dir={dst_dir}");
    }
    for dst_dir in ["..", "a/../../b", "/etc", "%2Fetc", "%2e%2e", "%00", &"n".repeat(256), "plain"] {
        let reply = put(dst_dir, "x");
        assert!(matches!(reply.status, 400 | 409), "dst_dir={dst_dir}: {} {}", reply.status, reply.text());
        problem::client(&reply, reply.status).unwrap();
        cors(&reply).unwrap();
    }
    assert!(!site.path("local/x").exists() && !folder.path.parent().unwrap().join("x").exists());
    assert_eq!(json!(folder.names("sub")), json!(["deep"]));
}
