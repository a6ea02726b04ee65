//! The file routes: what they do when all is well, and how they treat what is in the way.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use storage_agent_tests::settings::TOKEN_SECRET;
use storage_agent_tests::site::{DIALECTS, Dialect, Folder, Site, now};
use storage_agent_tests::table::Table;
use storage_agent_tests::{jwt, problem, shape};

fn post(folder: &Folder, route: &str, params: Value) -> storage_agent_tests::http::Reply {
    folder.call(&format!("POST folder/file/{route}"), params)
}

#[test]
fn mkdir_treats_each_path_by_itself() {
    let site = Site::start();
    let mut table = Table::new("mkdir");
    for (params, status, success, failed) in [
        (json!({"relpath": "a/b/c"}), 200, vec!["a/b/c"], vec![]),
        (json!({"relpath": "a/b/c", "parents": false}), 422, vec![], vec!["a/b/c"]),
        (json!({"relpath": "a", "parents": false}), 200, vec!["a"], vec![]),
        (json!({"relpath": ["a", "dir", "b"]}), 207, vec!["a", "b"], vec!["dir"]),
        (json!({"relpath": ["a", "a"]}), 207, vec!["a"], vec!["a"]),
        (json!({"relpath": ["dir", "file"]}), 422, vec![], vec!["dir", "file"]),
        (json!({"relpath": "dir", "exist_ok": true}), 200, vec!["dir"], vec![]),
        (json!({"relpath": ["dir", "new"], "exist_ok": true}), 200, vec!["dir", "new"], vec![]),
        (json!({"relpath": "file", "exist_ok": true}), 422, vec![], vec!["file"]),
        (json!({"relpath": "file/below"}), 422, vec![], vec!["file/below"]),
        (json!({"relpath": "dir/./x//y/"}), 200, vec!["dir/x/y"], vec![]),
    ] {
        let folder = site.folder(Dialect::Scoped);
        folder.mkdir("dir");
        folder.write("file", "x");
        let reply = post(&folder, "mkdir", params.clone());
        let body = reply.json();
        let items = |key: &str| -> Vec<String> {
            let items = body["results"][key].as_array().cloned().unwrap_or_default();
            items
                .iter()
                .map(|item| item["item"].as_str().unwrap_or("?").trim_end_matches('/').to_owned())
                .collect()
        };
        let made = success.iter().all(|path| folder.path.join(path).is_dir());
        let right =
            reply.status == status && items("success").len() == success.len() && items("failed") == failed;
        let messages = body["results"]["failed"]
            .as_array()
            .is_some_and(|all| all.iter().all(|item| item["msg"].is_string()));
        let refused = status != 422 || problem::manager(&reply, 422).is_ok();
        let ok = made && right && messages && refused;
        table.row(
            params.to_string(),
            if ok { Ok(body.to_string()) } else { Err(format!("{} {body}", reply.status)) },
        );
    }
    table.finish();
}

#[test]
fn fifty_directories_are_made_at_once_and_fifty_one_are_refused() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        let paths = |count: usize| (0..count).map(|number| format!("d{number}/inner")).collect::<Vec<_>>();
        let body = problem::manager(&post(&folder, "mkdir", json!({"relpath": paths(51)})), 400).unwrap();
        assert!(body.to_string().contains("50"), "it says the limit: {body}");
        assert_eq!(folder.names(""), Vec::<String>::new());
        let reply = post(&folder, "mkdir", json!({"relpath": paths(50)})).expect(200).json();
        assert_eq!(reply["results"]["success"].as_array().unwrap().len(), 50);
        assert_eq!(folder.names("").len(), 50);
        assert_eq!(fs::metadata(folder.path.join("d0/inner")).unwrap().mode() & 0o7777, 0o755);
    }
}

