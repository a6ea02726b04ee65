//! Copies of whole vfolders: what is copied, where to, and what managers learn of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use storage_agent_tests::agent::{AGENT_ID, is_root};
use storage_agent_tests::site::{DIALECTS, Dialect, Folder, Site, fresh_uuid};
use storage_agent_tests::{problem, shape};

/// The parameters of a clone.
fn params(from: &Folder, to: &Folder) -> Value {
    json!({"src_volume": from.volume, "src_vfid": from.vfid, "dst_volume": to.volume, "dst_vfid": to.vfid})
}

/// Clones, waits for the end, and gives the task's id.
fn clone(from: &Folder, to: &Folder) -> String {
    let body = from.site.call("POST folder/clone", &params(from, to)).expect(200).json();
    assert_eq!(shape::compare(&json!({"bgtask_id": "<uuid>"}), &body), Ok(()));
    let task = body["bgtask_id"].as_str().unwrap().to_owned();
    let over = from.site.finished(&task);
    assert_eq!(over["state"], "done", "{over}");
    task
}

/// A folder that does not exist, of the same dialect and, if scoped, in another scope.
fn target<'a>(site: &'a Site, volume: &str, dialect: Dialect) -> Folder<'a> {
    match dialect {
        Dialect::Bare => site.folder_named(volume, &fresh_uuid()),
        Dialect::Scoped => site.folder_named(volume, &format!("project:{}/{}", fresh_uuid(), fresh_uuid())),
    }
}

/// Everything that a copy must keep, by relative path.
fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    collect(root, root, &mut all);
    all
}

fn collect(root: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        let content = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() && meta.len() < 1 << 20 => format!("{:?}", fs::read(&path).unwrap()),
            _ => String::new(),
        };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        let time = if meta.is_symlink() { 0 } else { meta.mtime_nsec() + meta.mtime() };
        all.insert(
            path.strip_prefix(root).unwrap().into(),
            format!("{:o} {size} {time} {content}", meta.mode()),
        );
        if meta.is_dir() {
            collect(root, &path, all);
        }
    }
}

fn furnish(folder: &Folder) {
    folder.write("dir/deep/file", "content");
    folder.mkdir("empty");
    folder.write("script", "#!/bin/sh\n");
    fs::set_permissions(folder.path.join("script"), fs::Permissions::from_mode(0o750)).unwrap();
    folder.link("inner", "dir/deep/file");
    folder.link("outer", folder.site.path("outside/canary"));
    folder.link("broken", "nowhere");
    fs::hard_link(folder.path.join("script"), folder.path.join("twin")).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    let file = fs::File::options().write(true).open(folder.path.join("dir/deep/file")).unwrap();
    file.set_modified(old).unwrap();
    fs::File::open(folder.path.join("dir/deep")).unwrap().set_modified(old).unwrap();
    folder.own();
}

#[test]
fn a_clone_keeps_modes_times_links_and_hard_links() {
    let site = Site::start();
    for dialect in DIALECTS {
        for volume in ["local", "second"] {
            let source = site.folder(dialect);
            furnish(&source);
            let copy = target(&site, volume, dialect);
            clone(&source, &copy);
            assert_eq!(facts(&source.path), facts(&copy.path), "{dialect:?} into {volume}");
            let twins = ["script", "twin"].map(|name| fs::metadata(copy.path.join(name)).unwrap().ino());
            assert_eq!(twins[0], twins[1], "two names of one file");
            let owner = if is_root() { AGENT_ID } else { rustix::process::geteuid().as_raw() };
            assert_eq!(fs::metadata(copy.path.join("script")).unwrap().uid(), owner);
        }
    }
}

#[test]
fn holes_stay_holes_and_extended_attributes_are_copied() {
    let site = Site::start();
    let source = site.folder(Dialect::Scoped);
    let sparse = source.write("sparse", "begin");
    fs::File::options().write(true).open(&sparse).unwrap().set_len(1 << 30).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let attributes = rustix::fs::setxattr(&sparse, "user.origin", b"lab", flags).is_ok();
    let copy = target(&site, "local", Dialect::Scoped);
    clone(&source, &copy);
    let meta = fs::metadata(copy.path.join("sparse")).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    if attributes {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(copy.path.join("sparse"), "user.origin", &mut value).unwrap();
        assert_eq!(&value[..length], b"lab");
    }
}

