//! Forged, expired, swapped and malformed tokens, on every route of the client-facing API that takes one.
//!
//! None may be accepted, none may change anything, and none may be answered with 5xx or a closed connection.

use serde_json::{Value, json};
use storage_agent_tests::http::Request;
use storage_agent_tests::settings::{MANAGER_SECRET, TOKEN_SECRET};
use storage_agent_tests::site::{Dialect, Folder, Site, fresh_uuid, now};
use storage_agent_tests::table::Table;
use storage_agent_tests::{jwt, problem};

/// The claims that each route wants, right in every respect.
struct Right {
    download: Value,
    archive: Value,
    upload: Value,
}

fn right(folder: &Folder) -> Right {
    let token = folder.upload_token("up.bin", 7);
    let exp = now() + 3600;
    Right {
        download: json!({"op": "download", "volume": "local", "vfid": folder.vfid, "relpath": "file", "exp": exp}),
        archive: json!({"operation": "download", "volume": "local", "virtual_folder_id": folder.vfid,
                        "files": ["file"], "filename": null, "exp": exp}),
        upload: json!({"op": "upload", "volume": "local", "vfid": folder.vfid, "relpath": "up.bin", "size": 7,
                       "session": Folder::session(&token), "exp": exp}),
    }
}

fn with(claims: &Value, key: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[key] = value;
    claims
}

