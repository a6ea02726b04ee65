//! Wrong parameters: every parameter of every manager-facing route, wrong in type, size, range and encoding.
//!
//! The table of routes names each parameter's kind; a kind has its list of wrong values. Each case must be
//! refused with 400, name the parameter, and leave both volumes and the directory outside as they were.

use serde_json::Value;
use storage_agent_tests::http::{Reply, Request};
use storage_agent_tests::problem;
use storage_agent_tests::settings::MANAGER_SECRET;
use storage_agent_tests::site::{AUTH, DIALECTS, Dialect, Folder, Site, fresh_uuid};
use storage_agent_tests::table::Table;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Volume,
    Vfid,
    Qsid,
    Path,
    PathOrList,
    Paths,
    Name,
    Filename,
    Bool,
    Size,
    UploadSize,
    Mode,
    Limit,
    ScopeOptions,
}

/// A route: its parameters with a right value as JSON, the kind, and whether it is required.
type Route = (&'static str, &'static [(&'static str, &'static str, Kind, bool)]);

/// `$volume`, `$vfid`, `$other` and `$qsid` are filled in.
const ROUTES: &[Route] = {
    use Kind::*;
    const V: (&str, &str, Kind, bool) = ("volume", "\"local\"", Volume, true);
    const F: (&str, &str, Kind, bool) = ("vfid", "\"$vfid\"", Vfid, true);
    const NEW: (&str, &str, Kind, bool) = ("vfid", "\"$other\"", Vfid, true);
    const Q: (&str, &str, Kind, bool) = ("qsid", "\"$qsid\"", Qsid, true);
    const R: (&str, &str, Kind, bool) = ("relpath", "\"file\"", Path, true);
    &[
        ("GET volume/hwinfo", &[V]),
        ("GET volume/performance-metric", &[V]),
        ("GET folder/fs-usage", &[V]),
        (
            "PATCH volume/quota",
            &[V, ("vfid", "\"$vfid\"", Vfid, false), ("size_bytes", "1048576", Size, true)],
        ),
        ("POST quota-scope", &[V, Q, ("options", "{\"limit_bytes\":1}", Limit, false)]),
        ("GET quota-scope", &[V, Q]),
        ("PATCH quota-scope", &[V, Q, ("options", "{\"limit_bytes\":1}", ScopeOptions, true)]),
        ("DELETE quota-scope/quota", &[V, Q]),
        ("POST folder/create", &[V, NEW, ("mode", "493", Mode, false)]),
        ("POST folder/delete", &[V, F]),
        (
            "POST folder/clone",
            &[
                ("src_volume", "\"local\"", Volume, true),
                ("src_vfid", "\"$vfid\"", Vfid, true),
                ("dst_volume", "\"local\"", Volume, false),
                ("dst_vfid", "\"$other\"", Vfid, true),
            ],
        ),
        ("GET folder/mount", &[V, F, ("subpath", "\".\"", Path, false)]),
        ("GET folder/usage", &[V, F]),
        ("GET folder/used-bytes", &[V, F]),
        (
            "POST folder/file/mkdir",
            &[
                V,
                F,
                ("relpath", "\"new\"", PathOrList, true),
                ("parents", "true", Bool, false),
                ("exist_ok", "false", Bool, false),
            ],
        ),
        ("POST folder/file/list", &[V, F, ("relpath", "\".\"", Path, true)]),
        ("POST folder/file/rename", &[V, F, R, ("new_name", "\"renamed\"", Name, true)]),
        (
            "POST folder/file/move",
            &[V, F, ("src_relpath", "\"file\"", Path, true), ("dst_relpath", "\"moved\"", Path, true)],
        ),
        ("POST folder/file/fetch", &[V, F, R]),
        ("POST folder/file/download", &[V, F, R, ("archive", "false", Bool, false)]),
        ("POST folder/file/upload", &[V, F, R, ("size", "10", UploadSize, true)]),
        (
            "POST folder/file/archive-download-token",
            &[
                V,
                ("virtual_folder_id", "\"$vfid\"", Vfid, true),
                ("files", "[\"file\"]", Paths, true),
                ("filename", "\"x.zip\"", Filename, false),
            ],
        ),
        (
            "POST folder/file/delete",
            &[V, F, ("relpaths", "[\"file\"]", Paths, true), ("recursive", "false", Bool, false)],
        ),
        (
            "POST folder/file/delete-async",
            &[V, F, ("relpaths", "[\"file\"]", Paths, true), ("recursive", "false", Bool, false)],
        ),
    ]
};

const NO_TEXT: &[&str] = &["1", "1.5", "true", "[]", "[\"local\"]", "{}", "\"\""];

