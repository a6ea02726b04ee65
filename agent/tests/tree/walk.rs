use std::fs;
use std::os::unix::fs::symlink;

use storage_agent::fs::FileKind;
use storage_agent::tree::{Walk, WalkEntry, WalkLimits};

use crate::support::{Scene, name};

fn walk(scene: &Scene, limits: WalkLimits) -> Vec<Result<WalkEntry, String>> {
    Walk::new(&scene.dir("root"), limits)
        .unwrap()
        .map(|item| item.map_err(|problem| problem.to_string()))
        .collect()
}

fn paths(items: &[Result<WalkEntry, String>]) -> Vec<String> {
    items.iter().flatten().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

#[test]
fn directories_come_before_their_content_and_links_are_not_followed() {
    let scene = Scene::new();
    scene.file("root/a/b/file", "content");
    scene.dir("root/empty");
    scene.file("outside/secret", "");
    symlink("../outside", scene.path("root/link")).unwrap();
    scene.fifo("root/fifo");

    let items = walk(&scene, WalkLimits::default());
    let order = paths(&items);
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "a/b", "a/b/file", "empty", "fifo", "link"]);
    let position = |path: &str| order.iter().position(|at| at == path).unwrap();
    assert_eq!(position("a/b"), position("a") + 1);
    assert_eq!(position("a/b/file"), position("a") + 2);
    assert_eq!(paths(&walk(&scene, WalkLimits::default())), order, "the same order each time");

    for entry in items.into_iter().map(Result::unwrap) {
        if entry.stat.kind == FileKind::File {
            let (file, _) = entry.parent.open_file_nofollow(&entry.name).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 7);
        }
    }
}

#[test]
fn what_lies_too_deep_is_reported_and_what_is_to_be_skipped_is_only_skipped_at_the_top() {
    let scene = Scene::new();
    scene.file("root/.upload/staged", "");
    scene.file("root/a/.upload/kept", "");
    scene.file("root/a/b/c/file", "");
    let items = walk(&scene, WalkLimits { depth: 2, skip_top: vec![name(".upload")] });
    let mut found = paths(&items);
    found.sort();
    assert_eq!(found, ["a", "a/.upload", "a/.upload/kept", "a/b", "a/b/c"]);
    let problems: Vec<_> = items.into_iter().filter_map(Result::err).collect();
    assert_eq!(problems, ["a/b/c: enter: deeper than 2 levels"]);
}

/// Walks a tree too deep for all of it to be open, and lets `meddle` change it when the bottom is reached.
fn walk_meddled(scene: &Scene, meddle: impl Fn()) -> (Vec<String>, Vec<String>) {
    let chain = "root/a/b/c".to_owned() + &"/d".repeat(60);
    scene.dir(&chain);
    scene.file(&format!("{chain}/bottom"), "");
    for number in 0..5 {
        scene.file(&format!("root/a/{number}"), "");
        scene.file(&format!("root/a/b/{number}"), "");
    }
    let mut items = Vec::new();
    for item in Walk::new(&scene.dir("root"), WalkLimits::default()).unwrap() {
        if item.as_ref().is_ok_and(|entry| entry.name == name("bottom")) {
            meddle();
        }
        items.push(item.map_err(|problem| problem.to_string()));
    }
    let mut found = paths(&items);
    found.sort();
    let all = found.len();
    found.dedup();
    assert_eq!(found.len(), all, "nothing comes twice");
    (found, items.into_iter().filter_map(Result::err).collect())
}

#[test]
fn a_directory_moved_away_during_the_walk_is_left_for_where_it_was() {
    let scene = Scene::new();
    let (found, problems) = walk_meddled(&scene, || {
        fs::rename(scene.path("root/a/b/c"), scene.path("moved")).unwrap();
    });
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(found.len(), 2 + 5 + 5 + 1 + 60 + 1);
}

#[test]
fn directories_that_cannot_be_returned_to_are_reported_and_the_walk_goes_on_above() {
    let scene = Scene::new();
    let (found, problems) = walk_meddled(&scene, || {
        fs::rename(scene.path("root/a/b/c"), scene.path("moved-c")).unwrap();
        fs::rename(scene.path("root/a/b"), scene.path("moved-b")).unwrap();
    });
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("a: read on: directories in it were moved meanwhile"), "{problems:?}");
    for number in 0..5 {
        assert!(found.contains(&format!("a/{number}")), "{found:?}");
    }
}

#[test]
fn a_wide_tree_with_more_open_levels_than_descriptors_is_walked_completely() {
    let scene = Scene::new();
    let mut at = "root".to_owned();
    let mut expected = 0;
    for _ in 0..80 {
        for file in 0..30 {
            scene.file(&format!("{at}/file-{file}"), "");
            scene.dir(&format!("{at}/dir-{file}"));
            expected += 2;
        }
        at += "/dir-0";
    }
    let items = walk(&scene, WalkLimits::default());
    let mut found = paths(&items);
    assert_eq!(found.len(), expected);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), expected, "none missing, none twice");
}
