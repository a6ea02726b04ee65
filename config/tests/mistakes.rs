//! Planted mistakes: each is found, named by its key path, and explained.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use config::{Loaded, NoticeKind, Problems, Source, parse};

/// A right file whose lines the cases replace or add to.
const RIGHT: &str = r#"
[storage-proxy]
node-id = "node"
secret = "0123456789abcdef0123456789abcdef"
session-expire = "1d"
[api.client]
service-addr = "127.0.0.1:6021"
[api.manager]
service-addr = "127.0.0.1:6022"
secret = "manager-secret"
[volume.local]
backend = "vfs"
path = "/vfroot"
"#;

fn load_as(text: &str, lenient: bool) -> Result<Loaded, Problems> {
    let source = Source { file: None, env: &|_| None, working_directory: "/nonexistent".into(), lenient };
    parse(text, Path::new("/etc/storage-proxy.toml"), &source)
}

fn load(text: &str) -> Result<Loaded, Problems> {
    load_as(text, false)
}

/// `RIGHT` with `table`'s lines for the keys of `lines` replaced, and what is new added.
fn planted(table: &str, lines: &str) -> String {
    let header = format!("[{table}]\n");
    let Some(at) = RIGHT.find(&header).map(|at| at + header.len()) else {
        return format!("{RIGHT}{header}{lines}\n");
    };
    let (before, rest) = RIGHT.split_at(at);
    let end = rest.find("\n[").map_or(rest.len(), |end| end + 1);
    let (own, after) = rest.split_at(end);
    let key = |line: &str| line.split(" =").next().unwrap_or_default().replace('_', "-");
    let new: Vec<_> = lines.lines().map(key).collect();
    let kept: Vec<_> = own.lines().filter(|line| !new.contains(&key(line))).collect();
    format!("{before}{}\n{lines}\n{after}", kept.join("\n"))
}

