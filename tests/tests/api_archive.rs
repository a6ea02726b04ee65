//! Directories as ZIP files: what is inside, what is left out, and how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use storage_agent_tests::agent::is_root;
use storage_agent_tests::archive::{Entry, entries};
use storage_agent_tests::http::{Reply, Request};
use storage_agent_tests::problem;
use storage_agent_tests::site::{Dialect, Folder, Site};

fn directory(folder: &Folder, relpath: &str) -> Reply {
    folder.site.get(&format!("/download?token={}&archive=true", folder.download_token(relpath)))
}

fn selection(folder: &Folder, files: Value, filename: Value) -> Reply {
    let params = json!({"virtual_folder_id": folder.vfid, "files": files, "filename": filename});
    let token = folder.token("POST folder/file/archive-download-token", params);
    folder.site.get(&format!("/download-archive?token={token}"))
}

fn names(reply: &Reply) -> Vec<String> {
    entries(&reply.body).unwrap().into_keys().collect()
}

fn furnish(folder: &Folder) {
    folder.write("dir/file", "content");
    folder.write("dir/deep/\u{d55c}\u{ae00}", "korean");
    folder.mkdir("dir/empty");
    folder.write("top", "x".repeat(100_000));
    folder.write(".upload/staging", "half");
    folder.link("dir/link-in", "file");
    folder.link("dir/link-out", folder.site.path("outside/canary"));
    folder.link("dir/link-dir", "deep");
}

#[test]
fn a_directory_arrives_with_all_that_is_in_it() {
    let site = Site::start();
    for dialect in [Dialect::Bare, Dialect::Scoped] {
        let folder = site.folder(dialect);
        furnish(&folder);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        fs::File::options()
            .write(true)
            .open(folder.path.join("dir/file"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        let reply = directory(&folder, "dir").expect(200);
        assert_eq!(reply.header("content-type").as_deref(), Some("application/zip"));
        assert_eq!(
            reply.header("content-disposition").as_deref(),
            Some("attachment;filename=\"dir.zip\"; filename*=UTF-8''dir.zip")
        );
        assert_eq!((reply.header("content-length"), reply.complete), (None, true));
        let inside = entries(&reply.body).unwrap();
        let regular = |name: &str| !inside[name].is_dir && !inside[name].is_link;
        assert_eq!(inside["file"].content, b"content");
        assert_eq!(inside["deep/\u{d55c}\u{ae00}"].content, b"korean", "names are UTF-8");
        assert!(regular("file") && inside["empty/"].is_dir);
        // Local time or UTC: the zone isn't part of the format.
        let Entry { modified, .. } = &inside["file"];
        assert_eq!(modified.unwrap()[..2], [2023, 11]);
        for (name, entry) in &inside {
            assert!(!entry.content.windows(9).any(|nine| nine == b"untouched"), "{name} is from outside");
            assert!(!name.starts_with("link-") || entry.is_link, "{name} is followed");
        }
        assert!(!inside.contains_key("link-out"), "a link that leads out is left out");
    }
}

#[test]
fn the_root_is_named_and_its_staging_directory_left_out() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    furnish(&folder);
    let reply = directory(&folder, ".").expect(200);
    let inside = entries(&reply.body).unwrap();
    assert!(inside.keys().all(|name| !name.contains(".upload")), "{:?}", inside.keys());
    assert_eq!(inside["top"].content.len(), 100_000);
    assert!(inside["top"].deflated && reply.body.len() < 50_000, "{} bytes", reply.body.len());
    assert!(inside.contains_key("dir/file"));
    let again =
        site.get(&format!("/download?token={}&archive=true&no_cache=true", folder.download_token(".")));
    assert_eq!(again.header("cache-control").as_deref(), Some("no-store"));
}

#[test]
fn a_selection_has_paths_from_the_root() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    furnish(&folder);
    let reply = selection(&folder, json!(["dir/deep", "top", "dir/file"]), Value::Null).expect(200);
    let inside = entries(&reply.body).unwrap();
    for name in ["dir/deep/\u{d55c}\u{ae00}", "dir/file", "top"] {
        assert!(inside.contains_key(name), "{name} in {:?}", inside.keys());
    }
    assert!(!inside.contains_key("dir/empty/"));
    let disposition = |reply: &Reply| reply.header("content-disposition").unwrap();
    assert_eq!(disposition(&reply), "attachment;filename=\"archive.zip\"; filename*=UTF-8''archive.zip");
    let named = selection(&folder, json!(["top"]), json!("my \u{e4}rchive.zip"));
    assert_eq!(
        disposition(&named),
        "attachment;filename=\"my rchive.zip\"; filename*=UTF-8''my%20%C3%A4rchive.zip"
    );
    let twice =
        selection(&folder, json!(["top", "top", "dir", "dir/file", "./top"]), Value::Null).expect(200);
    assert!(names(&twice).iter().filter(|name| *name == "top").count() == 1, "no name twice");
}

