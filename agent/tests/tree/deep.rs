//! Trees deeper than any path is long, with few descriptors and little stack.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use storage_agent::fs::{Dir, RelPath};
use storage_agent::tree::{Control, CopyOptions, Walk, WalkLimits, copy, remove_tree, usage};

use crate::support::{Scene, name};

/// Makes `levels` directories inside each other, with a file in the last.
fn nest(root: &Dir, levels: usize) {
    let d = RelPath::from(name("d"));
    let mut dir = root.mkdir_all(&d, 0o755).unwrap();
    for _ in 1..levels {
        dir = dir.mkdir_all(&d, 0o755).unwrap();
    }
    dir.create_new(&name("file"), 0o644).unwrap();
}

/// The most descriptors that were open at one time while `body` ran.
fn descriptors_during(body: impl FnOnce() + Send) -> usize {
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            body();
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            most.fetch_max(open().saturating_sub(before), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    most.into_inner()
}

#[test]
fn twenty_thousand_levels_are_measured_walked_copied_and_removed() {
    const LEVELS: usize = 20_000;
    let scene = Scene::in_memory();
    let root = scene.dir("root");
    nest(&root, LEVELS);
    let descriptors = descriptors_during(|| {
        let usage = usage(&root, &Control::new(), 4).unwrap();
        assert_eq!((usage.entries, usage.files), (LEVELS as u64 + 1, 1));
        assert!(usage.unread.is_empty(), "{}", usage.unread);

        let limits = WalkLimits { depth: usize::MAX, skip_top: Vec::new() };
        let walked = Walk::new(&root, limits).unwrap().map(Result::unwrap).fold(0, |count, _| count + 1);
        assert_eq!(walked, LEVELS + 1);

        let options = CopyOptions { only_top: None, skip_top: Vec::new(), threads: 4, sync: false };
        let report = copy(&root, &scene.dir("dst"), &options, &Control::new()).unwrap();
        assert_eq!(report.entries, LEVELS as u64 + 1);

        for (tree, threads) in [("root", 1), ("dst", 4)] {
            let report = remove_tree(&scene.dir(tree), &name("d"), &Control::new(), threads).unwrap();
            assert!(report.leftovers.is_empty(), "{}", report.leftovers);
            assert_eq!(report.removed, LEVELS as u64 + 1);
        }
    });
    assert!(descriptors < 400, "{descriptors} descriptors");
}

#[test]
fn a_hundred_thousand_levels_are_removed() {
    let scene = Scene::in_memory();
    let root = scene.dir("root");
    nest(&root, 100_000);
    let descriptors = descriptors_during(|| {
        let report = remove_tree(&root, &name("d"), &Control::new(), 1).unwrap();
        assert!(report.leftovers.is_empty(), "{}", report.leftovers);
        assert_eq!(report.removed, 100_001);
    });
    assert!(descriptors < 200, "{descriptors} descriptors");
}
