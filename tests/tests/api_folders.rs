//! The life of a vfolder as managers of all generations lead it: create, mount, measure, delete.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage_agent_tests::agent::own;
use storage_agent_tests::site::{DIALECTS, Dialect, Folder, Site, fresh_hex, fresh_uuid};
use storage_agent_tests::{problem, shape};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Waits until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All names anywhere below a directory.
fn all_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_below(&entry.path()));
        }
    }
    found
}

#[test]
fn a_folder_is_three_levels_below_its_volume_or_scope() {
    let site = Site::start();
    let (scope, folder) = (fresh_hex(), fresh_hex());
    let below = Path::new(&folder[..2]).join(&folder[2..4]).join(&folder[4..]);
    let hyphenated =
        |hex: &str| format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    for (vfid, path) in [
        (hyphenated(&folder), site.path("local").join(&below)),
        (format!("user:{}/{folder}", hyphenated(&scope)), site.path("local").join(&scope).join(&below)),
    ] {
        let made = site.folder_named("local", &vfid);
        made.call("POST folder/create", json!({})).expect(204);
        assert!(path.is_dir(), "{vfid} is at {}", path.display());
        assert_eq!(mode(&path), 0o755);
        // Every way of writing the same id means the same folder.
        for same in [vfid.to_uppercase().replace("USER", "User"), vfid.replace("user:", "project:")] {
            site.folder_named("local", &same).call("GET folder/mount", json!({"vfid": same})).expect(200);
        }
    }
}

#[test]
fn a_mode_is_set_exactly_whatever_the_umask_is() {
    let site = Site::start();
    for (given, expected) in
        [(json!(0o775), 0o775), (json!(0o2770), 0o2770), (json!(0o700), 0o700), (Value::Null, 0o755)]
    {
        let folder = site.folder_named("local", &format!("user:{}/{}", fresh_uuid(), fresh_uuid()));
        folder.call("POST folder/create", json!({"mode": given})).expect(204);
        assert_eq!(mode(&folder.path), expected, "mode {given}");
        let scope = folder.path.ancestors().nth(3).unwrap();
        assert_eq!(mode(scope), 0o755, "the scope's directory");
    }
}

#[test]
fn creating_a_folder_that_exists_is_refused_unless_it_is_the_same_request_again() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.write("file", "content");
        let body = problem::manager(&folder.call("POST folder/create", json!({})), 400).unwrap();
        assert_eq!((&body["errno"], &body["msg"]), (&json!(17), &json!("File exists")));
        assert_eq!(folder.read("file").unwrap(), b"content");
        // Managers 25.12 to 25.15 repeat a request whose reply they lost; an empty new folder may be taken for it.
        let empty = site.folder(dialect);
        let again = empty.call("POST folder/create", json!({})).status;
        assert!(matches!(again, 204 | 400), "{again}");
    }
}

#[test]
fn scopes_are_made_on_the_way_only_where_the_site_allows_it() {
    let site = Site::with(|settings| {
        settings.set("storage-proxy", "allow-auto-quota-scope-creation", "false");
    });
    let user = fresh_uuid();
    let folder = site.folder_named("local", &format!("user:{user}/{}", fresh_uuid()));
    let body = problem::manager(&folder.call("POST folder/create", json!({})), 404).unwrap();
    assert_eq!(body["error_code"], "quota-scope_read_not-found");
    site.call("POST quota-scope", &json!({"volume": "local", "qsid": format!("user:{user}")})).expect(204);
    folder.call("POST folder/create", json!({})).expect(204);
    site.folder(Dialect::Bare);
}

#[test]
fn an_upstream_layout_with_both_dialects_and_a_version_file_is_served() {
    let mut site = Site::prepare(|_| {});
    let (bare, scope, scoped) = (fresh_hex(), fresh_hex(), fresh_hex());
    for top in [bare.clone(), format!("{scope}/{scoped}")] {
        let (above, id) = top.rsplit_once('/').unwrap_or(("", &top));
        let path = site.path("local").join(above).join(&id[..2]).join(&id[2..4]).join(&id[4..]);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "content").unwrap();
    }
    fs::write(site.path("local/version.txt"), "3").unwrap();
    own(&site.path("local"));
    site.launch();
    for vfid in [bare, format!("project:{scope}/{scoped}")] {
        assert_eq!(site.folder_named("local", &vfid).names(""), ["file"], "{vfid}");
    }
    assert_eq!(fs::read(site.path("local/version.txt")).unwrap(), b"3");
}