#[test]
fn staging_files_and_special_files_are_not_cloned() {
    let site = Site::start();
    let source = site.folder(Dialect::Scoped);
    source.write("file", "content");
    source.write("dir/.upload/kept", "only the one at the top is staging");
    source.upload_token("up.bin", 10);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.path.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    assert!(source.has(".upload"));
    let copy = target(&site, "local", Dialect::Scoped);
    clone(&source, &copy);
    assert!(!copy.has(".upload"), "no staging files");
    assert_eq!(copy.read("file").unwrap(), b"content");
    assert!(copy.has("dir/.upload/kept"));
}

#[test]
fn an_empty_destination_that_exists_is_taken_and_a_used_one_is_not() {
    let site = Site::start();
    for dialect in DIALECTS {
        let source = site.folder(dialect);
        source.write("file", "content");
        let empty = site.folder(dialect);
        clone(&source, &empty);
        assert_eq!(empty.read("file").unwrap(), b"content");
        let used = site.folder(dialect);
        used.write("precious", "x");
        problem::manager(&site.call("POST folder/clone", &params(&source, &used)), 400).unwrap();
        assert_eq!(used.names(""), ["precious"], "{dialect:?}");
    }
}

#[test]
fn a_repeated_clone_is_the_same_task() {
    let site = Site::start();
    for dialect in DIALECTS {
        let source = site.folder(dialect);
        source.write("file", "content");
        let copy = target(&site, "local", dialect);
        let first = clone(&source, &copy);
        copy.write("since", "made after the clone");
        assert_eq!(clone(&source, &copy), first, "managers 25.12 to 25.17 repeat requests");
        assert!(copy.has("since"), "nothing was copied again");
        let other = clone(&source, &target(&site, "local", dialect));
        assert_ne!(other, first, "another target is another task");
    }
}

#[test]
fn a_scoped_clone_of_a_large_folder_is_answered_before_the_end() {
    let site = Site::with(|settings| {
        settings.set("agent", "clone-wait", "\"0s\"");
    });
    let source = site.folder(Dialect::Scoped);
    for number in 0..4000 {
        fs::write(source.path.join(format!("f{number}")), "x").unwrap();
    }
    source.own();
    let copy = target(&site, "local", Dialect::Scoped);
    let first = site.call("POST folder/clone", &params(&source, &copy)).expect(200).json();
    let again = site.call("POST folder/clone", &params(&source, &copy)).expect(200).json();
    assert_eq!(first, again, "the running clone is found again");
    assert_eq!(site.finished(first["bgtask_id"].as_str().unwrap())["state"], "done");
    assert_eq!(fs::read_dir(&copy.path).unwrap().count(), 4000);
}

#[test]
fn a_failed_clone_leaves_no_destination() {
    if !is_root() {
        eprintln!("skipped: only root can make a file that the agent can't read");
        return;
    }
    let site = Site::start();
    for dialect in DIALECTS {
        let source = site.folder(dialect);
        source.write("a", "content");
        source.write("secret", "content");
        std::os::unix::fs::chown(source.path.join("secret"), Some(0), Some(0)).unwrap();
        fs::set_permissions(source.path.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let copy = target(&site, "local", dialect);
        let reply = site.call("POST folder/clone", &params(&source, &copy));
        if reply.status == 200 {
            let task = reply.json()["bgtask_id"].as_str().unwrap().to_owned();
            let over = site.finished(&task);
            assert_eq!(over["state"], "failed", "{over}");
            assert!(over.to_string().contains("secret"), "it names the file: {over}");
            assert_eq!(dialect, Dialect::Scoped, "a bare clone has no other way to tell");
        } else {
            problem::manager(&reply, reply.status).unwrap();
            assert!(reply.text().contains("secret"), "it names the file: {}", reply.text());
        }
        assert!(!copy.path.exists(), "{dialect:?}: half a copy stays behind");
        assert_eq!(source.names(""), ["a", "secret"]);
    }
}

#[test]
fn a_clone_onto_itself_or_into_nowhere_is_refused() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("file", "content");
    problem::manager(&site.call("POST folder/clone", &params(&folder, &folder)), 400).unwrap();
    let nowhere = site.folder_named("nowhere", &folder.vfid);
    problem::manager(&site.call("POST folder/clone", &params(&folder, &nowhere)), 400).unwrap();
    problem::manager(&site.call("POST folder/clone", &params(&nowhere, &folder)), 400).unwrap();
    assert_eq!(folder.names(""), ["file"]);
}