#[test]
fn a_listing_has_every_fact_in_the_form_that_managers_parse() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let stamp = |name: &str, nanos: u32| {
        let path = folder.write(name, "12345");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1750)).unwrap();
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, nanos);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    stamp("whole", 0);
    stamp("half", 500_000_000);
    stamp("micro", 1_000);
    stamp("nano", 999);
    let listing = post(&folder, "list", json!({"relpath": "."})).expect(200).json();
    for (name, modified) in [
        ("whole", "2023-11-14T22:13:20+00:00"),
        ("half", "2023-11-14T22:13:20.500000+00:00"),
        ("micro", "2023-11-14T22:13:20.000001+00:00"),
        ("nano", "2023-11-14T22:13:20+00:00"),
    ] {
        let item = listing["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap();
        let expected = json!({"name": name, "type": "FILE", "symlink_target": "", "stat":
            {"mode": 0o101750, "size": 5, "created": "<time>", "modified": modified}});
        assert_eq!(shape::compare(&expected, item), Ok(()), "{name}");
    }
}

#[test]
fn times_before_1970_and_after_2038_are_listed() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let path = folder.write("old", "x");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(UNIX_EPOCH - Duration::from_millis(1500))
        .unwrap();
    let path = folder.write("future", "x");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(4_102_444_800))
        .unwrap();
    let listing = post(&folder, "list", json!({"relpath": "."})).expect(200).json();
    let modified = |name: &str| {
        let items = listing["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap()["stat"]["modified"].clone()
    };
    assert_eq!(modified("old"), "1969-12-31T23:59:58.500000+00:00");
    assert_eq!(modified("future"), "2100-01-01T00:00:00+00:00");
}

#[test]
fn a_links_target_is_told_relative_to_the_listed_directory_and_only_if_it_is_inside() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("dir/file", "x");
    folder.write("dir/sub/file", "x");
    folder.write("top", "x");
    for (name, target) in [
        ("dir/near", "file"),
        ("dir/deep", "sub/file"),
        ("dir/above", "../top"),
        ("dir/chain", "near"),
        ("dir/loop", "loop"),
        ("dir/out", "/etc/passwd"),
        ("dir/escape", "../../../../.."),
    ] {
        folder.link(name, target);
    }
    let listing = post(&folder, "list", json!({"relpath": "dir"})).expect(200).json();
    let targets: Value = listing["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "SYMLINK")
        .map(|item| (item["name"].as_str().unwrap().to_owned(), item["symlink_target"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    // `above` resolves inside the folder but outside the listed directory.
    assert_eq!(
        targets,
        json!({"near": "file", "deep": "sub/file", "above": "", "chain": "file", "loop": "", "out": "", "escape": ""})
    );
}

#[test]
fn a_listing_is_cut_at_the_limit_and_zero_means_no_limit() {
    for (limit, expected) in [("5", 5), ("0", 1200), ("2000", 1200)] {
        let site = Site::with(|settings| {
            settings.set("storage-proxy", "scandir-limit", limit);
        });
        let folder = site.folder(Dialect::Scoped);
        for number in 0..1200 {
            fs::write(folder.path.join(format!("f{number}")), "").unwrap();
        }
        folder.own();
        assert_eq!(folder.names("").len(), expected, "scandir-limit = {limit}");
    }
}

#[test]
fn a_listing_shows_the_staging_directory_of_uploads() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let token = folder.upload_token("x", 5);
    assert_eq!(folder.names(""), [".upload"]);
    assert!(folder.path.join(".upload").join(Folder::session(&token)).is_file());
}

#[test]
fn rename_keeps_an_entry_in_its_directory() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.write("dir/file", "content");
        folder.write("dir/other", "old");
        folder.write("target", "x");
        folder.link("link", "target");
        let rename = |relpath: &str, new_name: &str| {
            post(&folder, "rename", json!({"relpath": relpath, "new_name": new_name, "is_dir": "anything"}))
        };
        rename("dir/file", "renamed").expect(204);
        assert_eq!(folder.read("dir/renamed").unwrap(), b"content");
        rename("dir/renamed", "other").expect(204);
        assert_eq!(
            (folder.read("dir/other").unwrap(), folder.has("dir/renamed")),
            (b"content".to_vec(), false)
        );
        rename("dir/", "moved").expect(204);
        assert!(folder.has("moved/other"));
        rename("link", "link2").expect(204);
        assert!(folder.has("target") && folder.path.join("link2").is_symlink(), "the link itself is renamed");
        rename("target", "target").expect(204);
        folder.mkdir("into");
        rename("target", "into").expect(204);
        assert!(folder.has("into/target"), "an existing directory takes the entry in, as mv(1) does");
    }
}