#[test]
fn a_mount_is_the_resolved_root_whatever_the_subpath_is() {
    let site = Site::prepare(|_| {});
    let real = site.path("real");
    fs::rename(site.path("local"), &real).unwrap();
    std::os::unix::fs::symlink(&real, site.path("local")).unwrap();
    let mut site = site;
    site.launch();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        folder.mkdir("dir");
        let path = fs::canonicalize(&folder.path).unwrap();
        assert!(path.starts_with(&real));
        for subpath in [".", "", "dir", "dir/", "./dir", "not/there"] {
            let reply = folder.call("GET folder/mount", json!({"subpath": subpath})).expect(200);
            assert_eq!(reply.json(), json!({"path": path}), "subpath {subpath:?}");
        }
        for subpath in ["..", "dir/../..", "not/../../x"] {
            let body =
                problem::manager(&folder.call("GET folder/mount", json!({"subpath": subpath})), 400).unwrap();
            assert_eq!(
                (&body["msg"], &body["vfid"], &body["subpath"]),
                (&json!("Invalid vfolder subpath"), &json!(folder.vfid), &json!(subpath))
            );
        }
    }
}

#[test]
fn usage_counts_every_entry_and_used_bytes_is_what_is_allocated() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        assert_eq!(
            folder.call("GET folder/usage", json!({})).expect(200).json(),
            json!({"file_count": 0, "used_bytes": 0})
        );
        folder.write("a/b/c", vec![b'x'; 5000]);
        folder.write("d", "12345");
        folder.link("l", "/etc");
        let sparse = fs::File::create(folder.path.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        fs::hard_link(folder.path.join("d"), folder.path.join("d2")).unwrap();
        folder.own();
        let usage = folder.call("GET folder/usage", json!({})).expect(200).json();
        // a, a/b, a/b/c, d, l, sparse, d2
        assert_eq!(usage["file_count"], 7, "{usage}");
        let sizes: u64 = ["a", "a/b", "a/b/c", "d", "l", "sparse", "d2"]
            .iter()
            .map(|name| fs::symlink_metadata(folder.path.join(name)).unwrap().len())
            .sum();
        let used = usage["used_bytes"].as_u64().unwrap();
        // A file with two names may be counted once or twice.
        assert!(used == sizes || used == sizes - 5, "{used} is not {sizes}");
        let exact = folder.call("GET folder/used-bytes", json!({})).expect(200).json()["used_bytes"]
            .as_u64()
            .unwrap();
        assert!((5000..200_000).contains(&exact), "allocated, not apparent: {exact}");
    }
}

#[test]
fn the_volume_tells_its_capacity() {
    let site = Site::start();
    let usage = site.call("GET folder/fs-usage", &json!({"volume": "local"})).expect(200).json();
    let stat = rustix::fs::statvfs(site.path("local")).unwrap();
    assert_eq!(usage["capacity_bytes"], stat.f_frsize * stat.f_blocks);
    let used = usage["used_bytes"].as_u64().unwrap();
    let expected = stat.f_frsize * (stat.f_blocks - stat.f_bavail);
    assert!(used.abs_diff(expected) < 1 << 30, "{used} is far from {expected}");
}

#[test]
fn metadata_is_a_fossil() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    assert_eq!(folder.call("GET folder/metadata", json!({})).expect(200).json(), json!({"status": "ok"}));
    problem::manager(&folder.call("POST folder/metadata", json!({"payload": "x"})), 400).unwrap();
}

/// Deletes and checks the reply of the dialect; gives the task's id if there is one.
fn delete(folder: &Folder) -> Option<String> {
    let reply = folder.call("POST folder/delete", json!({}));
    if folder.vfid.contains('/') {
        let body = reply.expect(202).json();
        assert_eq!(shape::compare(&json!({"bgtask_id": "<uuid>"}), &body), Ok(()));
        Some(body["bgtask_id"].as_str().unwrap().into())
    } else {
        assert!(reply.expect(204).body.is_empty());
        None
    }
}