#[test]
fn everything_wrong_with_a_selection_is_told_before_the_first_byte() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    furnish(&folder);
    for (files, status) in [
        (json!(["top", "none"]), 404),
        (json!(["top", "dir/link-in"]), 400),
        (json!(["dir/link-dir"]), 400),
        (json!(["dir/link-dir/x"]), 404),
    ] {
        let reply = selection(&folder, files.clone(), Value::Null);
        assert!(
            reply.status == status || (status == 404 && reply.status == 400),
            "{files}: {}",
            reply.status
        );
        problem::client(&reply, reply.status).unwrap();
    }
    assert_eq!(directory(&folder, "none").status, 404);
    let file =
        site.get(&format!("/download?token={}&archive=true", folder.download_token("top"))).expect(200);
    assert_eq!(
        file.header("content-type").as_deref(),
        Some("application/octet-stream"),
        "a file is no archive"
    );
}

#[test]
fn head_of_an_archive_sends_no_body() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    furnish(&folder);
    let target = format!("/download?token={}&archive=true", folder.download_token("dir"));
    let reply = Request::new("HEAD", &target).send(site.client).expect(200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/zip"));
    let ranged = Request::new("GET", &target).header("Range", "bytes=0-9").send(site.client).expect(200);
    assert!(entries(&ranged.body).is_ok(), "no ranges of what is made on the way");
}

#[test]
fn an_empty_directory_is_an_empty_archive() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    assert_eq!(names(&directory(&folder, ".").expect(200)), Vec::<String>::new());
}

#[test]
fn more_than_65535_entries_fit() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    // Names of one file per directory: as many entries, without as many files to make and remove.
    for dir in 0..70 {
        let first = folder.path.join(format!("d{dir}/f0"));
        fs::create_dir(first.parent().unwrap()).unwrap();
        fs::write(&first, dir.to_string()).unwrap();
        (1..1000).for_each(|n| fs::hard_link(&first, first.with_file_name(format!("f{n}"))).unwrap());
    }
    folder.own();
    let reply = directory(&folder, ".").expect(200);
    assert!(reply.complete);
    let inside = entries(&reply.body).unwrap();
    let files: Vec<_> = inside.iter().filter(|(_, entry)| !entry.is_dir).collect();
    assert_eq!(files.len(), 70_000);
    assert!(
        files.iter().all(|(name, entry)| name[1..].split('/').next().unwrap().as_bytes() == entry.content)
    );
}

#[test]
fn a_file_that_cannot_be_read_breaks_the_archive_visibly() {
    if !is_root() {
        eprintln!("skipped: only root can make a file that the agent can't read");
        return;
    }
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    for number in 0..50 {
        folder.write(&format!("f{number}"), vec![number; 50_000]);
    }
    let secret = folder.write("secret", "x");
    std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let reply = Request::new("GET", &format!("/download?token={}&archive=true", folder.download_token(".")))
        .try_send(site.client);
    // Either the status says so, or the chunked body ends without its last chunk.
    match reply {
        Ok(reply) if reply.status == 200 => assert!(!reply.complete, "half an archive must not look whole"),
        Ok(reply) => drop(problem::client(&reply, reply.status).unwrap()),
        Err(_) => {}
    }
    site.get("/").expect(200);
}
