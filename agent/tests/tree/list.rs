use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use storage_agent::fs::FileKind;
use storage_agent::tree::{ListEntry, list};

use crate::support::Scene;

fn listed(scene: &Scene, limit: u64) -> Vec<ListEntry> {
    let mut entries: Vec<_> = list(&scene.dir("root"), limit).unwrap().map(Result::unwrap).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

#[test]
fn each_kind_of_entry_is_told_with_its_own_stat() {
    let scene = Scene::new();
    scene.file("root/file", "12345");
    scene.file("outside", "secret");
    scene.dir("root/sub");
    scene.fifo("root/fifo");
    symlink("sub/../file", scene.path("root/link")).unwrap();
    symlink("../outside", scene.path("root/out")).unwrap();
    symlink("loop", scene.path("root/loop")).unwrap();

    let told: Vec<_> = listed(&scene, 0)
        .into_iter()
        .map(|entry| {
            (entry.name.to_string(), entry.stat.kind, String::from_utf8(entry.symlink_target).unwrap())
        })
        .collect();
    let expected = [
        ("fifo", FileKind::Other, ""),
        ("file", FileKind::File, ""),
        ("link", FileKind::Symlink, "file"),
        ("loop", FileKind::Symlink, ""),
        ("out", FileKind::Symlink, ""),
        ("sub", FileKind::Dir, ""),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(name, kind, target)| (name.to_owned(), kind, target.to_owned())).collect();
    assert_eq!(told, expected);
}

#[test]
fn the_limit_cuts_silently_and_zero_is_no_limit() {
    let scene = Scene::new();
    for number in 0..10 {
        scene.file(&format!("root/{number}"), "");
    }
    assert_eq!(listed(&scene, 0).len(), 10);
    assert_eq!(listed(&scene, 3).len(), 3);
    assert_eq!(listed(&scene, 10).len(), 10);
    assert_eq!(listed(&scene, 11).len(), 10);
}

#[test]
fn names_come_as_the_bytes_they_are() {
    let scene = Scene::new();
    scene.dir("root");
    let names = [&b"\xff\xfe"[..], b"new\nline", &[b'x'; 255], b" "];
    for name in names {
        fs::write(scene.path("root").join(OsStr::from_bytes(name)), "").unwrap();
    }
    let mut expected: Vec<_> = names.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    let told: Vec<_> = listed(&scene, 0).iter().map(|entry| entry.name.as_bytes().to_vec()).collect();
    assert_eq!(told, expected);
}

#[test]
fn an_entry_that_vanishes_while_listing_is_left_out() {
    let scene = Scene::new();
    for number in 0..10 {
        scene.file(&format!("root/{number}"), "");
    }
    let mut list = list(&scene.dir("root"), 5).unwrap();
    let first = list.next().unwrap().unwrap();
    for number in 0..10 {
        fs::remove_file(scene.path(&format!("root/{number}"))).unwrap();
    }
    scene.file(&format!("root/{}", first.name), "");
    assert!(list.all(|entry| entry.unwrap().name == first.name), "nothing that is gone is told");
}
