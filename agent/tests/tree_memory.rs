//! Memory stays flat as a directory grows. A program of its own, so that no other test's memory is measured.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use storage_agent::fs::{Dir, Name};
use storage_agent::tree::{Control, CopyOptions, Walk, WalkLimits, copy, list, remove_contents, usage};

const ENTRIES: usize = 100_000;

/// The most memory that this process had so far, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_hundred_thousand_entries_cost_no_more_memory_than_a_few() {
    // In memory where possible: hundreds of thousands of files take long on a disk.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let open = |at: &str| {
        std::fs::create_dir_all(temp.path().join(at)).unwrap();
        Dir::open_root(&temp.path().join(at)).unwrap()
    };
    let (src, dst) = (open("src"), open("dst"));
    for number in 0..ENTRIES {
        let name = Name::new(format!("a-name-of-usual-length-{number:08}").as_bytes()).unwrap();
        drop(src.create_new(&name, 0o644).unwrap());
    }
    let before = peak();
    assert_eq!(list(&src, 0).unwrap().map(Result::unwrap).count(), ENTRIES);
    assert_eq!(usage(&src, &Control::new(), 4).unwrap().entries, ENTRIES as u64);
    assert_eq!(Walk::new(&src, WalkLimits::default()).unwrap().map(Result::unwrap).count(), ENTRIES);
    let options = CopyOptions { only_top: None, skip_top: Vec::new(), threads: 4, sync: false };
    assert_eq!(copy(&src, &dst, &options, &Control::new()).unwrap().entries, ENTRIES as u64);
    for dir in [src, dst] {
        assert_eq!(remove_contents(&dir, &Control::new(), 2).unwrap().removed, ENTRIES as u64);
    }
    let grown = peak() - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
}