fn without(claims: &Value, key: &str) -> Value {
    let mut claims = claims.clone();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

/// Tokens that are wrong whatever the route is.
fn forged(claims: &Value) -> Vec<(String, String)> {
    let sign = |claims: &Value| jwt::sign(claims, TOKEN_SECRET);
    let good = sign(claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let headed = |header: Value| jwt::forge(&header, claims, TOKEN_SECRET);
    let unsigned = |alg: &str| {
        let token = jwt::forge(&json!({"alg": alg, "typ": "JWT"}), claims, "");
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let all = [
        ("nothing", String::new()),
        ("a word", "abc".into()),
        ("two parts", signed.into()),
        ("four parts", format!("{good}.x")),
        ("three empty parts", "..".into()),
        ("no base64", format!("{header}.!!!.{signature}")),
        ("unicode", "\u{fc}\u{1f980}.\u{fc}.\u{fc}".into()),
        ("a NUL", format!("{good}%00")),
        ("no signature", format!("{signed}.")),
        ("a flipped bit in the signature", format!("{signed}.{flipped}{}", &signature[1..])),
        ("half a signature", format!("{signed}.{}", &signature[..20])),
        ("a changed payload", format!("{header}.{}x.{signature}", &payload[..payload.len() - 1])),
        ("another secret", jwt::sign(claims, "another-secret-of-forty-characters-length")),
        ("an empty secret", jwt::sign(claims, "")),
        ("the manager's secret", jwt::sign(claims, MANAGER_SECRET)),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg NONE, signed", headed(json!({"alg": "NONE", "typ": "JWT"}))),
        ("alg RS256", headed(json!({"alg": "RS256", "typ": "JWT"}))),
        ("alg HS512", headed(json!({"alg": "HS512", "typ": "JWT"}))),
        ("alg hs256", headed(json!({"alg": "hs256", "typ": "JWT"}))),
        ("no alg", headed(json!({"typ": "JWT"}))),
        ("alg is a list", headed(json!({"alg": ["HS256"], "typ": "JWT"}))),
        ("a critical extension", headed(json!({"alg": "HS256", "crit": ["exp2"], "exp2": 1}))),
        ("a header that is no object", headed(json!([]))),
        ("a header that is no JSON", jwt::from_parts(b"{", claims.to_string().as_bytes(), TOKEN_SECRET)),
        ("claims that are no JSON", jwt::from_parts(br#"{"alg":"HS256"}"#, b"{", TOKEN_SECRET)),
        (
            "claims that are no UTF-8",
            jwt::from_parts(br#"{"alg":"HS256"}"#, b"{\"op\":\"\xff\"}", TOKEN_SECRET),
        ),
        ("claims that are no object", sign(&json!([1]))),
        ("expired", sign(&with(claims, "exp", json!(now() - 1)))),
        ("expired long ago", sign(&with(claims, "exp", json!(0)))),
        ("a negative exp", sign(&with(claims, "exp", json!(-1)))),
        ("no exp", sign(&without(claims, "exp"))),
        ("exp is null", sign(&with(claims, "exp", Value::Null))),
        ("exp is text", sign(&with(claims, "exp", json!("tomorrow")))),
        ("exp is a list", sign(&with(claims, "exp", json!([now() + 60])))),
        ("not valid yet", sign(&with(claims, "nbf", json!(now() + 3600)))),
        ("100 KiB", sign(&with(claims, "pad", json!("x".repeat(100 << 10))))),
        ("1 MiB", sign(&with(claims, "pad", json!("x".repeat(1 << 20))))),
    ];
    let mut all: Vec<(String, String)> = all.into_iter().map(|(what, token)| (what.into(), token)).collect();
    for key in claims.as_object().unwrap().keys().filter(|key| *key != "filename" && *key != "exp") {
        all.push((format!("no {key}"), sign(&without(claims, key))));
        for value in [json!(1.5), json!([]), json!({}), Value::Null, json!(true), json!("")] {
            all.push((format!("{key} is {value}"), sign(&with(claims, key, value))));
        }
    }
    all
}

/// Sends a token to a route and wants a refusal with one of these statuses.
fn try_token(site: &Site, method: &str, path: &str, token: &str, allowed: &[u16]) -> Result<String, String> {
    let mut request = Request::new(method, &format!("{path}?token={token}"));
    if method == "PATCH" {
        request = request.header("Upload-Offset", "0").body("content");
    }
    let reply = request.try_send(site.client).map_err(|e| format!("no reply: {e}"))?;
    if token.len() > 50_000 && matches!(reply.status, 400 | 401 | 413 | 414 | 431) {
        return Ok(format!("{}", reply.status));
    }
    if !allowed.contains(&reply.status) {
        return Err(format!("status {}, not one of {allowed:?}: {}", reply.status, reply.text()));
    }
    if method == "HEAD" {
        return Ok(format!("{}", reply.status));
    }
    let body = problem::client(&reply, reply.status)?;
    if token.len() > 10 && reply.text().contains(token) {
        return Err(format!("the reply repeats the token: {body}"));
    }
    Ok(format!("{} {}", reply.status, body["msg"]))
}

const ROUTES: &[(&str, &str, &[u16])] = &[
    ("GET", "/download", &[400]),
    ("HEAD", "/download", &[400]),
    ("GET", "/download-archive", &[400, 401]),
    ("HEAD", "/upload", &[400]),
    ("PATCH", "/upload", &[400]),
    ("DELETE", "/upload", &[400]),
];

#[test]
fn forged_tokens_are_refused_on_every_route() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let right = right(&folder);
    let before = site.snapshot();
    let mut table = Table::new("forged and malformed tokens");
    for (method, path, allowed) in ROUTES {
        let claims = match *path {
            "/download" => &right.download,
            "/upload" => &right.upload,
            _ => &right.archive,
        };
        for (what, token) in forged(claims) {
            table.row(format!("{method} {path}: {what}"), try_token(&site, method, path, &token, allowed));
        }
    }
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
    let good = jwt::sign(&right.download, TOKEN_SECRET);
    assert_eq!(
        site.get(&format!("/download?token={good}")).expect(200).body,
        b"content",
        "the right one works"
    );
}

#[test]
fn a_token_is_good_for_its_own_operation_only() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let right = right(&folder);
    let before = site.snapshot();
    let tokens = [("download", &right.download), ("archive", &right.archive), ("upload", &right.upload)];
    let mut table = Table::new("swapped tokens");
    for (of, claims) in tokens {
        let token = jwt::sign(claims, TOKEN_SECRET);
        for (method, path, allowed) in ROUTES {
            let own = path.trim_start_matches('/').replace("download-archive", "archive");
            if own != of {
                let case = format!("{of} token for {method} {path}");
                table.row(case, try_token(&site, method, path, &token, allowed));
            }
        }
    }
    // A token that carries the claims of all operations is none of them.
    let mut both = right.download.clone();
    both.as_object_mut().unwrap().extend(right.upload.as_object().unwrap().clone());
    both["op"] = json!("download");
    let token = jwt::sign(&both, TOKEN_SECRET);
    table.row("op decides", try_token(&site, "PATCH", "/upload", &token, &[400]));
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
}

#[test]
fn claims_that_lie_about_places_are_refused() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let right = right(&folder);
    let before = site.snapshot();
    let outside = site.path("outside/canary").display().to_string();
    let mut table = Table::new("claims that name what is not there");
    let name = "n".repeat(256);
    let paths = ["..", "../file", "a/../../x", "none", "none/none", "file/below", "a\u{0}b", &name];
    for path in paths {
        let token = jwt::sign(&with(&right.download, "relpath", json!(path)), TOKEN_SECRET);
        table.row(format!("download of {path:?}"), try_token(&site, "GET", "/download", &token, &[400, 404]));
        let token = jwt::sign(&with(&right.archive, "files", json!(["file", path])), TOKEN_SECRET);
        table.row(
            format!("archive of {path:?}"),
            try_token(&site, "GET", "/download-archive", &token, &[400, 404]),
        );
    }
    for path in ["..", "../file", "a/../../x", "a\u{0}b", &name, &outside, ".", "file/below"] {
        let token = jwt::sign(&with(&right.upload, "relpath", json!(path)), TOKEN_SECRET);
        table.row(format!("upload to {path:?}"), try_token(&site, "PATCH", "/upload", &token, &[400, 409]));
    }
    for session in
        ["../../../file", "x", &"g".repeat(32), &"0".repeat(31), &"0".repeat(33), "..", &"A".repeat(32)]
    {
        let token = jwt::sign(&with(&right.upload, "session", json!(session)), TOKEN_SECRET);
        for method in ["HEAD", "PATCH", "DELETE"] {
            let outcome = try_token(&site, method, "/upload", &token, &[400, 404]);
            table.row(format!("{method} of session {session:?}"), outcome);
        }
    }
    for size in [json!(-1), json!("7"), json!(7.5), json!(1u64 << 63), json!(101u64 << 30)] {
        let token = jwt::sign(&with(&right.upload, "size", size.clone()), TOKEN_SECRET);
        table
            .row(format!("upload of size {size}"), try_token(&site, "PATCH", "/upload", &token, &[400, 413]));
    }
    for (key, value, status) in [
        ("volume", json!("nowhere"), 400),
        ("volume", json!("noop"), 400),
        ("vfid", json!("x"), 400),
        ("vfid", json!(fresh_uuid()), 404),
    ] {
        for (method, path, claims) in
            [("GET", "/download", &right.download), ("PATCH", "/upload", &right.upload)]
        {
            let token = jwt::sign(&with(claims, key, value.clone()), TOKEN_SECRET);
            let allowed = if value == "noop" { vec![400, 404] } else { vec![status] };
            table.row(
                format!("{method} with {key} {value}"),
                try_token(&site, method, path, &token, &allowed),
            );
        }
    }
    let unmanaged = json!(site.path("outside").display().to_string());
    let token = jwt::sign(
        &with(&with(&right.download, "unmanaged_path", unmanaged), "relpath", json!("canary")),
        TOKEN_SECRET,
    );
    table.row("unmanaged_path is ignored", try_token(&site, "GET", "/download", &token, &[400, 404]));
    table.finish();
    assert_eq!(before.difference(&site.snapshot()), Vec::<String>::new());
}

#[test]
fn the_first_of_two_tokens_counts_and_other_keys_do_not() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let good = folder.download_token("file");
    site.get(&format!("/download?token={good}&token=bad&unknown=1&archive=false")).expect(200);
    site.get(&format!("/download?token=bad&token={good}")).expect(400);
    site.get(&format!("/download?x=%zz&token={good}")).expect(200);
    for query in ["token", "token=", "Token=x", "", "&&&", "=x", "token%3D=x"] {
        problem::client(&site.get(&format!("/download?{query}")), 400).unwrap();
    }
    for archive in ["maybe", "2", "%ff"] {
        let reply = site.get(&format!("/download?token={good}&archive={archive}"));
        let body = problem::client(&reply, 400).unwrap();
        problem::names(&body, "archive").unwrap();
    }
}