/// Table, lines that replace or extend it, the key path at fault, and a part of what is said.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("storage-proxy", "node-id = \"\"", "storage-proxy.node-id", "is empty"),
    ("storage-proxy", "node-id = 7", "storage-proxy.node-id", "7 is not a string"),
    ("storage-proxy", "node-id = \"a\\nb\"", "storage-proxy.node-id", "control characters"),
    ("storage-proxy", "secret = 12345", "storage-proxy.secret", "must be a string in quotes"),
    ("storage-proxy", "secret = \"\"", "storage-proxy.secret", "secret-file"),
    (
        "storage-proxy",
        "secret-file = \"/nonexistent/s\"",
        "storage-proxy.secret-file",
        "/nonexistent/s cannot be read",
    ),
    ("storage-proxy", "secret-file = \"/\"", "storage-proxy.secret-file", "is not a regular file"),
    ("storage-proxy", "secret-file = 1", "storage-proxy.secret-file", "not a path"),
    (
        "storage-proxy",
        "session-expire = \"1x\"",
        "storage-proxy.session-expire",
        "\"1x\" is not a duration; write seconds or",
    ),
    ("storage-proxy", "session-expire = -1", "storage-proxy.session-expire", "is negative"),
    ("storage-proxy", "session-expire = 0", "storage-proxy.session-expire", "it must be from 1s to"),
    ("storage-proxy", "session_expire = \"\"", "storage-proxy.session-expire", "\"\" is not a duration"),
    ("storage-proxy", "scandir-limit = -1", "storage-proxy.scandir-limit", "-1 is out of range"),
    ("storage-proxy", "scandir-limit = \"many\"", "storage-proxy.scandir-limit", "not a whole number"),
    ("storage-proxy", "scandir-limit = 1e3", "storage-proxy.scandir-limit", "not a whole number"),
    (
        "storage-proxy",
        "max-upload-size = \"100x\"",
        "storage-proxy.max-upload-size",
        "\"100x\" is not a size",
    ),
    ("storage-proxy", "max-upload-size = \"infinite\"", "storage-proxy.max-upload-size", "is infinite"),
    ("storage-proxy", "max-upload-size = -5", "storage-proxy.max-upload-size", "is negative"),
    ("storage-proxy", "max-upload-size = \"9e\"", "storage-proxy.max-upload-size", "is too large"),
    (
        "storage-proxy",
        "max-upload-size = \"1g\"\nmax_upload_size = \"2g\"",
        "storage-proxy.max-upload-size",
        "given twice",
    ),
    ("storage-proxy", "user = -2", "storage-proxy.user", "-1 to stay as started"),
    ("storage-proxy", "group = \"a b\"", "storage-proxy.group", "neither a name nor a numeric id"),
    ("storage-proxy", "pid-file = \"\"", "storage-proxy.pid-file", "is not a path"),
    ("storage-proxy", "num-proc = 0", "storage-proxy.num-proc", "1 or more"),
    (
        "storage-proxy",
        "auto_quota_scope_creation = \"perhaps\"",
        "storage-proxy.auto-quota-scope-creation",
        "true nor false",
    ),
    (
        "storage-proxy",
        "volume-stats = { cache-ttl = 0.5 }",
        "storage-proxy.volume-stats.cache-ttl",
        "from 1s to",
    ),
    ("storage-proxy", "volume-stats = 5", "storage-proxy.volume-stats", "must be a table"),
    ("api.client", "service-addr = \"localhost\"", "api.client.service-addr", "127.0.0.1:6021"),
    (
        "api.client",
        "service-addr = { host = \"a\", port = 70000 }",
        "api.client.service-addr.port",
        "1 to 65535",
    ),
    ("api.client", "service-addr = [\"a\", 0]", "api.client.service-addr[1]", "1 to 65535"),
    ("api.client", "ssl-enabled = \"maybe\"", "api.client.ssl-enabled", "\"maybe\" is neither"),
    ("api.client", "ssl-enabled = true", "api.client.ssl-cert", "is missing"),
    (
        "api.client",
        "ssl-enabled = true\nssl-cert = \"x\"\nssl-privkey = \"/nonexistent/k\"",
        "api.client.ssl-privkey",
        "/nonexistent/k",
    ),
    ("api.manager", "service-addr = \"0.0.0.0:6021\"", "api.manager.service-addr", "is taken"),
    ("api.manager", "internal-addr = \"[::]:6022\"", "api.manager.internal-addr", "is taken"),
    ("api.manager", "secret = true", "api.manager.secret", "must be a string in quotes"),
    ("volume.noop", "backend = \"vfs\"\npath = \"/x\"", "volume.noop", "reserved"),
    ("volume.\"\"", "backend = \"vfs\"\npath = \"/x\"", "volume.\"\"", "not a volume name"),
    (
        "volume.local",
        "backend = \"zfs\"",
        "volume.local.backend",
        "\"zfs\" is not a known backend; name one of vfs, xfs",
    ),
    ("volume.local", "path = 5", "volume.local.path", "5 is not a path in quotes"),
    ("volume.local", "fsprefix = \"/abs\"", "volume.local.fsprefix", "is absolute"),
    ("volume.local", "marker = \"a/b\"", "volume.local.marker", "is not the name of a file"),
    ("volume.local", "options = 5", "volume.local.options", "must be a table"),
    ("volume.x", "path = \"/x\"", "volume.x.backend", "is missing"),
    ("volume.x", "backend = \"vfs\"", "volume.x.path", "is missing"),
    (
        "volume.w",
        "backend = \"weka\"\npath = \"/w\"\noptions = { weka_username = \"u\", weka_password = \"p\", weka_endpoint = \"weka\", weka_fs_name = \"f\" }",
        "volume.w.options.weka_endpoint",
        "https://",
    ),
    (
        "volume.w",
        "backend = \"weka\"\npath = \"/w\"\noptions = { weka_username = \"u\", weka_password = \"p\", weka_endpoint = \"https://w\", weka_verify_ssl = \"x\", weka_fs_name = \"f\" }",
        "volume.w.options.weka_verify_ssl",
        "true nor false",
    ),
    (
        "volume.n",
        "backend = \"netapp\"\npath = \"/n\"\noptions = { netapp_ontap_endpoint = \"https://n\", netapp_ontap_user = \"u\", netapp_ontap_password = \"p\", netapp_volume_name = \"v\", netapp_xcp_cmd = \"xcp\" }",
        "volume.n.options.netapp_xcp_cmd",
        "is not a list",
    ),
    (
        "volume.w",
        "backend = \"weka\"\npath = \"/w\"\noptions = { weka_username = \"u\", weka_password = \"p\", weka_endpoint = \"https://w\", weka_cert_fingerprint = \"ab:cd\", weka_fs_name = \"f\" }",
        "volume.w.options.weka_cert_fingerprint",
        "64 hexadecimal digits",
    ),
    (
        "volume.w",
        "backend = \"weka\"\npath = \"/w\"\noptions = { weka_username = \"u\", weka_password = \"p\", weka_endpoint = \"https://w\" }",
        "volume.w.options.weka_fs_name",
        "is missing; name the file system",
    ),
    (
        "volume.n",
        "backend = \"netapp\"\npath = \"/n\"\noptions = { netapp_ontap_endpoint = \"https://n\", netapp_ontap_user = \"u\", netapp_ontap_password = \"p\", netapp_volume_name = \"v\", netapp_qtree_name = \"q\" }",
        "volume.n.options.netapp_qtree_name",
        "is a key of a qtree as the volume",
    ),
    (
        "volume.n",
        "backend = \"netapp\"\npath = \"/n\"\noptions = { netapp_endpoint = \"https://n\", netapp_admin = \"u\", netapp_password = \"p\", netapp_svm = \"s\", netapp_volume_name = \"v\", netapp_qtree_name = \"q\", netapp_nfs_host = \"h\" }",
        "volume.n.options.netapp_nfs_host",
        "among keys of the other kind",
    ),
    (
        "volume.p",
        "backend = \"purestorage\"\npath = \"/p\"\noptions = { purity_endpoint = \"https://p\", purity_api_token = \"t\", purity_fs_name = \"f\", purity_api_version = \"latest\" }",
        "volume.p.options.purity_api_version",
        "\"auto\", \"1.8\" or \"2.12\"",
    ),
    (
        "volume.v",
        "backend = \"vast\"\npath = \"/v\"\noptions = { vast_api_version = \"v9\" }",
        "volume.v.options.vast_api_version",
        "v1, v2, latest",
    ),
    (
        "volume.v",
        "backend = \"vast\"\npath = \"/v\"\noptions = { vast_password = 1 }",
        "volume.v.options.vast_password",
        "string in quotes",
    ),
    ("etcd", "addr = \"nowhere\"", "etcd.addr", "is not an address"),
    ("etcd", "addr = [\"a:1\", \"b\"]", "etcd.addr[1]", "is not an address"),
    ("logging", "level = \"LOUD\"", "logging.level", "\"INFO\""),
    ("logging", "drivers = \"console\"", "logging.drivers", "is not a list"),
    ("logging", "drivers = [\"console\", \"syslog\"]", "logging.drivers[1]", "\"syslog\" is not one of"),
    ("logging", "drivers = [\"file\"]", "logging.file", "is missing"),
    ("logging", "drivers = [\"file\"]\nfile = { filename = \"x\" }", "logging.file.path", "is missing"),
    ("logging", "console = { format = \"xml\" }", "logging.console.format", "\"json\""),
    ("logging", "file = { rotation-size = \"1\" }", "logging.file.rotation-size", "from 4 KiB to 1 TiB"),
    ("logging", "file = { filename = \"../x\" }", "logging.file.filename", "not the name of a file"),
    ("logging", "pkg-ns = { \"ai.backend\" = 5 }", "logging.pkg-ns.ai.backend", "is not one of"),
    ("debug", "enabled = 3", "debug.enabled", "true nor false"),
    ("agent", "allow-root = \"\"", "agent.allow-root", "true nor false"),
    ("agent", "clone-wait = \"10m\"", "agent.clone-wait", "from 0s to 4m"),
    ("agent", "manager-version = 25.12", "agent.manager-version", "\"25.12\""),
    ("agent", "blocking-threads = 1", "agent.blocking-threads", "from 4 to 4096"),
    (
        "limits",
        "header-size = \"1k\"",
        "limits.header-size",
        "\"1k\" is out of range; it must be from 4 KiB to 1 MiB",
    ),
    ("limits", "header-timeout = 0", "limits.header-timeout", "from 1s to 1h"),
    ("limits", "connections = 100", "limits.connections", "connections-per-peer (256)"),
    ("limits", "connections-per-peer = 10_000", "limits.connections-per-peer", "above connections (8192)"),
    ("limits", "token-size = \"16k\"", "limits.token-size", "not below url-size"),
    ("limits", "trusted-proxies = [\"10.0.0.1/8\"]", "limits.trusted-proxies[0]", "10.0.0.0/8"),
    ("limits", "json-depth = 100000", "limits.json-depth", "from 8 to 128"),
    ("upload", "fsync = true", "upload.fsync", "\"every-patch\", \"last-patch\", \"never\""),
    ("upload", "stale-factor = 0", "upload.stale-factor", "from 1 to 100"),
    (
        "upload",
        "holder-idle = 170141183460469231731687303715884105728",
        "upload.holder-idle",
        "is not a duration",
    ),
    ("download", "unmanaged-roots = [\"data\"]", "download.unmanaged-roots", "absolute"),
    ("download", "unmanaged-roots = [\"/\"]", "download.unmanaged-roots", "absolute"),
];

