//! Every route of the manager-facing API, in both dialects and on the volume that does nothing.
//!
//! `api_routes.table` is the specification: it names each route with its parameters and the expected reply.
//! This file only runs it, row by row, each row on a fresh folder of the same content.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use storage_agent_tests::http::Reply;
use storage_agent_tests::settings::{MANAGER_SECRET, TOKEN_SECRET};
use storage_agent_tests::site::{AUTH, Dialect, Folder, Site, fresh_uuid};
use storage_agent_tests::table::Table;
use storage_agent_tests::{jwt, shape};

/// One expected reply.
struct Expected {
    line: usize,
    status: u16,
    body: String,
}

/// One route with one set of parameters.
struct Row {
    route: String,
    params: String,
    replies: Vec<(String, Expected)>,
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in include_str!("api_routes.table").lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(reply) = line.strip_prefix("    ") else {
            let mut parts = line.splitn(3, ' ');
            let route = format!("{} {}", parts.next().unwrap(), parts.next().unwrap());
            rows.push(Row { route, params: parts.next().unwrap_or("").trim().into(), replies: Vec::new() });
            continue;
        };
        let mut parts = reply.split_whitespace();
        let (dialects, status) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
        let body = reply.split_once(&status_text(status)).unwrap().1.trim();
        for dialect in dialects.split(',') {
            let expected = Expected { line: number + 1, status, body: body.into() };
            rows.last_mut().unwrap().replies.push((dialect.into(), expected));
        }
    }
    rows
}

fn status_text(status: u16) -> String {
    status.to_string()
}

/// The variables of the table for one folder.
fn fill(text: &str, folder: &Folder, path: &str) -> String {
    let site = folder.site;
    let other = match folder.vfid.split_once('/') {
        Some((scope, _)) => format!("{scope}/{}", fresh_uuid()),
        None => fresh_uuid(),
    };
    text.replace("$F", r#""volume":"$volume","vfid":"$vfid""#)
        .replace("$volume", &folder.volume)
        .replace("$vfid", &folder.vfid)
        .replace("$other", &other)
        .replace("$qsid", &format!("user:{}", fresh_uuid()))
        .replace("$scope", folder.vfid.split('/').next().unwrap())
        .replace("$path", path)
        .replace("$local", site.path("local").to_str().unwrap())
        .replace("$second", site.path("second").to_str().unwrap())
}

/// What every folder of the table holds: `file.txt`, `empty`, `dir/inner.txt`, `link` to `file.txt`.
fn furnish(folder: &Folder) {
    folder.write("file.txt", "hello\n");
    folder.write("empty", "");
    folder.write("dir/inner.txt", "inner");
    folder.link("link", "file.txt");
    for (name, mode) in [("file.txt", 0o644), ("empty", 0o640), ("dir/inner.txt", 0o600), ("dir", 0o755)] {
        fs::set_permissions(folder.path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn judge(expected: &str, reply: &Reply) -> Result<(), String> {
    match expected.split_once(':') {
        _ if expected.is_empty() => match reply.body.is_empty() {
            true => Ok(()),
            false => Err(format!("the body should be empty: {}", reply.text())),
        },
        Some(("bytes", text)) if reply.text() == text => Ok(()),
        Some(("bytes", text)) => Err(format!("the body is {:?}, not {text:?}", reply.text())),
        _ => {
            let kind = reply.header("content-type").unwrap_or_default();
            if !kind.starts_with("application/json") && !kind.starts_with("application/problem+json") {
                return Err(format!("content type {kind:?}: {}", reply.text()));
            }
            let mut expected: Value =
                serde_json::from_str(expected).unwrap_or_else(|e| panic!("{e}: {expected}"));
            let mut actual = reply.json();
            sort_items(&mut expected);
            sort_items(&mut actual);
            shape::compare(&expected, &actual)
        }
    }
}

/// Listings are in directory order, which no test can know.
fn sort_items(value: &mut Value) {
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        items.sort_by_key(|item| item["name"].as_str().unwrap_or("").to_owned());
    }
}

fn folder_for<'a>(site: &'a Site, dialect: &str, route: &str) -> Folder<'a> {
    let dialect = match dialect {
        "bare" => Dialect::Bare,
        "scoped" => Dialect::Scoped,
        _ => return site.folder_named("noop", &format!("user:{0}/{0}", fresh_uuid())),
    };
    if route == "POST folder/create" {
        let id = match dialect {
            Dialect::Bare => fresh_uuid(),
            Dialect::Scoped => format!("project:{}/{}", fresh_uuid(), fresh_uuid()),
        };
        return site.folder_named("local", &id);
    }
    let folder = site.folder(dialect);
    furnish(&folder);
    folder
}

#[test]
fn every_route_answers_as_the_table_says() {
    let site = Site::start();
    let mut table = Table::new("routes of the manager-facing API x dialect");
    for row in rows() {
        assert!(!row.replies.is_empty(), "{} has no expected reply", row.route);
        for (dialect, expected) in &row.replies {
            let folder = folder_for(&site, dialect, &row.route);
            let path = fs::canonicalize(&folder.path).unwrap_or_default();
            let fill = |text: &str| fill(text, &folder, path.to_str().unwrap());
            let params = match row.params.as_str() {
                "" | "-" => Value::Null,
                text => {
                    let text = fill(text);
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
                }
            };
            let reply = site.call(&row.route, &params);
            let outcome = if reply.status == expected.status {
                judge(&fill(&expected.body), &reply)
            } else {
                Err(format!("status {}, not {}: {}", reply.status, expected.status, reply.text()))
            };
            let case = format!("{dialect:6} {} {}", row.route, row.params);
            let outcome = outcome.map_err(|wrong| format!("line {}: {wrong}", expected.line));
            table.row(case, outcome.map(|()| format!("{} {}", reply.status, reply.text().trim())));
        }
    }
    table.finish();
}

#[test]
fn authentication_comes_before_everything_else() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let mut table = Table::new("authentication of the manager-facing API");
    let missing = "Forbidden (missing auth token)";
    let invalid = "Forbidden (invalid auth token)";
    for (header, title) in [
        (None, missing),
        (Some(""), missing),
        (Some("wrong"), invalid),
        (Some(&MANAGER_SECRET[1..]), invalid),
        (Some(&format!("{MANAGER_SECRET}x")[..]), invalid),
        (Some(TOKEN_SECRET), invalid),
        (Some("\u{fc}nicode"), invalid),
    ] {
        for route in ["GET volumes", "POST folder/delete", "GET no/such/route", "PUT volumes", "GET tasks"] {
            let request = site.manager_request(route, &folder.params(json!({})));
            let request = header.map_or(request.clone(), |value| request.header(AUTH, value));
            let reply = request.send(site.manager);
            let expected = json!({"type": "https://api.backend.ai/probs/storage/forbidden", "title": title, "msg": "<str>"});
            let outcome = match reply.status {
                403 => shape::compare(&expected, &reply.json()),
                other => Err(format!("status {other}")),
            };
            table.row(format!("{route} with {header:?}"), outcome.map(|()| reply.text()));
        }
    }
    for (route, status) in [
        ("GET no/such/route", 404),
        ("PUT volumes", 405),
        ("DELETE folder/create", 405),
        ("GET folder/create", 405),
        ("POST v1/storages/s3/x", 404),
        ("GET v2/volumes", 404),
        ("POST folder/file", 404),
        ("POST folder/file/mkdir/x", 404),
    ] {
        let reply = site.call(route, &Value::Null);
        let ok = reply.status == status && reply.json().is_object() && reply.json()["msg"].is_string();
        let seen = format!("{} {}", reply.status, reply.text());
        table.row(format!("{route} with the token"), if ok { Ok(seen) } else { Err(seen) });
    }
    table.finish();
    assert!(folder.path.is_dir(), "a forbidden delete did nothing");
}

