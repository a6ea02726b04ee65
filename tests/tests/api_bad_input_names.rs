//! Names of any bytes, links that lead out of the folder, and entries that are neither files nor directories.
//!
//! A legal name must survive every route, however odd it is. A link must never carry a request out of its
//! folder, and a FIFO, socket or device must never make a request wait.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use storage_agent_tests::agent::is_root;
use storage_agent_tests::http::{Reply, Request};
use storage_agent_tests::settings::{MANAGER_SECRET, TOKEN_SECRET};
use storage_agent_tests::site::{AUTH, DIALECTS, Dialect, Folder, Site, now};
use storage_agent_tests::table::Table;
use storage_agent_tests::{archive, jwt, problem};

/// Names as bytes, and as Python's `json.dumps` of the `surrogateescape`d text would write them.
fn odd_names() -> Vec<(Vec<u8>, String)> {
    let plain = |text: &str| (text.as_bytes().to_vec(), serde_json::to_string(text).unwrap());
    let mut names: Vec<(Vec<u8>, String)> = [
        "new\nline",
        "tab\tand\rreturn",
        "bell\u{7}",
        "quo\"te",
        "back\\slash",
        " blanks ",
        "-rf",
        "*",
        "...",
        "%2e%2e%2f",
        "~",
        "$(id)",
        "name;ext",
        "한국어",
        "e\u{301}",
        "\u{202e}txt.exe",
        "\u{1f980}",
        "\u{feff}bom",
        "CON",
        "a:b",
    ]
    .iter()
    .map(|text| plain(text))
    .collect();
    names.push(plain(&"n".repeat(255)));
    names.push((b"bad\xffbyte".to_vec(), r#""bad\udcffbyte""#.into()));
    names.push((b"\xc3\x28".to_vec(), r#""\udcc3(""#.into()));
    names.push((b"\xed\xa0\x80".to_vec(), r#""\udced\udca0\udc80""#.into()));
    names
}

/// A manager's request whose parameters are JSON text, which may hold lone surrogates.
fn post(folder: &Folder, route: &str, params: &str) -> Reply {
    let body = format!(r#"{{"volume":"local","vfid":"{}",{params}}}"#, folder.vfid);
    let request = Request::new("POST", &format!("/folder/file/{route}")).header(AUTH, MANAGER_SECRET);
    request.header("Content-Type", "application/json").body(body).send(folder.site.manager)
}

/// Takes one file of an odd name through every route.
fn round_trip(folder: &Folder, name: &[u8], json: &str) -> Result<String, String> {
    let want = |what: &str, reply: Reply, status: u16| match reply.status {
        seen if seen == status => Ok(reply),
        seen => Err(format!("{what}: {seen} {}", reply.text())),
    };
    let on_disk = folder.path.join(OsStr::from_bytes(name));
    want("mkdir", post(folder, "mkdir", &format!(r#""relpath":{json}"#)), 200)?;
    let made = fs::symlink_metadata(&on_disk).is_ok_and(|meta| meta.is_dir());
    if !made {
        return Err("mkdir made something else".into());
    }
    want("delete", post(folder, "delete", &format!(r#""relpaths":[{json}],"recursive":true"#)), 200)?;
    folder.write("plain", "content");
    want("rename to it", post(folder, "rename", &format!(r#""relpath":"plain","new_name":{json}"#)), 204)?;
    if fs::read(&on_disk).ok().as_deref() != Some(b"content") {
        return Err("rename made something else".into());
    }
    let listing = want("list", post(folder, "list", r#""relpath":"""#), 200)?;
    // Any escape of JSON will do for what has a plain form; what is no UTF-8 has only one.
    let listed = match std::str::from_utf8(name) {
        Ok(text) => listing.json()["items"].as_array().unwrap().iter().any(|item| item["name"] == text),
        Err(_) => listing.text().contains(json),
    };
    if !listed {
        return Err(format!("list: {}", listing.text()));
    }
    let fetched = want("fetch", post(folder, "fetch", &format!(r#""relpath":{json}"#)), 200)?;
    let token = want("download", post(folder, "download", &format!(r#""relpath":{json}"#)), 200)?.json();
    let token = token["token"].as_str().unwrap().to_owned();
    let got = want("GET /download", folder.site.get(&format!("/download?token={token}")), 200)?;
    if fetched.body != b"content" || got.body != b"content" {
        return Err("the bytes differ".into());
    }
    want("move", post(folder, "move", &format!(r#""src_relpath":{json},"dst_relpath":"moved""#)), 204)?;
    want("move back", post(folder, "move", &format!(r#""src_relpath":"moved","dst_relpath":{json}"#)), 204)?;
    want("delete", post(folder, "delete", &format!(r#""relpaths":[{json}]"#)), 200)?;
    upload(folder, json, &on_disk)?;
    want("delete", post(folder, "delete", &format!(r#""relpaths":[{json}]"#)), 200)?;
    if fs::symlink_metadata(&on_disk).is_ok() {
        Err("it is still there".into())
    } else {
        Ok("every route".into())
    }
}

fn upload(folder: &Folder, json: &str, on_disk: &std::path::Path) -> Result<(), String> {
    let reply = post(folder, "upload", &format!(r#""relpath":{json},"size":5"#));
    let token = reply.json()["token"].as_str().ok_or(reply.text())?.to_owned();
    let request =
        Request::new("PATCH", &format!("/upload?token={token}")).header("Upload-Offset", "0").body("hello");
    let reply = request.send(folder.site.client);
    match (reply.status, fs::read(on_disk).unwrap_or_default().as_slice()) {
        (204, b"hello") => Ok(()),
        (status, _) => Err(format!("upload: {status} {}", reply.text())),
    }
}

#[test]
fn a_legal_name_of_any_bytes_survives_every_route() {
    let site = Site::start();
    let mut table = Table::new("odd names");
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        for (name, json) in odd_names() {
            table.row(format!("{dialect:?} {json}"), round_trip(&folder, &name, &json));
        }
    }
    table.finish();
}

/// Links that lead out of the folder, loop, or end nowhere.
fn traps(folder: &Folder) -> Vec<&'static str> {
    let outside = folder.site.path("outside");
    let up = "../".repeat(folder.path.components().count());
    folder.link("absolute", &outside);
    folder.link("relative", format!("{up}{}", outside.strip_prefix("/").unwrap().display()));
    folder.link("chain", "chain2");
    folder.link("chain2", "absolute");
    folder.link("loop", "loop2");
    folder.link("loop2", "loop");
    folder.link("dangling", outside.join("nothing"));
    folder.link("root", "/");
    folder.link("proc", "/proc/self/root");
    folder.link("up", "..");
    folder.write("file", "content");
    folder.write("dir/file", "content");
    vec!["absolute", "relative", "chain", "loop", "dangling", "root", "proc", "up"]
}

/// A request that a link must not carry out: refused with 4xx, nothing leaked.
fn held(reply: &Reply) -> Result<String, String> {
    if reply.text().contains("untouched") || reply.text().contains("\"name\":") {
        return Err(format!("leaks what is outside: {}", reply.text()));
    }
    match reply.status {
        400..500 => {
            problem::manager(reply, reply.status).map(|body| format!("{} {}", reply.status, body["msg"]))
        }
        status => Err(format!("status {status}: {}", reply.text())),
    }
}

#[test]
fn no_link_leads_a_manager_out_of_the_folder() {
    let site = Site::start();
    let mut table = Table::new("links that lead out");
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        let links = traps(&folder);
        let before = site.snapshot();
        for link in links {
            let below = format!("{link}/canary");
            let cases = [
                ("list", json!({"relpath": link})),
                ("list", json!({"relpath": format!("{link}/nest")})),
                ("fetch", json!({"relpath": link})),
                ("fetch", json!({"relpath": below})),
                ("mkdir", json!({"relpath": format!("{link}/new")})),
                ("mkdir", json!({"relpath": [format!("{link}/new/deep")]})),
                ("mkdir", json!({"relpath": link, "exist_ok": true})),
                ("rename", json!({"relpath": below, "new_name": "renamed"})),
                ("move", json!({"src_relpath": below, "dst_relpath": "stolen"})),
                ("move", json!({"src_relpath": "file", "dst_relpath": format!("{link}/moved")})),
                ("move", json!({"src_relpath": "dir", "dst_relpath": format!("{link}/nest/")})),
                ("upload", json!({"relpath": format!("{link}/new"), "size": 1})),
            ];
            for (route, params) in cases {
                let reply = folder.call(&format!("POST folder/file/{route}"), params.clone());
                // The token of an upload may be given; then the upload itself must be refused.
                let outcome = match (route, reply.status) {
                    ("upload", 200) => refused_upload(&folder, reply.json()["token"].as_str().unwrap()),
                    _ => held(&reply),
                };
                table.row(format!("{dialect:?} {route} {params}"), outcome);
            }
            let delete =
                folder.call("POST folder/file/delete", json!({"relpaths": [below], "recursive": true}));
            // What isn't there may be ignored; the snapshot shows that what is there stays.
            let outcome = if delete.status == 200 && link != "up" { Ok("200".into()) } else { held(&delete) };
            table.row(format!("{dialect:?} delete {below}"), outcome);
            if !["loop", "dangling"].contains(&link) {
                let mount = folder.call("GET folder/mount", json!({"subpath": below}));
                let outcome = problem::manager(&mount, 400).and_then(|body| {
                    let right = body["msg"] == "Invalid vfolder subpath" && body["subpath"] == below.as_str();
                    if right { Ok(body.to_string()) } else { Err(body.to_string()) }
                });
                table.row(format!("{dialect:?} mount {below}"), outcome);
            }
            // The folder itself changes when `.upload` comes and goes.
            let itself = format!("changed {}:", folder.path.display());
            let changed = before.difference(&site.snapshot());
            let changed: Vec<_> = changed
                .into_iter()
                .filter(|line| !line.contains(".upload") && !line.starts_with(&itself))
                .collect();
            table.row(
                format!("{dialect:?} {link} changed nothing"),
                if changed.is_empty() { Ok(String::new()) } else { Err(changed.join("; ")) },
            );
        }
    }
    table.finish();
}

fn refused_upload(folder: &Folder, token: &str) -> Result<String, String> {
    let request =
        Request::new("PATCH", &format!("/upload?token={token}")).header("Upload-Offset", "0").body("x");
    let reply = request.send(folder.site.client);
    problem::client(&reply, 400).map(|body| format!("PATCH 400 {}", body["msg"]))
}

#[test]
fn no_link_leads_a_client_out_of_the_folder() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let links = traps(&folder);
    folder.link("dir/out", site.path("outside/canary"));
    let before = site.snapshot();
    let mut table = Table::new("links that lead out, for clients");
    for link in &links {
        for relpath in [(*link).to_owned(), format!("{link}/canary"), format!("{link}/nest")] {
            let token = folder.signed(json!({"op": "download", "relpath": relpath}));
            for query in ["", "&archive=true"] {
                let reply = site.get(&format!("/download?token={token}{query}"));
                let outcome = problem::client(&reply, 404).map(|body| body["msg"].to_string());
                table.row(format!("download {relpath}{query}"), outcome);
            }
            let claims = json!({"operation": "download", "volume": "local", "virtual_folder_id": folder.vfid,
                                "files": [relpath], "exp": now() + 60});
            let reply = site.get(&format!("/download-archive?token={}", jwt::sign(&claims, TOKEN_SECRET)));
            let outcome = match reply.status {
                400 | 404 => problem::client(&reply, reply.status).map(|body| body["msg"].to_string()),
                other => Err(format!("status {other}")),
            };
            table.row(format!("archive of {relpath}"), outcome);
        }
        let token = folder.signed(json!({"op": "download", "relpath": "canary"}));
        let reply = site.get(&format!("/download?token={token}&dst_dir={link}"));
        table
            .row(format!("dst_dir={link}"), problem::client(&reply, 404).map(|body| body["msg"].to_string()));
    }
    for dst_dir in ["..", "../..", "/etc", "%2Fetc", "a/../..", "%2e%2e", "%00", "dir%2f..%2f.."] {
        let token = folder.signed(json!({"op": "download", "relpath": "file"}));
        let reply = site.get(&format!("/download?token={token}&dst_dir={dst_dir}"));
        let outcome = match reply.status {
            400 | 404 => problem::client(&reply, reply.status).map(|body| body["msg"].to_string()),
            other => Err(format!("status {other}: {}", reply.text())),
        };
        table.row(format!("dst_dir={dst_dir}"), outcome);
    }
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
}

/// Makes a FIFO, a socket and (as root) a device in the folder. The socket lives while it is held.
fn special_files(folder: &Folder) -> (Vec<&'static str>, UnixListener) {
    let all = Mode::from_raw_mode(0o666);
    mknodat(CWD, folder.path.join("fifo"), FileType::Fifo, all, 0).unwrap();
    // Socket addresses are short, so it is bound elsewhere and moved in.
    let short = folder.site.path("s");
    let socket = UnixListener::bind(&short).unwrap();
    fs::rename(short, folder.path.join("socket")).unwrap();
    let mut names = vec!["fifo", "socket"];
    let device = folder.path.join("device");
    if is_root() && mknodat(CWD, &device, FileType::CharacterDevice, all, makedev(1, 5)).is_ok() {
        names.push("device");
    }
    folder.write("plain", "content");
    (names, socket)
}

#[test]
fn fifos_sockets_and_devices_never_block() {
    let site = Site::start();
    let mut table = Table::new("entries that are neither files nor directories");
    let mut timed = |case: String, run: &mut dyn FnMut() -> Result<String, String>| {
        let begin = Instant::now();
        let outcome = run();
        let slow = begin.elapsed() > Duration::from_secs(3);
        table.row(case, if slow { Err(format!("took {:?}", begin.elapsed())) } else { outcome });
    };
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        let (names, _socket) = special_files(&folder);
        for name in names.iter().copied() {
            for (route, params) in [
                ("fetch", json!({"relpath": name})),
                ("list", json!({"relpath": name})),
                ("mkdir", json!({"relpath": name})),
                ("mkdir", json!({"relpath": format!("{name}/x")})),
                ("move", json!({"src_relpath": "plain", "dst_relpath": format!("{name}/x")})),
            ] {
                let reply = || folder.call(&format!("POST folder/file/{route}"), params.clone());
                timed(format!("{dialect:?} {route} {params}"), &mut || held(&reply()));
            }
            let token = folder.download_token(name);
            timed(format!("{dialect:?} download {name}"), &mut || {
                let reply = site.get(&format!("/download?token={token}&archive=true"));
                problem::client(&reply, 400).map(|body| body["msg"].to_string())
            });
            let claims = json!({"operation": "download", "volume": "local", "virtual_folder_id": folder.vfid,
                                "files": [name], "exp": now() + 60});
            timed(format!("{dialect:?} archive of {name}"), &mut || {
                let reply =
                    site.get(&format!("/download-archive?token={}", jwt::sign(&claims, TOKEN_SECRET)));
                problem::client(&reply, 400).map(|body| body["msg"].to_string())
            });
        }
        timed(format!("{dialect:?} listing"), &mut || {
            let listing = folder.call("POST folder/file/list", json!({"relpath": ""})).expect(200).json();
            let kinds: Vec<&Value> =
                listing["items"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
            if kinds.iter().all(|kind| **kind == "FILE") {
                Ok(format!("{kinds:?}"))
            } else {
                Err(format!("{kinds:?}"))
            }
        });
        timed(format!("{dialect:?} usage"), &mut || {
            let usage = folder.call("GET folder/usage", json!({})).expect(200).json();
            if usage["file_count"] == names.len() + 1 {
                Ok(usage.to_string())
            } else {
                Err(usage.to_string())
            }
        });
        timed(format!("{dialect:?} archive of the folder"), &mut || {
            let token = folder.download_token(".");
            let reply = site.get(&format!("/download?token={token}&archive=true")).expect(200);
            let inside: Vec<String> = archive::entries(&reply.body)?.into_keys().collect();
            if inside == ["plain"] { Ok("plain only".into()) } else { Err(format!("{inside:?}")) }
        });
        timed(format!("{dialect:?} rename"), &mut || {
            folder
                .call("POST folder/file/rename", json!({"relpath": "fifo", "new_name": "fifo2"}))
                .expect(204);
            folder
                .call("POST folder/file/rename", json!({"relpath": "fifo2", "new_name": "fifo"}))
                .expect(204);
            Ok(String::new())
        });
        timed(format!("{dialect:?} delete"), &mut || {
            folder.call("POST folder/file/delete", json!({"relpaths": names})).expect(200);
            let left = folder.names("");
            if left == ["plain"] { Ok(String::new()) } else { Err(format!("{left:?}")) }
        });
    }
    table.finish();
}

#[test]
fn a_folder_where_a_file_is_meant_and_the_reverse_are_refused() {
    let site = Site::start();
    let mut table = Table::new("folders for files, files for folders");
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.write("file", "content");
        folder.write("dir/file", "content");
        let before = site.snapshot();
        for (route, params, errno) in [
            ("fetch", json!({"relpath": "dir"}), Some(21)),
            ("fetch", json!({"relpath": "."}), Some(21)),
            ("fetch", json!({"relpath": "file/x"}), None),
            ("list", json!({"relpath": "file"}), Some(20)),
            ("list", json!({"relpath": "file/x"}), Some(20)),
            ("mkdir", json!({"relpath": "file/x"}), None),
            ("mkdir", json!({"relpath": "file", "exist_ok": true}), None),
            ("rename", json!({"relpath": "dir", "new_name": "file"}), Some(20)),
            ("rename", json!({"relpath": "file/x", "new_name": "y"}), Some(20)),
            ("rename", json!({"relpath": ".", "new_name": "y"}), None),
            ("move", json!({"src_relpath": "dir", "dst_relpath": "file"}), Some(20)),
            ("move", json!({"src_relpath": "dir", "dst_relpath": "dir/file"}), None),
            ("move", json!({"src_relpath": "dir", "dst_relpath": "dir/inside"}), None),
            ("move", json!({"src_relpath": "dir", "dst_relpath": "dir"}), None),
            ("move", json!({"src_relpath": ".", "dst_relpath": "dir"}), None),
            ("delete", json!({"relpaths": ["file", "dir"]}), Some(21)),
            ("delete", json!({"relpaths": ["."], "recursive": true}), None),
            ("delete", json!({"relpaths": ["file", ""], "recursive": true}), None),
            ("delete-async", json!({"relpaths": ["./"], "recursive": true}), None),
        ] {
            let reply = folder.call(&format!("POST folder/file/{route}"), params.clone());
            let outcome = held(&reply).and_then(|seen| match errno {
                Some(errno) if reply.json()["errno"] != errno => {
                    Err(format!("errno is not {errno}: {}", reply.text()))
                }
                _ => Ok(seen),
            });
            let changed = before.difference(&site.snapshot());
            let outcome = if changed.is_empty() { outcome } else { Err(format!("changed: {changed:?}")) };
            table.row(format!("{dialect:?} {route} {params}"), outcome);
        }
    }
    table.finish();
}

#[test]
fn a_vfolder_that_is_a_file_or_leads_out_is_not_touched() {
    let site = Site::start();
    let mut table = Table::new("vfolders whose place is taken by something else");
    for dialect in DIALECTS {
        for trap in ["file", "link"] {
            let folder = site.folder(dialect);
            fs::remove_dir(&folder.path).unwrap();
            match trap {
                "file" => fs::write(&folder.path, "not a folder").unwrap(),
                _ => std::os::unix::fs::symlink(site.path("outside"), &folder.path).unwrap(),
            }
            storage_agent_tests::agent::own(&folder.path);
            let before = site.snapshot();
            for (route, params) in [
                ("GET folder/usage", json!({})),
                ("GET folder/mount", json!({})),
                ("POST folder/file/list", json!({"relpath": ""})),
                ("POST folder/file/fetch", json!({"relpath": "canary"})),
                ("POST folder/file/mkdir", json!({"relpath": "new"})),
                ("POST folder/file/delete", json!({"relpaths": ["canary"]})),
                ("POST folder/file/upload", json!({"relpath": "canary", "size": 1})),
                ("POST folder/create", json!({})),
            ] {
                table.row(format!("{dialect:?} {trap}: {route}"), held(&folder.call(route, params)));
            }
            let deleted = folder.call("POST folder/delete", json!({}));
            let ok = matches!(deleted.status, 202 | 204 | 400);
            table.row(
                format!("{dialect:?} {trap}: delete"),
                if ok { Ok(deleted.text()) } else { Err(deleted.text()) },
            );
            std::thread::sleep(Duration::from_millis(100));
            let changed = before.difference(&site.snapshot());
            table.row(
                format!("{dialect:?} {trap}: unchanged"),
                if changed.is_empty() { Ok(String::new()) } else { Err(format!("{changed:?}")) },
            );
        }
    }
    table.finish();
}