#[test]
fn the_file_that_the_mistakes_are_planted_in_is_right() {
    assert!(load(RIGHT).unwrap().notices.is_empty());
}

#[test]
fn every_planted_mistake_is_named_by_its_key_and_explained() {
    for (table, lines, key, part) in MISTAKES {
        let problems = load(&planted(table, lines)).expect_err(lines);
        let found = problems.problems.iter().find(|problem| problem.key == *key);
        let found = found.unwrap_or_else(|| panic!("{lines}: {problems}"));
        assert!(found.to_string().contains(part), "{lines}: {found}");
    }
}

/// Where only one thing is wrong, one thing is said.
#[test]
fn a_single_mistake_gives_a_single_problem() {
    let several = ["api.client.ssl-cert", "api.client.ssl-privkey"];
    for (table, lines, key, _) in MISTAKES.iter().filter(|(_, _, key, _)| !several.contains(key)) {
        let problems = load(&planted(table, lines)).expect_err(lines);
        assert_eq!(problems.problems.len(), 1, "{key}: {problems}");
    }
}

#[test]
fn fifteen_mistakes_are_found_at_once_with_their_lines() {
    let text = r#"
[storage-proxy]
node-id = ""
session-expire = "1x"
scandir-limit = -1
max-upload-size = "100x"
user = -2
num-proc = 0
[api.client]
service-addr = "localhost"
ssl-enabled = "maybe"
[api.manager]
service-addr = { host = "a", port = 70000 }
[volume.noop]
backend = "zfs"
[logging]
level = "LOUD"
drivers = ["syslog"]
[limits]
header-size = "1k"
trusted-proxies = ["10.0.0.1/8"]
[agent]
manager-version = 25.12
"#;
    let problems = load(text).unwrap_err();
    let found: Vec<_> =
        problems.problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    let want = [
        (Some(2), "storage-proxy.secret"),
        (Some(3), "storage-proxy.node-id"),
        (Some(4), "storage-proxy.session-expire"),
        (Some(5), "storage-proxy.scandir-limit"),
        (Some(6), "storage-proxy.max-upload-size"),
        (Some(7), "storage-proxy.user"),
        (Some(8), "storage-proxy.num-proc"),
        (Some(10), "api.client.service-addr"),
        (Some(11), "api.client.ssl-enabled"),
        (Some(12), "api.manager.secret"),
        (Some(13), "api.manager.service-addr.port"),
        (Some(14), "volume.noop"),
        (Some(14), "volume.noop.path"),
        (Some(15), "volume.noop.backend"),
        (Some(17), "logging.level"),
        (Some(18), "logging.drivers[0]"),
        (Some(20), "limits.header-size"),
        (Some(21), "limits.trusted-proxies[0]"),
        (Some(23), "agent.manager-version"),
    ];
    assert_eq!(found, want);
    let second = problems.to_string().lines().nth(2).map(str::to_owned);
    let want = "/etc/storage-proxy.toml:4: storage-proxy.session-expire: \"1x\" is not a duration; \
                write seconds or a number with s, m, h, d or w, such as \"1d\"";
    assert_eq!(second.as_deref(), Some(want));
}