#[test]
fn move_follows_mv() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.write("a/file", "content");
        folder.write("b/old", "old");
        folder.link("a/link", "nowhere");
        let go =
            |from: &str, to: &str| post(&folder, "move", json!({"src_relpath": from, "dst_relpath": to}));
        go("a/file", "b/new").expect(204);
        assert_eq!(folder.read("b/new").unwrap(), b"content");
        go("b/new", "b/old").expect(204);
        assert_eq!(folder.read("b/old").unwrap(), b"content");
        go("b/old", "a").expect(204);
        assert_eq!(folder.read("a/old").unwrap(), b"content");
        go("a/link", "b").expect(204);
        assert!(folder.path.join("b/link").is_symlink());
        go("a", "b/").expect(204);
        assert_eq!(folder.read("b/a/old").unwrap(), b"content");
        folder.write("a/new", "x");
        let body = problem::manager(&go("a", "b"), 400).unwrap();
        assert_eq!(body.get("errno"), Some(&Value::Null), "a directory of that name is there: {body}");
        assert!(folder.has("a/new") && folder.has("b/a/old"));
        folder.write("old", "other");
        let body = problem::manager(&go("b/a/old", "."), 400).unwrap();
        assert_eq!(body.get("errno"), Some(&Value::Null), "a file of that name is there: {body}");
        assert_eq!(folder.read("old").unwrap(), b"other");
        fs::remove_file(folder.path.join("old")).unwrap();
        go("b/a/old", ".").expect(204);
        assert!(folder.has("old"));
    }
}

#[test]
fn fetch_gives_the_bytes_and_404_when_there_are_none() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    folder.write("task/ab/cd/log", &content);
    folder.write("empty", "");
    folder.link("link", "task/ab/cd/log");
    for relpath in ["task/ab/cd/log", "link"] {
        let reply = post(&folder, "fetch", json!({"relpath": relpath})).expect(200);
        assert_eq!(reply.header("content-type").unwrap(), "application/octet-stream");
        assert_eq!(reply.header("content-length").unwrap(), content.len().to_string());
        assert!(reply.body == content, "{relpath}");
    }
    let empty = post(&folder, "fetch", json!({"relpath": "empty"})).expect(200);
    assert_eq!((empty.header("content-length").unwrap().as_str(), empty.body.len()), ("0", 0));
    let missing = problem::manager(&post(&folder, "fetch", json!({"relpath": "none/log"})), 404).unwrap();
    assert_eq!(missing["error_code"], "vfolder_read_not-found");
}

#[test]
fn delete_removes_what_is_named_and_nothing_else() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        for name in ["a", "b", "dir/x/y", "kept", "empty/.keep", "target/file"] {
            folder.write(name, "x");
        }
        fs::remove_file(folder.path.join("empty/.keep")).unwrap();
        folder.link("link", "target");
        folder.link("out", site.path("outside"));
        let delete = |paths: Value, recursive: Value| {
            post(&folder, "delete", json!({"relpaths": paths, "recursive": recursive}))
        };
        let refused = problem::manager(&delete(json!(["a", "dir", "b"]), json!(false)), 400).unwrap();
        assert_eq!((&refused["errno"], &refused["paths"]), (&json!(21), &json!(["dir"])));
        assert!(folder.has("a") && folder.has("b"), "nothing was removed before the refusal");
        assert_eq!(
            delete(json!(["a", "missing", "no/such/dir/x", "b"]), json!(false)).expect(200).json(),
            json!({"status": "ok"})
        );
        assert_eq!(folder.names(""), ["dir", "empty", "kept", "link", "out", "target"]);
        delete(json!(["link", "out"]), json!(true)).expect(200);
        assert!(folder.has("target/file") && site.path("outside/canary").exists(), "links go, targets stay");
        delete(json!(["dir", "dir/x", "empty"]), json!(true)).expect(200);
        assert_eq!(folder.names(""), ["kept", "target"]);
        delete(json!(["a"]), json!(true)).expect(200);
        let id = post(&folder, "delete-async", json!({"relpaths": ["target", "none"], "recursive": true}))
            .expect(202)
            .json();
        let over = site.finished(id["bgtask_id"].as_str().unwrap());
        assert_eq!(over["state"], "done", "{over}");
        assert_eq!(folder.names(""), ["kept"]);
    }
}

