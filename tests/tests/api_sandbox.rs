//! What the serving process has shut itself out of, and what is left of the service inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};
use storage_agent_tests::agent::{AGENT_ID, command, output, own};
use storage_agent_tests::site::{Dialect, Site, fresh_uuid};
use tempfile::TempDir;

/// A field of `/proc/PID/status` (proc_pid_status(5)).
fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

fn sandbox(site: &Site) -> Value {
    site.call("GET status", &Value::Null).expect(200).json()["sandbox"].clone()
}

/// Landlock came to the kernel of the machine that runs the tests, or did not.
fn kernel_has_landlock() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |modules| modules.contains("landlock"))
}

#[test]
fn the_serving_agent_has_a_filter_and_says_so() {
    let site = Site::start();
    println!("Seccomp: {}, {}", status(site.pid(), "Seccomp"), sandbox(&site));
    assert_eq!(status(site.pid(), "Seccomp"), "2");
    assert_eq!(sandbox(&site)["seccomp"], "on");
    if kernel_has_landlock() {
        assert_eq!(sandbox(&site)["landlock"], "on");
    }
    // Every thread, not only the first.
    for task in fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(text.contains("\nSeccomp:\t2\n"), "{text}");
    }
}

#[test]
fn both_can_be_switched_off_and_that_is_told() {
    let site = Site::with(|settings| {
        settings.set("agent", "landlock", "false").set("agent", "seccomp", "false");
    });
    assert_eq!(sandbox(&site), json!({"landlock": "off", "seccomp": "off", "openat2": "on"}));
    let own_filters = status(std::process::id(), "Seccomp");
    assert_eq!(status(site.pid(), "Seccomp"), own_filters, "as it was started");
    let check = output(&mut command(site.dir(), &["check", "-f", site.config().to_str().unwrap()]));
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("warn  agent.landlock") && text.contains("warn  agent.seccomp"), "{text}");
}

#[test]
fn the_check_tells_what_will_hold() {
    let site = Site::prepare(|_| {});
    let check = output(&mut command(site.dir(), &["check", "-f", site.config().to_str().unwrap()]));
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("ok  agent.seccomp") && text.contains("no program can be started"), "{text}");
    assert!(text.contains("agent.landlock"), "{text}");
}

/// Puts a link to somebody else's directory in the place of a volume, which the agent opens by its path for each request,
/// and asks for what is there.
fn listed_through_a_planted_link(landlock: bool) -> u16 {
    let elsewhere = TempDir::with_prefix("storage-agent-elsewhere-").unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let id = fresh_uuid();
    let site = Site::with(|settings| {
        settings.set("agent", "landlock", landlock.to_string());
    });
    let folder = site.folder_named("local", &id);
    let below = folder.path.strip_prefix(site.path("local")).unwrap();
    fs::create_dir_all(elsewhere.path().join(below)).unwrap();
    fs::write(elsewhere.path().join(below).join("secret"), "of somebody else").unwrap();
    own(elsewhere.path());
    fs::rename(site.path("local"), site.path("local.aside")).unwrap();
    symlink(elsewhere.path(), site.path("local")).unwrap();
    let listing = folder.call("POST folder/file/list", json!({"relpath": ""}));
    assert_eq!(listing.status == 200, listing.text().contains("secret"), "{}", listing.text());
    let made = folder.call("POST folder/file/mkdir", json!({"relpath": "planted"}));
    assert_eq!(made.status < 300, elsewhere.path().join(below).join("planted").exists());
    listing.status
}

#[test]
fn a_volume_that_became_a_link_to_somewhere_else_gives_nothing_away() {
    assert_eq!(
        listed_through_a_planted_link(false),
        200,
        "without Landlock the attack works, or it proves nothing"
    );
    if kernel_has_landlock() {
        assert_ne!(listed_through_a_planted_link(true), 200);
    }
}

/// The mode of a set-id file, and of its copy in a clone.
fn cloned_mode(seccomp: bool) -> u32 {
    let site = Site::with(|settings| {
        settings.set("agent", "seccomp", seccomp.to_string());
    });
    let folder = site.folder(Dialect::Bare);
    let program = folder.write("program", "#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let target = fresh_uuid();
    let params = json!({
        "src_volume": "local", "src_vfid": folder.vfid, "dst_volume": "local", "dst_vfid": target,
    });
    site.call("POST folder/clone", &params).expect(200);
    let copy = site.folder_named("local", &target).path.join("program");
    fs::metadata(copy).unwrap().permissions().mode() & 0o7777
}

#[test]
fn no_set_id_program_is_made() {
    assert_eq!(cloned_mode(false), 0o6755, "without the filter the bits are copied, or it proves nothing");
    assert_eq!(cloned_mode(true), 0o755);
}

#[test]
fn a_directory_keeps_the_group_that_it_inherits() {
    let site = Site::start();
    let folder = site.folder(Dialect::Bare);
    let inside = folder.mkdir("shared");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o2755)).unwrap();
    folder.call("POST folder/file/mkdir", json!({"relpath": "shared/deeper"})).expect(200);
    let made = fs::metadata(inside.join("deeper")).unwrap();
    assert_eq!(made.permissions().mode() & 0o2000, 0o2000);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), AGENT_ID);
    // And such trees can be removed.
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o2555)).unwrap();
    folder.call("POST folder/delete", json!({})).expect(204);
}