#[test]
fn an_empty_file_misses_its_tables_and_not_every_key_of_them() {
    let problems = load("").unwrap_err();
    let mut keys: Vec<_> = problems.problems.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["api.client", "api.manager", "storage-proxy", "volume"]);
    let no_volume = RIGHT.split("[volume.local]").next().map(|text| format!("{text}[volume]\n")).unwrap();
    assert!(load(&no_volume).unwrap_err().to_string().contains("add at least one, such as [volume.local]"));
}

#[test]
fn syntax_errors_are_reported_with_their_lines_and_without_the_text() {
    let problems = load("[storage-proxy]\nsecret = hunter2\nnode-id = \"a\"\nnode-id = \"b\"\n").unwrap_err();
    let lines: Vec<_> = problems.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(2), Some(4)]);
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

#[test]
fn no_problem_notice_or_debug_print_shows_a_secret() {
    let secret = "hunter2hunter2";
    let text = format!(
        "[storage-proxy]\nsecret = \"{secret}\"\nsecrt = \"{secret}\"\nsession-expire = \"1d\"\n[api.client]\n[api.manager]\n\
         secret = \"{secret}\"\n[volume.w]\nbackend = \"weka\"\npath = \"/w\"\n[volume.w.options]\nweka_password = \"{secret}\"\n\
         weka_passwd = \"{secret}\"\nweka_username = \"u\"\nweka_fs_name = \"f\"\nweka_endpoint = \"https://u:{secret}@h\"\n[etcd]\npassword = \"{secret}\"\n"
    );
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.config.volumes[0].options.secret("weka_password").unwrap().expose(), secret);
    assert!(!format!("{loaded:#?}").contains("hunter2"));
    assert!(loaded.notices.iter().any(|notice| notice.key == "storage-proxy.secrt"));
    for wrong in [
        format!("secret = [\"{secret}\"]"),
        format!("secret = \"{secret}\\n\""),
        format!("secret = {{ x = \"{secret}\" }}"),
    ] {
        let problems = load(&planted("storage-proxy", &wrong)).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");
    }
    let url = format!(
        "backend = \"weka\"\npath = \"/w\"\noptions = {{ weka_endpoint = \"u:{secret}@h\", weka_username = \"u\", weka_password = \"p\", weka_fs_name = \"f\" }}"
    );
    assert!(!load(&planted("volume.w", &url)).unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn unknown_keys_are_noticed_with_their_path_and_the_nearest_known_one() {
    let text =
        planted("storage-proxy", "scandir_limits = 5\nvolume-stats = { cache-tll = 3 }\n\"odd key\" = 1");
    let text = format!("{text}\n[limit]\nx = 1\n[volume.local.options]\nfoo = 1\n");
    let notices: Vec<_> = load(&text).unwrap().notices.iter().map(ToString::to_string).collect();
    let has =
        |part: &str| assert!(notices.iter().any(|notice| notice.contains(part)), "{part}: {notices:#?}");
    has(": storage-proxy.scandir_limits: is not a known key and is ignored; did you mean scandir-limit?");
    has("storage-proxy.volume-stats.cache-tll: is not a known key and is ignored; did you mean cache-ttl?");
    has("storage-proxy.\"odd key\": is not a known key");
    has(": limit: is not a known key and is ignored; did you mean limits?");
    has("volume.local.options.foo");
    assert_eq!(notices.len(), 5);
}

#[test]
fn a_misspelt_required_key_is_missed_and_its_spelling_noticed() {
    let problems = load(&RIGHT.replace("session-expire", "sesion-expire")).unwrap_err();
    assert_eq!(problems.problems[0].key, "storage-proxy.session-expire");
    assert!(problems.notices[0].message.ends_with("did you mean session-expire?"));
}

#[test]
fn an_unknown_backend_is_skipped_when_asked_to_be_lenient() {
    let text = planted("volume.other", "backend = \"zfs\"\npath = \"/x\"\noptions = { zfs_pool = \"tank\" }");
    let loaded = load_as(&text, true).unwrap();
    assert_eq!(
        loaded.config.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(),
        ["local"]
    );
    let notice = &loaded.notices[0];
    assert_eq!((notice.key.as_str(), notice.kind), ("volume.other.backend", NoticeKind::Warning));
    assert!(notice.message.contains("\"zfs\""));
}