#[test]
fn thousands_of_paths_are_deleted_in_one_request() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let names: Vec<String> =
        (0..20_000).map(|number| format!("some/rather/long/path/to/file-{number}")).collect();
    folder.mkdir("some/rather/long/path/to");
    names.iter().step_by(10).for_each(|name| fs::write(folder.path.join(name), "").unwrap());
    folder.own();
    post(&folder, "delete", json!({"relpaths": names})).expect(200);
    assert_eq!(folder.names("some/rather/long/path/to"), Vec::<String>::new());
}

#[test]
fn tokens_carry_the_claims_of_the_contract() {
    let site = Site::with(|settings| {
        settings.set("storage-proxy", "session-expire", "\"2h\"");
    });
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        let check = |token: &str, mut expected: Value| {
            let (header, mut claims) = jwt::open(token, TOKEN_SECRET);
            assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
            // Both are optional and mean nothing as they are.
            for (key, neutral) in [("archive", json!(false)), ("unmanaged_path", Value::Null)] {
                let claims = claims.as_object_mut().unwrap();
                assert!(claims.remove(key).is_none_or(|value| value == neutral), "{key}");
            }
            expected["volume"] = json!("local");
            expected["exp"] = json!("<count>");
            assert_eq!(shape::compare(&expected, &claims), Ok(()), "{claims}");
            let lifetime = claims["exp"].as_u64().unwrap() - now();
            assert!((7195..=7200).contains(&lifetime), "{lifetime} s");
        };
        // 32 digits without hyphens, as upstream prints it today.
        let vfid = match folder.vfid.split_once('/') {
            Some((scope, id)) => format!("{scope}/{}", id.replace('-', "")),
            None => folder.vfid.replace('-', ""),
        };
        let download =
            folder.token("POST folder/file/download", json!({"relpath": "a//b/./c", "archive": true}));
        check(&download, json!({"op": "download", "vfid": vfid, "relpath": "a/b/c"}));
        let root = folder.token("POST folder/file/download", json!({"relpath": ""}));
        check(&root, json!({"op": "download", "vfid": vfid, "relpath": "."}));
        let upload = folder.upload_token("dir/up.bin", 1234);
        check(
            &upload,
            json!({"op": "upload", "vfid": vfid, "relpath": "dir/up.bin", "session": "<str>", "size": 1234}),
        );
        let session = Folder::session(&upload);
        assert!(
            session.len() == 32 && session.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        );
        assert_eq!(
            folder.read(&format!(".upload/{session}")).unwrap(),
            b"",
            "the staging file is made with the session"
        );
        for (filename, claim) in [(json!("x.zip"), json!("x.zip")), (Value::Null, Value::Null)] {
            let params =
                json!({"virtual_folder_id": folder.vfid, "files": ["a", "b/"], "filename": filename});
            let token = folder.token("POST folder/file/archive-download-token", params);
            let (_, claims) = jwt::open(&token, TOKEN_SECRET);
            assert_eq!(claims["filename"], claim);
            check(
                &token,
                json!({"operation": "download", "virtual_folder_id": vfid, "files": ["a", "b"], "filename": claim}),
            );
        }
    }
}

#[test]
fn an_upload_larger_than_the_limit_gets_no_session() {
    let site = Site::with(|settings| {
        settings.set("storage-proxy", "max-upload-size", "\"1k\"");
    });
    let folder = site.folder(Dialect::Scoped);
    folder.upload_token("x", 1024);
    let body =
        problem::manager(&post(&folder, "upload", json!({"relpath": "x", "size": 1025})), 400).unwrap();
    problem::names(&body, "size").unwrap();
    assert!(
        body.to_string().contains("1024") || body.to_string().contains("1 KiB"),
        "it says the limit: {body}"
    );
    assert_eq!(fs::read_dir(folder.path.join(".upload")).unwrap().count(), 1);
    let options = storage_agent_tests::http::Request::new("OPTIONS", "/upload").send(site.client);
    assert_eq!(options.header("tus-max-size").unwrap(), "1024");
}