#[test]
fn a_deleted_folder_is_gone_at_once_and_its_content_soon() {
    let site = Site::start();
    for dialect in DIALECTS {
        let folder = site.folder(dialect);
        for number in 0..500 {
            fs::create_dir_all(folder.path.join(format!("d{}", number % 10))).unwrap();
            fs::write(folder.path.join(format!("d{}/marked-{number}", number % 10)), "x").unwrap();
        }
        folder.link("link", site.path("outside"));
        folder.own();
        let neighbour = site.folder(dialect);
        neighbour.write("marked-neighbour", "x");
        let task = delete(&folder);
        assert!(!folder.path.exists(), "gone when the reply is there");
        assert!(!folder.path.parent().unwrap().exists(), "the second prefix directory");
        assert!(!folder.path.ancestors().nth(2).unwrap().exists(), "the first prefix directory");
        problem::manager(&folder.call("GET folder/usage", json!({})), 404).unwrap();
        if let Some(task) = task {
            let over = site.finished(&task);
            assert_eq!(over["state"], "done", "{over}");
            assert!(folder.path.ancestors().nth(3).unwrap().is_dir(), "the scope stays");
        }
        eventually("the content is gone", || {
            all_below(&site.path("local"))
                .iter()
                .all(|path| !path.contains("/marked-") || path.contains("neighbour"))
        });
        assert_eq!(neighbour.names(""), ["marked-neighbour"]);
        assert_eq!(fs::read(site.path("outside/canary")).unwrap(), b"untouched");
    }
}

#[test]
fn prefix_directories_that_others_use_stay() {
    let site = Site::start();
    let id = fresh_hex();
    let twin = format!("{}{}", &id[..4], &fresh_hex()[4..]);
    let cousin = format!("{}{}", &id[..2], &fresh_hex()[2..]);
    let folders = [&id, &twin, &cousin].map(|id| site.folder_named("local", id));
    folders.iter().for_each(|folder| drop(folder.call("POST folder/create", json!({})).expect(204)));
    delete(&folders[0]);
    assert!(!folders[0].path.exists() && folders[1].path.exists() && folders[2].path.exists());
    delete(&folders[1]);
    assert!(!folders[1].path.parent().unwrap().exists() && folders[2].path.exists());
    delete(&folders[2]);
    assert!(!folders[2].path.ancestors().nth(2).unwrap().exists());
}

#[test]
fn deleting_what_is_not_there_succeeds_and_so_does_deleting_twice() {
    let site = Site::start();
    for (missing, scoped) in
        [(fresh_uuid(), false), (format!("user:{}/{}", fresh_uuid(), fresh_uuid()), true)]
    {
        let folder = site.folder_named("local", &missing);
        for _ in 0..2 {
            let task = delete(&folder);
            assert_eq!(task.is_some(), scoped);
            if let Some(task) = task {
                assert_eq!(site.finished(&task)["state"], "done");
            }
        }
        assert!(!folder.path.exists());
    }
    let folder = site.folder(Dialect::Scoped);
    delete(&folder);
    delete(&folder);
    // The same id can be used again, and the purge of the old folder doesn't reach the new one.
    folder.call("POST folder/create", json!({})).expect(204);
    folder.write("new", "x");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(folder.names(""), ["new"]);
}

#[test]
fn the_trash_shows_through_no_route() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let keeper =
        site.folder_named("local", &format!("{}/{}", folder.vfid.split_once('/').unwrap().0, fresh_uuid()));
    keeper.call("POST folder/create", json!({})).expect(204);
    keeper.write("kept", "x");
    let usage = keeper.call("GET folder/usage", json!({})).json();
    for number in 0..3000 {
        fs::write(folder.path.join(format!("f{number}")), "x").unwrap();
    }
    folder.own();
    delete(&folder);
    // While the purge runs, nothing but the keeper is to be seen.
    assert_eq!(keeper.names(""), ["kept"]);
    assert_eq!(keeper.call("GET folder/usage", json!({})).json(), usage);
    let scope = folder.path.ancestors().nth(3).unwrap();
    for name in fs::read_dir(scope).unwrap().map(|entry| entry.unwrap().file_name()) {
        let hidden = format!("../../../{}", name.display());
        problem::manager(&keeper.call("POST folder/file/list", json!({"relpath": hidden})), 400).unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_emptied_is_reported_by_its_task() {
    if !storage_agent_tests::agent::is_root() {
        eprintln!("skipped: only root can make an entry that the agent can't remove");
        return;
    }
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("ours", "x");
    // A root-owned directory, as a proxy that ran as root leaves behind.
    fs::create_dir(folder.path.join("roots")).unwrap();
    fs::write(folder.path.join("roots/file"), "x").unwrap();
    fs::set_permissions(folder.path.join("roots"), fs::Permissions::from_mode(0o755)).unwrap();
    let task = delete(&folder).unwrap();
    let over = site.finished(&task);
    assert_eq!(over["state"], "failed", "{over}");
    assert!(over.to_string().contains("roots"), "it names the entry: {over}");
    assert!(!folder.path.exists(), "the folder itself is out of the way");
}
