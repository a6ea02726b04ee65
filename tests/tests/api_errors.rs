//! Every error of the contract's catalogue that a plain volume can meet, each provoked once.
//!
//! Errors of the tus protocol itself are in `api_tus`, wrong parameters in `api_bad_input`.

use std::fs;

use serde_json::{Value, json};
use storage_agent_tests::http::{Reply, Request};
use storage_agent_tests::settings::TOKEN_SECRET;
use storage_agent_tests::site::{Dialect, Folder, Site, fresh_uuid, now};
use storage_agent_tests::table::Table;
use storage_agent_tests::{jwt, problem};

/// What the catalogue says of one error: status, the end of the type, the title, and the code if it has one.
type Entry = (u16, &'static str, &'static str, Option<&'static str>);

const INVALID_PARAMS: Entry = (400, "storage/invalid-api-params", "Invalid API parameters", None);
const MALFORMED: Entry =
    (400, "storage/malformed-request", "Malformed request (request body should be empty)", None);
const FORBIDDEN: Entry = (403, "storage/forbidden", "Forbidden (missing auth token)", None);
const UNSUPPORTED: Entry =
    (400, "storage/unsupported-operation", "Unsupported operation by the storage backend", None);
const NO_VFOLDER: Entry =
    (404, "storage/vfolder/not-found", "VFolder Not Found", Some("vfolder_read_not-found"));
const SUBPATH: Entry =
    (400, "storage/subpath/invalid", "Invalid Subpath", Some("vfolder_access_invalid-parameters"));
const VOLUME: Entry = (400, "storage/volume/invalid", "Invalid Volume", None);
const NO_SCOPE: Entry =
    (404, "storage/quota/scope/not-found", "Quota Scope Not Found", Some("quota-scope_read_not-found"));
const SCOPE_EXISTS: Entry = (
    409,
    "storage/quota/scope/already-exists",
    "Quota Scope Already Exists",
    Some("quota-scope_create_already-exists"),
);
const NO_FILE: Entry = (404, "storage/file-not-found", "File not found", None);
const NO_SESSION: Entry = (
    404,
    "storage/tus-session-not-found",
    "TUS upload session not found",
    Some("storage-proxy_read_not-found"),
);
const OFFSET: Entry =
    (409, "storage/upload-offset-mismatch", "Upload Offset Mismatch", Some("storage-proxy_update_conflict"));
const JWT_EXPIRED: Entry = (401, "jwt-expired", "JWT token has expired.", Some("auth_auth_data-expired"));
const JWT_SIGNATURE: Entry =
    (401, "jwt-invalid-signature", "JWT signature verification failed.", Some("auth_auth_unauthorized"));
const JWT_UNDECODABLE: Entry =
    (400, "jwt-decode-error", "Failed to decode JWT token.", Some("auth_auth_bad-request"));
const JWT_PAYLOAD: Entry = (
    400,
    "jwt-payload-validation-error",
    "JWT payload validation failed.",
    Some("auth_auth_invalid-parameters"),
);

/// Compares a reply with an entry of the catalogue. `of_manager` adds the rules for codes.
fn judge(reply: &Reply, entry: Entry, of_manager: bool) -> Result<String, String> {
    let (status, kind, title, code) = entry;
    let body = if of_manager { problem::manager(reply, status) } else { problem::client(reply, status) }?;
    if body["type"] != format!("{}{kind}", problem::BASE) || body["title"] != title {
        return Err(format!("not {kind} {title:?}: {body}"));
    }
    // The manager-facing API may leave a code out where the catalogue's own would mislead managers.
    match (code, body.get("error_code").and_then(Value::as_str)) {
        (Some(code), found) if found != Some(code) => Err(format!("error_code is not {code}: {body}")),
        _ => Ok(format!("{status} {}", body["msg"])),
    }
}

#[test]
fn every_error_of_the_manager_facing_catalogue_is_met() {
    let site = Site::with(|settings| {
        settings.set("storage-proxy", "allow-auto-quota-scope-creation", "false");
    });
    let bare = site.folder(Dialect::Bare);
    bare.write("file", "x");
    let user = fresh_uuid();
    let scope = json!({"volume": "local", "qsid": format!("user:{user}")});
    site.call("POST quota-scope", &scope).expect(204);
    let orphan = site.folder_named("local", &format!("user:{}/{}", fresh_uuid(), fresh_uuid()));
    let gone = site.folder_named("local", &fresh_uuid());
    let elsewhere = site.folder_named("nowhere", &bare.vfid);
    let no_scope = json!({"volume": "local", "qsid": format!("user:{}", fresh_uuid())});

    let cases = [
        ("wrong parameter", bare.call("POST folder/file/list", json!({"relpath": 5})), INVALID_PARAMS),
        ("missing parameter", bare.call("POST folder/file/list", json!({})), INVALID_PARAMS),
        ("body where none belongs", site.call("GET volumes", &json!({"a": 1})), MALFORMED),
        (
            "no authentication",
            site.manager_request("GET volumes", &Value::Null).send(site.manager),
            FORBIDDEN,
        ),
        (
            "no performance metric",
            site.call("GET volume/performance-metric", &json!({"volume": "local"})),
            UNSUPPORTED,
        ),
        ("no folder quota", bare.call("GET volume/quota", json!({})), UNSUPPORTED),
        ("missing vfolder: usage", gone.call("GET folder/usage", json!({})), NO_VFOLDER),
        ("missing vfolder: list", gone.call("POST folder/file/list", json!({"relpath": "."})), NO_VFOLDER),
        ("missing vfolder: mkdir", gone.call("POST folder/file/mkdir", json!({"relpath": "a"})), NO_VFOLDER),
        ("missing vfolder: fetch", gone.call("POST folder/file/fetch", json!({"relpath": "a"})), NO_VFOLDER),
        ("escape: list", bare.call("POST folder/file/list", json!({"relpath": "../.."})), SUBPATH),
        ("escape: fetch", bare.call("POST folder/file/fetch", json!({"relpath": "a/../../x"})), SUBPATH),
        ("unknown volume: hwinfo", site.call("GET volume/hwinfo", &json!({"volume": "nowhere"})), VOLUME),
        ("unknown volume: delete", elsewhere.call("POST folder/delete", json!({})), VOLUME),
        ("unknown volume: list", elsewhere.call("POST folder/file/list", json!({"relpath": ""})), VOLUME),
        ("no scope: describe", site.call("GET quota-scope", &no_scope), NO_SCOPE),
        ("no scope: unset", site.call("DELETE quota-scope/quota", &no_scope), NO_SCOPE),
        ("no scope: create", orphan.call("POST folder/create", json!({})), NO_SCOPE),
        ("scope exists", site.call("POST quota-scope", &scope), SCOPE_EXISTS),
    ];
    let mut table = Table::new("errors of the manager-facing API");
    for (case, reply, entry) in cases {
        table.row(case, judge(&reply, entry, true));
    }
    table.finish();
    assert!(!orphan.path.exists() && !orphan.path.ancestors().nth(3).unwrap().exists(), "no scope was made");
}

#[test]
fn file_errors_carry_errno_and_paths() {
    let site = Site::start();
    let mut table = Table::new("OS errors of the manager-facing API");
    for dialect in [Dialect::Bare, Dialect::Scoped] {
        let folder = site.folder(dialect);
        folder.write("file", "x");
        folder.write("dir/file", "x");
        folder.write("other/dir/file", "x");
        let cases = [
            ("folder/create", json!({}), 17, "File exists"),
            ("folder/file/list", json!({"relpath": "file"}), 20, "Not a directory"),
            ("folder/file/list", json!({"relpath": "none"}), 2, "No such file or directory"),
            ("folder/file/delete", json!({"relpaths": ["dir"]}), 21, "Is a directory"),
            (
                "folder/file/rename",
                json!({"relpath": "none", "new_name": "b"}),
                2,
                "No such file or directory",
            ),
            (
                "folder/file/move",
                json!({"src_relpath": "none", "dst_relpath": "b"}),
                2,
                "No such file or directory",
            ),
            (
                "folder/file/move",
                json!({"src_relpath": "file", "dst_relpath": "no/b"}),
                2,
                "No such file or directory",
            ),
            (
                "folder/file/move",
                json!({"src_relpath": "file", "dst_relpath": "file/b"}),
                20,
                "Not a directory",
            ),
        ];
        for (route, params, errno, msg) in cases {
            let reply = folder.call(&format!("POST {route}"), params.clone());
            let outcome = problem::manager(&reply, 400).and_then(|body| {
                let right = body["errno"] == errno && body["msg"] == msg && body["paths"].is_array();
                if right { Ok(body.to_string()) } else { Err(format!("not {errno} {msg:?}: {body}")) }
            });
            table.row(format!("{dialect:?} {route} {params}"), outcome);
        }
        // mv(1) refuses to replace a directory's entry of the same name; there is no error number for it.
        let reply =
            folder.call("POST folder/file/move", json!({"src_relpath": "dir", "dst_relpath": "other"}));
        let outcome = problem::manager(&reply, 400).and_then(|body| match body.get("errno") {
            Some(Value::Null) => Ok(body.to_string()),
            _ => Err(format!("errno should be null: {body}")),
        });
        table.row(format!("{dialect:?} move onto an entry of the same name"), outcome);
    }
    table.finish();
}

#[test]
fn an_unmounted_volume_is_said_to_be_unavailable() {
    let site = Site::start();
    let folder = site.folder(Dialect::Bare);
    fs::rename(site.path("local"), site.path("away")).unwrap();
    let reply = folder.call("POST folder/file/list", json!({"relpath": "."}));
    let entry = (503, "storage/volume/not-initialized", "Volume Not Initialized", None);
    let outcome = judge(&reply, entry, true);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(!reply.text().contains(site.dir().to_str().unwrap()), "no path of the host: {}", reply.text());
    fs::rename(site.path("away"), site.path("local")).unwrap();
    folder.call("POST folder/file/list", json!({"relpath": "."})).expect(200);
}

#[test]
fn every_error_of_the_client_facing_catalogue_is_met() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    folder.write("dir/file", "content");
    let gone = site.folder_named("local", &fresh_uuid());
    let download = |token: &str| site.get(&format!("/download?token={token}"));
    let of = |folder: &Folder, relpath: &str| folder.signed(json!({"op": "download", "relpath": relpath}));
    let archive = |token: &str| site.get(&format!("/download-archive?token={token}"));
    let claims = |files: Value, exp: u64| {
        json!({"operation": "download", "volume": "local", "virtual_folder_id": folder.vfid, "files": files,
               "filename": null, "exp": exp})
    };
    let files = |files: Value| jwt::sign(&claims(files, now() + 60), TOKEN_SECRET);
    let expired = jwt::sign(&claims(json!(["file"]), now() - 1), TOKEN_SECRET);
    let forged = jwt::sign(&claims(json!(["file"]), now() + 60), "another secret");
    let session = folder.upload_token("up", 5);
    let ghost = folder.signed(json!({"op": "upload", "relpath": "up", "size": 5, "session": "0".repeat(32)}));
    let upload = |method: &str, token: &str, offset: &str| {
        let request = Request::new(method, &format!("/upload?token={token}"));
        request.header("Upload-Offset", offset).body("hello").send(site.client)
    };

    let cases = [
        ("no token", site.get("/download"), INVALID_PARAMS),
        ("missing file", download(&of(&folder, "none")), NO_FILE),
        ("missing vfolder", download(&of(&gone, "file")), NO_FILE),
        ("outside", download(&of(&folder, "../../x")), NO_FILE),
        ("directory without archive", download(&of(&folder, "dir")), INVALID_PARAMS),
        ("archive: expired", archive(&expired), JWT_EXPIRED),
        ("archive: forged", archive(&forged), JWT_SIGNATURE),
        ("archive: not a token", archive("abc"), JWT_UNDECODABLE),
        ("archive: claims of a download", archive(&of(&folder, "file")), JWT_PAYLOAD),
        ("archive: files is no list", archive(&files(json!("file"))), JWT_PAYLOAD),
        ("archive: outside", archive(&files(json!(["file", "../x"]))), INVALID_PARAMS),
        ("archive: missing file", archive(&files(json!(["file", "none"]))), NO_FILE),
        ("upload: wrong offset", upload("PATCH", &session, "3"), OFFSET),
        ("upload: no such session", upload("PATCH", &ghost, "0"), NO_SESSION),
    ];
    let mut table = Table::new("errors of the client-facing API");
    for (case, reply, entry) in cases {
        table.row(case, judge(&reply, entry, false));
    }
    let head = Request::new("HEAD", &format!("/upload?token={ghost}")).send(site.client);
    table.row(
        "upload: HEAD of no session",
        if head.status == 404 { Ok("404".into()) } else { Err(head.text()) },
    );
    table.finish();
}

#[test]
fn what_is_no_route_of_the_client_facing_api_is_refused() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let token = folder.upload_token("x", 1);
    let mut table = Table::new("no routes");
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/upload", 405),
        ("PUT", "/upload", 405),
        ("POST", "/download", 405),
        ("DELETE", "/download", 405),
        ("POST", "/", 405),
        ("GET", "/volumes", 404),
    ] {
        let reply = Request::new(method, &format!("{path}?token={token}")).send(site.client);
        let seen = format!("{} {}", reply.status, reply.text());
        let allows = status != 405 || reply.header("allow").is_some();
        table.row(
            format!("{method} {path}"),
            if reply.status == status && allows { Ok(seen) } else { Err(seen) },
        );
    }
    table.finish();
}