#[test]
fn status_and_health_need_no_token() {
    let site = Site::start();
    for path in ["/", "/status", "/health", "/livez", "/readyz"] {
        let reply = site.manager_request(&format!("GET {path}"), &Value::Null).send(site.manager);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let forbidden = site.manager_request("GET volumes", &Value::Null).send(site.manager);
    assert_eq!(forbidden.status, 403);
    let client = site.get("/?unknown=key");
    let expected = json!({"status": "ok", "type": "client-facing", "storage-proxy": "<str>"});
    assert_eq!((client.status, shape::compare(&expected, &client.json())), (200, Ok(())));
}

#[test]
fn the_internal_listener_serves_metrics_and_health_and_nothing_else() {
    let internal = storage_agent_tests::agent::address(2);
    let site = Site::with(|settings| {
        let addr = format!("{{ host = \"{}\", port = {} }}", internal.ip(), internal.port());
        settings.set("api.manager", "internal-addr", addr);
    });
    let get = |path: &str| site.manager_request(&format!("GET {path}"), &Value::Null).send(internal);
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(get(path).status, 200, "{path}");
    }
    let metrics = get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.header("content-type").unwrap().starts_with("application/openmetrics-text")
            || metrics.header("content-type").unwrap().starts_with("text/plain")
    );
    let text = metrics.text();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert!(!samples.is_empty(), "there are metrics");
    for sample in samples {
        assert!(sample.starts_with("storage_agent_"), "one prefix: {sample}");
    }
    assert_eq!(get("/volumes").status, 404);
}

#[test]
fn the_token_of_an_archive_says_what_the_contract_says() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let params = json!({"volume": "local", "virtual_folder_id": folder.vfid, "files": ["a", "b/c"], "filename": "x.zip"});
    let reply = site.call("POST folder/file/archive-download-token", &params).expect(200).json();
    let (header, claims) = jwt::open(reply["token"].as_str().unwrap(), TOKEN_SECRET);
    assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
    let expected = json!({
        "operation": "download", "volume": "local", "virtual_folder_id": "<str>", "files": ["a", "b/c"],
        "filename": "x.zip", "exp": "<count>",
    });
    assert_eq!(shape::compare(&expected, &claims), Ok(()));
}
