//! A neighbour who swaps directories with links to the outside while an operation runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use storage_agent::fs::{FileKind, RelPath};
use storage_agent::tree::{
    Control, CopyOptions, Walk, WalkLimits, copy, remove_contents, remove_tree, usage,
};

use crate::support::{Scene, fingerprint, name};

/// Directories with files, each with a link to `outside` beside it that is exchanged with it again and again.
fn swapping(scene: &Scene, body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in 0..20 {
                    let (dir, link) = (format!("root/d{number}"), format!("root/l{number}"));
                    // Fails where the operation removed one of the two.
                    renameat_with(CWD, scene.path(&dir), CWD, scene.path(&link), RenameFlags::EXCHANGE).ok();
                }
            }
        });
        let _stop = Stop(&stop);
        body();
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("outside/canary", "secret");
    scene.file("outside/sub/canary", "secret");
    fill(&scene);
    scene
}

fn fill(scene: &Scene) {
    for number in 0..20 {
        scene.file(&format!("root/d{number}/sub/file"), "inside");
        symlink("../outside", scene.path(&format!("root/l{number}"))).unwrap();
    }
}

#[test]
fn removing_never_touches_the_outside() {
    let scene = scene();
    let outside = fingerprint(&scene.path("outside"));
    for round in 0..50 {
        swapping(&scene, || {
            let report = remove_contents(&scene.dir("root"), &Control::new(), 1 + round % 3).unwrap();
            assert!(report.removed > 0);
        });
        assert_eq!(fingerprint(&scene.path("outside")), outside);
        let report = remove_tree(&scene.dir(""), &name("root"), &Control::new(), 2).unwrap();
        assert!(report.leftovers.is_empty(), "{}", report.leftovers);
        fill(&scene);
    }
}

#[test]
fn copying_never_reads_the_outside() {
    let scene = scene();
    let mut complete = 0;
    for round in 0..50 {
        let dst = format!("dst{round}");
        swapping(&scene, || {
            let options =
                CopyOptions { only_top: None, skip_top: Vec::new(), threads: 1 + round % 3, sync: false };
            complete +=
                usize::from(copy(&scene.dir("root"), &scene.dir(&dst), &options, &Control::new()).is_ok());
        });
        for (path, _) in fingerprint(&scene.path(&dst)) {
            assert_ne!(path.file_name().unwrap(), "canary");
        }
    }
    assert!(complete > 0, "a race ends a copy at most now and then");
}

#[test]
fn measuring_and_walking_stay_inside() {
    let scene = scene();
    swapping(&scene, || {
        for _ in 0..200 {
            let usage = usage(&scene.dir("root"), &Control::new(), 2).unwrap();
            // Names may be met twice or not at all while they are swapped, but there is only so much inside.
            assert!(usage.entries <= 20 * 6, "{usage:?}");
            for entry in Walk::new(&scene.dir("root"), WalkLimits::default()).unwrap().flatten() {
                assert_ne!(entry.name, name("canary"));
                if entry.stat.kind == FileKind::File {
                    entry.parent.open_file_nofollow(&entry.name).unwrap();
                }
            }
        }
    });
}

#[test]
fn a_tree_that_is_written_to_while_it_is_removed_is_gone_once_the_writer_stops() {
    let scene = Scene::new();
    scene.dir("root/tree");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let dir = scene.path(&format!("root/tree/{}/{}", number % 3, number % 7));
                fs::create_dir_all(&dir).ok();
                fs::write(dir.join("file"), "").ok();
            }
        });
        let _stop = Stop(&stop);
        let mut removed = 0;
        while removed < 2_000 {
            removed += remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), 2).unwrap().removed;
        }
    });
    let report = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), 2).unwrap();
    assert!(report.leftovers.is_empty(), "{}", report.leftovers);
    assert!(scene.dir("root").open_dir(&RelPath::parse(b"tree").unwrap()).is_err());
}
