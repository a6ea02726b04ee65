use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use storage_agent::tree::{Control, Interrupted, remove_contents, remove_tree};

use crate::support::{Scene, as_user, is_root, name};

fn mode(scene: &Scene, at: &str, mode: u32) {
    fs::set_permissions(scene.path(at), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_tree_of_every_kind_is_removed_and_nothing_outside() {
    for threads in [1, 2, 4] {
        let scene = Scene::new();
        scene.file("root/tree/a/b/file", "");
        for number in 0..500 {
            scene.file(&format!("root/tree/{}/{number}", number % 20), "");
        }
        scene.fifo("root/tree/fifo");
        scene.file("outside/canary", "");
        symlink("../../outside", scene.path("root/tree/link")).unwrap();
        symlink(scene.path("outside"), scene.path("root/tree/a/absolute")).unwrap();
        scene.file("root/sibling", "");

        let control = Control::new();
        let report = remove_tree(&scene.dir("root"), &name("tree"), &control, threads).unwrap();
        assert!(report.leftovers.is_empty(), "{}", report.leftovers);
        assert_eq!(report.removed, 500 + 20 + 1 + 2 + 1 + 3);
        assert_eq!(control.progress().entries_done, report.removed);
        assert!(!scene.path("root/tree").exists());
        assert!(scene.path("outside/canary").exists() && scene.path("root/sibling").exists());
    }
}

#[test]
fn single_files_links_and_missing_names_are_fine_too() {
    let scene = Scene::new();
    scene.file("outside/canary", "");
    scene.file("root/file", "");
    symlink("../outside", scene.path("root/link")).unwrap();
    for (entry, removed) in [("file", 1), ("link", 1), ("missing", 0)] {
        let report = remove_tree(&scene.dir("root"), &name(entry), &Control::new(), 2).unwrap();
        assert!(report.leftovers.is_empty() && report.removed == removed, "{entry}");
    }
    assert!(scene.path("outside/canary").exists());
    assert_eq!(fs::read_dir(scene.path("root")).unwrap().count(), 0);
}

#[test]
fn the_content_goes_and_the_directory_stays() {
    let scene = Scene::new();
    scene.file("root/a/b", "");
    scene.file("root/c", "");
    let report = remove_contents(&scene.dir("root"), &Control::new(), 2).unwrap();
    assert_eq!((report.removed, report.leftovers.count()), (3, 0));
    assert_eq!(fs::read_dir(scene.path("root")).unwrap().count(), 0);
}

#[test]
fn directories_that_forbid_it_to_their_owner_are_opened_up() {
    as_user(|| {
        for threads in [1, 2] {
            let scene = Scene::new();
            for closed in [0o000, 0o100, 0o400, 0o500, 0o555] {
                scene.file(&format!("root/tree/{closed}/sub/file"), "");
                mode(&scene, &format!("root/tree/{closed}/sub"), closed);
                mode(&scene, &format!("root/tree/{closed}"), closed);
            }
            mode(&scene, "root/tree", 0o500);
            let report = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), threads).unwrap();
            assert!(report.leftovers.is_empty(), "{}", report.leftovers);
            assert!(!scene.path("root/tree").exists());
        }
    });
}

#[test]
fn the_directory_around_the_tree_is_not_opened_up() {
    as_user(|| {
        let scene = Scene::new();
        scene.file("root/tree/file", "");
        mode(&scene, "root", 0o500);
        let report = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), 1).unwrap();
        assert_eq!(report.leftovers.to_string(), "tree: remove: Permission denied (os error 13)");
        let after = fs::metadata(scene.path("root")).unwrap().permissions().mode();
        assert_eq!(after & 0o777, 0o500);
        mode(&scene, "root", 0o700);
    });
}

#[test]
fn what_belongs_to_somebody_else_is_named_and_the_rest_removed() {
    if !is_root() {
        // Only root can make a directory of somebody else.
        return assert!(chown("/", Some(0), None).is_err());
    }
    let scene = Scene::new();
    scene.file("root/tree/foreign/file", "");
    scene.file("root/tree/own/file", "");
    for own in ["", "root", "root/tree", "root/tree/own", "root/tree/own/file"] {
        chown(scene.path(own), Some(65534), Some(65534)).unwrap();
    }
    as_user(|| {
        for threads in [2, 1] {
            let report = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), threads).unwrap();
            assert_eq!(
                report.leftovers.to_string(),
                "tree/foreign/file: remove: Permission denied (os error 13)"
            );
        }
    });
    assert!(!scene.path("root/tree/own").exists());
    assert!(scene.path("root/tree/foreign/file").exists());
}

#[test]
fn only_the_first_leftovers_are_named_and_all_are_counted() {
    if !is_root() {
        return assert!(chown("/", Some(0), None).is_err());
    }
    let scene = Scene::new();
    for number in 0..150 {
        scene.file(&format!("root/tree/{number}"), "");
    }
    as_user(|| {
        let report = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), 1).unwrap();
        assert_eq!((report.leftovers.count(), report.leftovers.first().len()), (150, 100));
        assert!(report.leftovers.to_string().ends_with("\nand 50 more"));
    });
}

#[test]
fn a_mount_point_is_not_entered() {
    let scene = Scene::new();
    scene.file("elsewhere/canary", "");
    scene.dir("root/tree/a/mounted");
    let target = scene.path("root/tree/a/mounted");
    // A bind mount of the same file system: the device number doesn't give it away.
    let mount = Command::new("mount").arg("--bind").arg(scene.path("elsewhere")).arg(&target).status();
    if !mount.is_ok_and(|status| status.success()) {
        // Mounting needs privileges that root in a container may lack; without them there is no mount to meet.
        return assert!(fs::read_dir(&target).unwrap().next().is_none());
    }
    let tree = remove_tree(&scene.dir("root"), &name("tree"), &Control::new(), 2).unwrap();
    let itself = remove_tree(&scene.dir("root/tree/a"), &name("mounted"), &Control::new(), 1).unwrap();
    let canary = scene.path("elsewhere/canary").exists();
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    assert!(canary);
    assert_eq!(tree.leftovers.to_string(), "tree/a/mounted: enter: another file system is mounted here");
    assert_eq!(itself.leftovers.to_string(), "mounted: enter: another file system is mounted here");
}

#[test]
fn a_removal_ends_when_told_to() {
    let scene = Scene::new();
    scene.file("root/tree/file", "");
    let control = Control::new();
    control.cancel();
    for threads in [1, 2] {
        let result = remove_tree(&scene.dir("root"), &name("tree"), &control, threads);
        assert_eq!(result.unwrap_err(), Interrupted::Cancelled);
    }
    assert!(scene.path("root/tree/file").exists());
}
