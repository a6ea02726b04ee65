use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::time::Instant;

use storage_agent::tree::{Control, Interrupted, usage};

use crate::support::{Scene, as_user};

fn du(scene: &Scene, at: &str) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(scene.path(at)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn every_entry_counts_and_blocks_are_those_of_du_on_any_number_of_threads() {
    let scene = Scene::new();
    for dir in 0..20 {
        for file in 0..20 {
            scene.file(&format!("root/{dir}/sub/{file}"), vec![b'x'; file * 1000]);
        }
    }
    scene.file("outside", vec![0; 1_000_000]);
    symlink("../outside", scene.path("root/link")).unwrap();
    scene.fifo("root/fifo");
    fs::hard_link(scene.path("root/1/sub/19"), scene.path("root/second")).unwrap();
    let sparse = fs::File::create(scene.path("root/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();

    let mut directories = 0;
    for at in (0..20).flat_map(|dir| [format!("root/{dir}"), format!("root/{dir}/sub")]) {
        directories += fs::metadata(scene.path(&at)).unwrap().len();
    }
    for threads in [1, 4] {
        let control = Control::new();
        let usage = usage(&scene.dir("root"), &control, threads).unwrap();
        assert_eq!(usage.files, 400 + 4);
        assert_eq!(usage.entries, 400 + 4 + 40);
        let files: u64 = 20 * (0..20).map(|file| file * 1000).sum::<u64>();
        let link = "../outside".len() as u64;
        assert_eq!(usage.apparent_bytes, files + directories + link + 19_000 + (1 << 30));
        assert_eq!(usage.allocated_bytes, du(&scene, "root"));
        assert!(usage.unread.is_empty());
        assert_eq!(control.progress().entries_done, usage.entries);
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_counted() {
    as_user(|| {
        let scene = Scene::new();
        scene.file("root/open/file", "");
        scene.file("root/closed/file", "");
        let closed = scene.path("root/closed");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let usage = usage(&scene.dir("root"), &Control::new(), 2).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(usage.entries, 3);
        assert_eq!(usage.unread.to_string(), "closed: open: Permission denied (os error 13)");
    });
}

#[test]
fn a_scan_ends_when_told_to_and_when_its_time_is_over() {
    let scene = Scene::new();
    scene.file("root/file", "");
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(usage(&scene.dir("root"), &cancelled, 1).unwrap_err(), Interrupted::Cancelled);
    let late = Control::with_deadline(Instant::now());
    assert_eq!(usage(&scene.dir("root"), &late, 4).unwrap_err(), Interrupted::Deadline);
}
