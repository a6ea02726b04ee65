//! Attacks that programs of this kind have fallen to. SECURITY.md lists them, each with the tests that hold it; here are
//! those that belong nowhere else, and the check that every test of the list exists.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use storage_agent_tests::archive::entries;
use storage_agent_tests::http::Request;
use storage_agent_tests::site::{DIALECTS, Dialect, Site, fresh_uuid};

/// The tests that a text names as `path::name` in backquotes.
fn named_tests(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|name| name.split_once("::"));
    let is_file = |(file, _): &(&str, &str)| file.ends_with(".rs") || file.ends_with(".py");
    pairs.filter(is_file).map(|(file, test)| (file.to_owned(), test.to_owned())).collect()
}

#[test]
fn every_test_that_the_list_of_attacks_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, list) = text.split_once("## Known attacks").expect("SECURITY.md lists known attacks");
    let rows: Vec<&str> =
        list.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).skip(1).collect();
    assert!(rows.len() >= 11, "{} attacks", rows.len());
    let mut count = 0;
    for row in rows {
        let tests = named_tests(row);
        assert!(!tests.is_empty(), "no test holds: {row}");
        for (file, test) in tests {
            let code = fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let defined = ["fn", "def"].iter().any(|word| code.contains(&format!("{word} {test}(")));
            assert!(defined, "{file} has no test {test}");
            count += 1;
        }
    }
    println!("{count} tests of the list exist");
}

/// tusd #467: behind a proxy that ends TLS, clients were sent on to http.
#[test]
fn no_reply_tells_a_client_where_to_go() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let upload = format!("/upload?token={}", folder.upload_token("up.bin", 4));
    let download = format!("/download?token={}", folder.download_token("file"));
    for (method, target, body) in [
        ("OPTIONS", upload.as_str(), ""),
        ("HEAD", &upload, ""),
        ("POST", &upload, ""),
        ("PATCH", &upload, "abcd"),
        ("GET", &download, ""),
        ("GET", "/", ""),
        ("GET", "//evil.example/", ""),
        ("GET", "/download/", ""),
    ] {
        let request = Request::new(method, target)
            .header("Host", "evil.example")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "evil.example")
            .header("Forwarded", "proto=https;host=evil.example")
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", "0");
        let reply = request.body(body).send(site.client);
        assert!(!(300..400).contains(&reply.status), "{method} {target}: {}", reply.status);
        assert_eq!(reply.header("location"), None, "{method} {target}");
        assert_eq!(reply.header("content-location"), None, "{method} {target}");
        assert!(!reply.text().contains("evil.example"), "{method} {target}: {}", reply.text());
    }
}

/// Backend.AI #1665: a link to a directory above itself was followed without end.
#[test]
fn links_in_a_circle_end_no_walk() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.write("a/b/file", "content");
        folder.link("a/b/up", "..");
        folder.link("a/b/root", &folder.path);
        folder.link("a/self", "self");
        folder.link("one", "two");
        folder.link("two", "one");
        let usage = folder.call("GET folder/usage", json!({})).expect(200).json();
        assert_eq!(usage["used_bytes"].as_u64().map(|bytes| bytes < 1_000_000), Some(true), "{usage}");
        let token = folder.download_token("a");
        let archive = site.get(&format!("/download?token={token}&archive=true")).expect(200);
        let names: Vec<String> = entries(&archive.body).unwrap().into_keys().collect();
        assert_eq!(names.iter().filter(|name| name.contains("file")).count(), 1, "{names:?}");
        let target = match dialect {
            Dialect::Bare => fresh_uuid(),
            Dialect::Scoped => format!("user:{}/{}", fresh_uuid(), fresh_uuid()),
        };
        let params = json!({
            "src_volume": "local", "src_vfid": folder.vfid, "dst_volume": "local", "dst_vfid": target,
        });
        let task = site.call("POST folder/clone", &params).expect(200).json()["bgtask_id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(site.finished(&task)["state"], "done");
        let copy = site.folder_named("local", &target);
        assert_eq!(fs::read_link(copy.path.join("a/b/up")).unwrap(), Path::new(".."));
        let status = folder.call("POST folder/delete", json!({})).status;
        assert!((200..300).contains(&status), "{status}");
    }
}

/// Backend.AI #7036: names in an archive led out of the directory that it was unpacked into.
#[test]
fn no_entry_of_an_archive_leads_out() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    for name in
        ["..\\..\\evil", "C:\\evil", "\\\\host\\share", "...", "a..b", "run 12:30/x", "data:/y", "ü:z"]
    {
        folder.write(&format!("dir/{name}"), name);
    }
    folder.link("dir/out", site.path("outside"));
    folder.link("dir/deep", "../../../../../../etc");
    let token = folder.download_token("dir");
    let archive = site.get(&format!("/download?token={token}&archive=true")).expect(200);
    let inside = entries(&archive.body).unwrap();
    for (name, entry) in &inside {
        assert!(!name.starts_with('/') && !name.contains('\\'), "{name}");
        assert!(name.split('/').all(|part| part != ".."), "{name}");
        assert!(!entry.is_link, "{name} is a link");
    }
    // And none is missing, or has taken another's name.
    assert_eq!(inside.values().filter(|entry| !entry.is_dir).count(), 8, "{:?}", inside.keys());
}

/// Backend.AI #3241: a path in a token or a request led out of the folder.
#[test]
fn no_path_with_dots_leads_a_download_out() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let up = "../".repeat(12);
    for path in [
        format!("{up}etc/passwd"),
        "../canary".into(),
        "dir/../../canary".into(),
        "/etc/passwd".into(),
        "..".into(),
        "file/../../..".into(),
        format!("{}", site.path("outside/canary").display()),
    ] {
        let params = json!({"relpath": path});
        let asked = folder.call("POST folder/file/download", params.clone());
        assert!(!asked.text().contains("root:") && !asked.text().contains("untouched"), "{path}");
        for claims in [
            json!({"op": "download", "relpath": path}),
            json!({"op": "download", "relpath": ".", "dst_dir": path}),
        ] {
            let token = folder.signed(claims);
            for target in [
                format!("/download?token={token}"),
                format!("/download?token={token}&archive=true"),
                format!("/download?token={token}&dst_dir={}", path.replace('/', "%2F")),
            ] {
                let reply = site.get(&target);
                let leaked = ["root:", "untouched"].iter().any(|secret| reply.text().contains(secret));
                assert!(!leaked, "{target}: {}", reply.text());
            }
        }
    }
    assert_eq!(site.call("GET volumes", &Value::Null).status, 200, "and it goes on");
}
