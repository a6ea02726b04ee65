//! Configuration files: those that sites have, and those with mistakes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::json;
use storage_agent_tests::agent::{address, command, is_root, output, own};
use storage_agent_tests::http::Request;
use storage_agent_tests::settings::Settings;
use storage_agent_tests::site::{AUTH, Dialect, Site};
use storage_agent_tests::table::Table;

/// Runs `storage-agent check` on a configuration.
fn check(site: &Site) -> Output {
    output(&mut command(site.dir(), &["check", "-f", site.config().to_str().unwrap()]))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn write_config(site: &Site, text: &str) {
    fs::write(site.config(), text).unwrap();
    own(&site.config());
}

#[test]
fn the_smallest_upstream_file_serves() {
    let mut site = Site::prepare(|_| {});
    let settings = Settings::smallest(site.client, site.manager, &site.path("local"));
    write_config(&site, &settings.to_toml());
    let output = check(&site);
    assert!(output.status.success(), "{}", said(&output));
    site.launch();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    let volumes = site.call("GET volumes", &json!(null)).expect(200).json();
    assert_eq!(volumes["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(site.get(&format!("/download?token={}", folder.download_token("file"))).body, b"content");
}

#[test]
fn a_full_upstream_file_with_every_known_key_serves() {
    let mut site = Site::prepare(|_| {});
    let mut text = include_str!("../../config/full-upstream.toml").to_owned();
    for (from, to) in [
        ("{ host = \"\", port = 6021 }", format!("\"{}\"", site.client)),
        ("[\"127.0.0.1\", 6022]", format!("[\"{}\", {}]", site.manager.ip(), site.manager.port())),
        ("\"127.0.0.1:16023\"", format!("\"{}\"", address(2))),
        ("/run/backend.ai/storage-proxy.pid", site.path("agent.pid").display().to_string()),
        ("/var/log/backend.ai", site.path("log").display().to_string()),
        ("group = \"1000\"", "group = -1".into()),
        // A CephFS would have to be mounted.
        ("backend = \"cephfs\"", "backend = \"vfs\"".into()),
    ] {
        assert!(text.contains(from), "{from} is in the file");
        text = text.replace(from, &to);
    }
    // Every volume gets a directory, so that only the keys themselves are tried.
    for line in text.clone().lines().filter(|line| {
        line.starts_with("path = \"/vfroot")
            || line.starts_with("path = \"/gpfs")
            || line.starts_with("path = \"/lustre")
    }) {
        let old = line.split('"').nth(1).unwrap();
        let new = site.path("volumes").join(old.trim_start_matches('/'));
        // Of a NetApp volume that is one qtree, the qtree's directory.
        fs::create_dir_all(new.join("qtree0")).unwrap();
        text = text.replace(&format!("path = \"{old}\""), &format!("path = \"{}\"", new.display()));
    }
    own(site.dir());
    write_config(&site, &text);
    site.launch();
    let secret = "some-secret-shared-with-manager";
    let reply = Request::new("GET", "/volumes").header(AUTH, secret).send(site.manager).expect(200).json();
    let volumes = reply["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), text.lines().filter(|line| line.starts_with("backend = ")).count());
    let log = site.log();
    for key in ["use-watcher", "ipc-base-path", "pyroscope", "artifact-storages", "logstash"] {
        assert!(log.contains(key), "{key} is named once as without effect:\n{log}");
    }
    assert_eq!(fs::read_to_string(site.path("agent.pid")).unwrap().trim(), site.pid().to_string());
}

#[test]
fn snake_case_and_unknown_keys_are_no_mistakes() {
    let mut site = Site::prepare(|settings| {
        settings.unset("storage-proxy", "session-expire").set("storage-proxy", "session_expire", "3600");
        settings.set("storage-proxy", "no-such-key-anywhere", "true");
        settings.set("no-such-table", "key", "1");
    });
    site.launch();
    let log = site.log();
    assert_eq!(log.matches("no-such-key-anywhere").count(), 1, "one notice:\n{log}");
    assert!(log.contains("no-such-table"), "{log}");
}

/// A planted mistake: its name, the key that is changed with its new value, and what the report must name. An
/// empty value removes the key, and an empty key removes the table.
type Mistake = (&'static str, (&'static str, &'static str, &'static str), &'static str);

const MISTAKES: &[Mistake] = &[
    ("no token secret", ("storage-proxy", "secret", ""), "storage-proxy.secret"),
    ("an empty token secret", ("storage-proxy", "secret", "''"), "storage-proxy.secret"),
    ("no lifetime", ("storage-proxy", "session-expire", ""), "session-expire"),
    ("an unknown unit", ("storage-proxy", "session-expire", "'1 fortnight'"), "session-expire"),
    ("a negative lifetime", ("storage-proxy", "session-expire", "-5"), "session-expire"),
    ("a negative limit", ("storage-proxy", "scandir-limit", "-1"), "scandir-limit"),
    ("a size in words", ("storage-proxy", "max-upload-size", "'lots'"), "max-upload-size"),
    ("an infinite size", ("storage-proxy", "max-upload-size", "'inf'"), "max-upload-size"),
    ("no processes", ("storage-proxy", "num-proc", "0"), "num-proc"),
    ("a user nobody knows", ("storage-proxy", "user", "'no-such-user'"), "storage-proxy.user"),
    ("half a truth", ("storage-proxy", "allow-auto-quota-scope-creation", "'sometimes'"), "allow-auto-quota"),
    ("a port out of range", ("api.client", "service-addr", "'127.0.0.1:70000'"), "api.client.service-addr"),
    ("no port", ("api.manager", "service-addr", "'localhost'"), "api.manager.service-addr"),
    ("no manager secret", ("api.manager", "secret", ""), "api.manager.secret"),
    ("no manager API", ("api.manager", "", ""), "api.manager"),
    ("TLS in words", ("api.client", "ssl-enabled", "'perhaps'"), "api.client.ssl-enabled"),
    ("TLS without a certificate", ("api.client", "ssl-enabled", "true"), "api.client.ssl-cert"),
    ("one address for both APIs", ("api.manager", "service-addr", "'$client'"), "service-addr"),
    ("a log level of its own", ("logging", "level", "'LOUD'"), "logging.level"),
    ("a backend nobody knows", ("volume.local", "backend", "'floppy'"), "volume.local.backend"),
    ("no backend", ("volume.local", "backend", ""), "volume.local.backend"),
    ("no path", ("volume.local", "path", ""), "volume.local.path"),
    ("a path that isn't there", ("volume.local", "path", "'/no/such/directory'"), "volume.local.path"),
    ("a path that is a file", ("volume.local", "path", "'/etc/passwd'"), "volume.local.path"),
    ("a path of the wrong type", ("volume.local", "path", "17"), "volume.local.path"),
    ("a limit out of range", ("limits", "json-size", "'1k'"), "limits.json-size"),
];

fn plant(settings: &mut Settings, (table, key, value): (&str, &str, &str)) {
    if value.is_empty() {
        settings.unset(table, key);
    } else {
        settings.set(table, key, value.replace("$client", &address(0).to_string()));
    }
}

#[test]
fn check_names_the_key_of_each_planted_mistake() {
    let right = Site::prepare(|_| {});
    let output = check(&right);
    assert!(output.status.success(), "without a mistake: {}", said(&output));
    let mut table = Table::new("planted mistakes");
    for (name, change, key) in MISTAKES {
        let site = Site::prepare(|settings| plant(settings, *change));
        let output = check(&site);
        let text = said(&output);
        let outcome = match (output.status.success(), text.contains(key)) {
            (true, _) => Err(format!("accepted: {text}")),
            (false, false) => Err(format!("does not name {key}: {text}")),
            (false, true) if text.contains("panicked") => Err(text),
            (false, true) => Ok(text.lines().find(|line| line.contains(key)).unwrap_or_default().to_owned()),
        };
        table.row(*name, outcome);
    }
    table.finish();
}

#[test]
fn a_file_without_volumes_and_a_certificate_that_is_missing_are_named() {
    let without = Site::prepare(|settings| {
        settings.unset("volume.local", "").unset("volume.second", "");
    });
    let text = said(&check(&without));
    assert!(!check(&without).status.success() && text.contains("volume"), "{text}");
    let missing = Site::prepare(|settings| {
        settings.set("api.manager", "ssl-enabled", "true");
        settings.set("api.manager", "ssl-cert", "'none.pem'").set("api.manager", "ssl-privkey", "'none.key'");
    });
    let text = said(&check(&missing));
    assert!(text.contains("api.manager.ssl-cert") && text.contains("none.pem"), "{text}");
}

#[test]
fn all_mistakes_are_told_in_one_go_and_nothing_is_served() {
    let site = Site::prepare(|settings| {
        settings.set("storage-proxy", "session-expire", "\"1 fortnight\"");
        settings.set("storage-proxy", "scandir-limit", "-1");
        settings.set("volume.local", "backend", "\"floppy\"");
        settings.set("logging", "level", "\"LOUD\"");
    });
    for args in [&["check", "-f"][..], &["-f"]] {
        let output = output(command(site.dir(), args).arg(site.config()));
        let text = said(&output);
        assert!(!output.status.success(), "{args:?}: {text}");
        for key in
            ["session-expire", "scandir-limit", "volume.local.backend", "logging.level", "storage-proxy.toml"]
        {
            assert!(text.contains(key), "{args:?} does not name {key}: {text}");
        }
        for value in ["fortnight", "floppy", "LOUD"] {
            assert!(text.contains(value), "{args:?} does not show {value}: {text}");
        }
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    let site = Site::prepare(|_| {});
    write_config(&site, "[storage-proxy]\nnode-id = \"x\"\nsecret = \"not closed\nmore = 1\n");
    let output = check(&site);
    let text = said(&output);
    assert!(!output.status.success() && text.contains('3') && text.contains("storage-proxy.toml"), "{text}");
    assert!(!text.contains("not closed"), "a line with a secret isn't repeated: {text}");
    fs::remove_file(site.config()).unwrap();
    let text = said(&check(&site));
    assert!(text.contains("storage-proxy.toml"), "{text}");
}

#[test]
fn check_tells_which_volumes_the_agents_user_cannot_use() {
    if !is_root() {
        eprintln!("skipped: only root can make a directory that the agent can't use");
        return;
    }
    let site = Site::prepare(|_| {});
    std::os::unix::fs::chown(site.path("local"), Some(0), Some(0)).unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(site.path("local"), fs::Permissions::from_mode(mode)).unwrap();
        let output = check(&site);
        let text = said(&output);
        assert!(!output.status.success() && text.contains("volume.local"), "mode {mode:o}: {text}");
    }
}

#[test]
fn a_mistake_about_a_secret_does_not_show_the_secret() {
    for (table, key) in [("storage-proxy", "secret"), ("api.manager", "secret")] {
        let site = Site::prepare(|settings| {
            settings.set(table, key, "[\"hush-hush-value\"]");
        });
        let output = check(&site);
        let text = said(&output);
        assert!(!output.status.success() && text.contains(&format!("{table}.{key}")), "{text}");
        assert!(!text.contains("hush-hush"), "{text}");
    }
}