fn wrong(kind: Kind) -> Vec<String> {
    let uuid = "0b6c1d7ea6f24d57a1b2c3d4e5f60718";
    let name = format!("\"{}\"", "n".repeat(256));
    let long = format!("\"{}\"", "d/".repeat(2100));
    let path =
        ["1", "true", "{}", "\"/etc/passwd\"", "\"..\"", "\"a/../../b\"", "\"a\\u0000b\"", &name, &long];
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let mut values = match kind {
        Kind::Volume => list(NO_TEXT),
        Kind::Vfid => {
            let mut values = list(NO_TEXT);
            let ids = ["x", "../../etc", "user:x/y", "a/b/c", "/"].map(str::to_owned);
            values.extend(
                ids.iter()
                    .chain(&[
                        uuid[1..].to_owned(),
                        format!("{uuid}0"),
                        format!("{uuid}\\u0000"),
                        format!("{uuid}\\n"),
                        format!("{uuid}/{uuid}"),
                        format!("group:{uuid}/{uuid}"),
                        format!("user:{uuid}/"),
                        format!("user:{uuid}/../{uuid}"),
                        format!("user:../{uuid}"),
                        "\u{ff10}".repeat(32),
                        "\\udcff".repeat(32),
                        "0".repeat(1 << 20),
                    ])
                    .map(|id| format!("\"{id}\"")),
            );
            values
        }
        Kind::Qsid => {
            let mut values = list(NO_TEXT);
            let ids = [":", "user:", "user:x", "user", "../x"].map(str::to_owned);
            values.extend(
                ids.iter()
                    .chain(&[
                        uuid.to_owned(),
                        format!("group:{uuid}"),
                        format!("user:{uuid}0"),
                        format!("user:{uuid}/{uuid}"),
                        format!(":{uuid}"),
                        format!("user:{uuid}\\u0000"),
                    ])
                    .map(|id| format!("\"{id}\"")),
            );
            values
        }
        Kind::Path => [&list(&path)[..], &list(&["[]", "[\"file\"]"])].concat(),
        Kind::PathOrList => {
            let mut values =
                [&list(&path)[..], &list(&["[]", "[1]", "[null]", "[[\"a\"]]", "[\"a\",\"/b\"]"])].concat();
            values.push(format!("[{}]", vec!["\"many\""; 51].join(",")));
            values
        }
        Kind::Paths => {
            let mut values =
                list(&["1", "true", "{}", "\"file\"", "[]", "[1]", "[null]", "[{}]", "[[\"file\"]]"]);
            values.extend(path[3..].iter().map(|path| format!("[\"file\",{path}]")));
            values
        }
        Kind::Name => {
            let more = ["[]", "\"\"", "\".\"", "\"/\"", "\"a/b\"", "\"../x\""];
            [&list(&path)[..], &list(&more)].concat()
        }
        Kind::Filename => {
            let bad =
                ["", " ", ".", "..", "a/b", "a\\\\b", "a\\u0007", "a\\n", "\\u0000", "a\\r\\nX-Evil: 1"];
            let mut values = list(&["1", "true", "[]", "{}", &name]);
            values.extend(bad.map(|text| format!("\"{text}\"")));
            values
        }
        Kind::Bool => list(&["\"maybe\"", "2", "-1", "1.5", "[]", "{}", "\"\"", "[true]"]),
        Kind::Size | Kind::UploadSize => list(&[
            "-1",
            "\"-1\"",
            "1.5",
            "\"1.5\"",
            "\"x\"",
            "\"\"",
            "\"inf\"",
            "\"9e\"",
            "true",
            "[]",
            "{}",
            "[1]",
            "18446744073709551616",
            "9223372036854775808",
            "1e30",
            "-1e30",
            "\"1000000000000000000000\"",
        ]),
        Kind::Mode => list(&["-1", "4096", "1.5", "\"rwx\"", "true", "[]", "{}", "18446744073709551616"]),
        Kind::Limit | Kind::ScopeOptions => list(&[
            "1",
            "\"x\"",
            "[]",
            "true",
            "{\"limit_bytes\":-1}",
            "{\"limit_bytes\":\"x\"}",
            "{\"limit_bytes\":[]}",
            "{\"limit_bytes\":1.5}",
            "{\"limit_bytes\":18446744073709551616}",
        ]),
    };
    match kind {
        Kind::UploadSize => values.push("\"101g\"".into()),
        Kind::ScopeOptions => values.push("{}".into()),
        _ => {}
    }
    values
}

/// Parameters of which one may be replaced or left out.
fn body(route: &Route, folder: &Folder, change: Option<(&str, Option<&str>)>) -> String {
    let other = folder.vfid.replace(folder.vfid.rsplit('/').next().unwrap(), &fresh_uuid());
    let qsid =
        folder.vfid.split_once('/').map_or(format!("user:{}", fresh_uuid()), |(scope, _)| scope.into());
    let fields: Vec<String> = route
        .1
        .iter()
        .filter_map(|(key, right, ..)| {
            let value = match change {
                Some((changed, value)) if changed == *key => value?,
                _ => *right,
            };
            Some(format!("\"{key}\":{value}"))
        })
        .collect();
    let body = format!("{{{}}}", fields.join(","));
    body.replace("$vfid", &folder.vfid).replace("$other", &other).replace("$qsid", &qsid)
}

fn send(site: &Site, route: &str, body: impl AsRef<[u8]>) -> Reply {
    let (method, path) = route.split_once(' ').unwrap();
    let request = Request::new(method, &format!("/{path}")).header(AUTH, MANAGER_SECRET);
    request.header("Content-Type", "application/json").body(body).send(site.manager)
}

fn furnished(site: &Site, dialect: Dialect) -> Folder<'_> {
    let folder = site.folder(dialect);
    folder.write("file", "content");
    folder.write("a/b", "content");
    folder
}

/// A path that leaves the folder is told as such, not as a parameter's mistake.
fn refused(reply: &Reply, parameter: &str, value: &str) -> Result<String, String> {
    let body = problem::manager(reply, 400)?;
    if !value.contains("..") || body["type"] != format!("{}storage/subpath/invalid", problem::BASE) {
        problem::names(&body, parameter)?;
    }
    if reply.body.len() > 64 * 1024 {
        return Err(format!("the reply to a long value has {} bytes", reply.body.len()));
    }
    Ok(body["msg"].to_string())
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[test]
fn every_wrong_value_of_every_parameter_is_refused_and_changes_nothing() {
    let site = Site::start();
    let mut table = Table::new("wrong parameters of the manager-facing API");
    for dialect in DIALECTS {
        let folder = furnished(&site, dialect);
        let before = site.snapshot();
        for route in ROUTES {
            for (key, _, kind, required) in route.1 {
                let mut values = wrong(*kind);
                if *required && *kind != Kind::Bool {
                    values.push("null".into());
                }
                for value in values {
                    let reply = send(&site, route.0, body(route, &folder, Some((key, Some(&value)))));
                    let changed = before.difference(&site.snapshot());
                    let outcome = refused(&reply, key, &value);
                    let outcome = if changed.is_empty() {
                        outcome
                    } else {
                        Err(format!("changed the disk: {changed:?}"))
                    };
                    table.row(format!("{dialect:?} {} {key}={}", route.0, short(&value)), outcome);
                }
            }
        }
    }
    table.finish();
}

#[test]
fn every_required_parameter_is_required() {
    let site = Site::start();
    let folder = furnished(&site, Dialect::Scoped);
    let before = site.snapshot();
    let mut table = Table::new("missing parameters of the manager-facing API");
    for route in ROUTES {
        for (key, ..) in route.1.iter().filter(|(.., required)| *required) {
            let reply = send(&site, route.0, body(route, &folder, Some((key, None))));
            table.row(format!("{} without {key}", route.0), refused(&reply, key, ""));
        }
    }
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
}

#[test]
fn all_wrong_parameters_are_named_in_one_reply() {
    let site = Site::start();
    let reply =
        send(&site, "POST folder/file/rename", r#"{"volume":1,"vfid":"x","relpath":[],"new_name":"a/b"}"#);
    let body = problem::manager(&reply, 400).unwrap();
    for key in ["volume", "vfid", "relpath", "new_name"] {
        problem::names(&body, key).unwrap();
    }
}

#[test]
fn an_unknown_volume_and_a_missing_vfolder_are_refused_everywhere() {
    let site = Site::start();
    let folder = furnished(&site, Dialect::Scoped);
    let before = site.snapshot();
    let mut table = Table::new("unknown volumes and missing vfolders");
    for route in ROUTES {
        for (key, _, kind, _) in route.1 {
            let (value, status) = match kind {
                Kind::Volume => ("\"nowhere\"".to_owned(), 400),
                Kind::Vfid => (format!("\"{}\"", fresh_uuid()), 404),
                _ => continue,
            };
            // Creating needs no vfolder, deleting none succeeds, a token is made without looking.
            let makes_token = route.0.contains("token") || route.0.ends_with("/download");
            let exempt =
                ["POST folder/create", "POST folder/delete", "PATCH volume/quota", "GET folder/mount"];
            if status == 404 && (exempt.contains(&route.0) || makes_token || *key == "dst_vfid") {
                continue;
            }
            let reply = send(&site, route.0, body(route, &folder, Some((key, Some(&value)))));
            let outcome = problem::manager(&reply, status).map(|body| body["msg"].to_string());
            table.row(format!("{} {key}={value}", route.0), outcome);
        }
    }
    let missing = site.folder_named("local", &fresh_uuid());
    let reply = missing.call("GET folder/mount", serde_json::json!({}));
    let mount = problem::manager(&reply, 400).and_then(|body| {
        let right = body["msg"] == "VFolder not found" && body["vfid"].is_string();
        if right { Ok(body.to_string()) } else { Err(body.to_string()) }
    });
    table.row("GET folder/mount of a missing vfolder", mount);
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
}

#[test]
fn bodies_that_are_no_json_object_are_refused() {
    let site = Site::start();
    let folder = furnished(&site, Dialect::Scoped);
    let before = site.snapshot();
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count)).into_bytes();
    let nested =
        |count: usize| format!("{{\"volume\":{}1{}}}", "[".repeat(count), "]".repeat(count)).into_bytes();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a blank", b" ".to_vec()),
        ("an open brace", b"{".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number", b"1".to_vec()),
        ("null", b"null".to_vec()),
        ("a string", b"\"volume\"".to_vec()),
        ("a missing value", br#"{"volume":}"#.to_vec()),
        ("single quotes", b"{'volume':'local'}".to_vec()),
        ("something after the object", br#"{"volume":"local"} x"#.to_vec()),
        ("two objects", b"{}{}".to_vec()),
        ("a form", b"volume=local&vfid=x".to_vec()),
        ("bytes that are no UTF-8", b"{\"volume\":\"\xff\xfe\"}".to_vec()),
        ("NaN", br#"{"volume":NaN}"#.to_vec()),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("100,000 brackets", deep(100_000)),
        ("100,000 open brackets", vec![b'['; 100_000]),
        ("a value 1,000 deep", nested(1000)),
        ("a value 100,000 deep", nested(100_000)),
    ];
    let mut table = Table::new("bodies that are no JSON object");
    for route in ROUTES {
        for (what, body) in &bodies {
            let outcome = problem::manager(&send(&site, route.0, body), 400);
            table.row(format!("{} {what}", route.0), outcome.map(|body| body["msg"].to_string()));
        }
    }
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
    assert_eq!(folder.names(""), ["a", "file"]);
}

#[test]
fn a_body_of_8_mib_is_read_and_a_longer_one_is_refused() {
    let site = Site::start();
    let folder = furnished(&site, Dialect::Scoped);
    let with_length = |length: usize| {
        let mut body = format!(r#"{{"volume":"local","vfid":"{}","relpaths":["no"],"pad":""#, folder.vfid);
        body.push_str(&"x".repeat(length - body.len() - 2));
        body.push_str("\"}");
        assert_eq!(body.len(), length);
        body
    };
    const LIMIT: usize = 8 << 20;
    let delete = "POST folder/file/delete";
    send(&site, delete, with_length(LIMIT)).expect(200);
    problem::manager(&send(&site, delete, with_length(LIMIT + 1)), 413).unwrap();
    let chunked = site.manager_request(delete, &Value::Null).header(AUTH, MANAGER_SECRET);
    let reply = chunked.chunked(with_length(LIMIT + 70_000)).send(site.manager);
    problem::manager(&reply, 413).unwrap();
    let lie = site.manager_request(delete, &Value::Null).header(AUTH, MANAGER_SECRET);
    let reply = lie.header("Content-Length", "99999999999999").send(site.manager);
    problem::manager(&reply, 413).unwrap();
}

#[test]
fn numbers_and_texts_that_mean_the_same_are_taken() {
    let site = Site::start();
    let folder = furnished(&site, Dialect::Scoped);
    for value in ["true", "\"true\"", "1", "\"1\"", "\"YES\"", "\"on\"", "\" t \"", "1.0"] {
        let params =
            format!(r#"{{"volume":"local","vfid":"{}","relpath":"a","exist_ok":{value}}}"#, folder.vfid);
        assert_eq!(send(&site, "POST folder/file/mkdir", params).status, 200, "exist_ok={value}");
    }
    for value in ["false", "null", "\"none\"", "0", "\"off\"", "\"f\""] {
        let params =
            format!(r#"{{"volume":"local","vfid":"{}","relpath":"a","exist_ok":{value}}}"#, folder.vfid);
        assert_eq!(send(&site, "POST folder/file/mkdir", params).status, 422, "exist_ok={value}");
    }
    for (size, bytes) in
        [("0", 0u64), ("\"1024\"", 1024), ("\"1.5k\"", 1536), ("\"2_000\"", 2000), ("\"100 GB\"", 100 << 30)]
    {
        let params =
            format!(r#"{{"volume":"local","vfid":"{}","relpath":"n{bytes}","size":{size}}}"#, folder.vfid);
        let token = send(&site, "POST folder/file/upload", params).expect(200).json();
        let claims = storage_agent_tests::jwt::open(
            token["token"].as_str().unwrap(),
            storage_agent_tests::settings::TOKEN_SECRET,
        );
        assert_eq!(claims.1["size"], bytes, "{size}");
    }
}
