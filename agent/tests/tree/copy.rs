use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::time::{Duration, SystemTime};

use rustix::fs::XattrFlags;
use storage_agent::tree::{Control, CopyOptions, CopyReport, Interrupted, TreeError, copy};

use crate::support::{Scene, as_user, fingerprint, is_root, name};

fn options(threads: usize) -> CopyOptions {
    CopyOptions { only_top: None, skip_top: vec![name(".upload")], threads, sync: false }
}

fn copied(scene: &Scene, threads: usize) -> Result<CopyReport, TreeError> {
    copy(&scene.dir("src"), &scene.dir("dst"), &options(threads), &Control::new())
}

fn mode(scene: &Scene, at: &str, mode: u32) {
    fs::set_permissions(scene.path(at), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn contents_modes_times_names_and_links_are_kept() {
    as_user(|| {
        for threads in [1, 4] {
            let scene = Scene::new();
            for number in 0..200_usize {
                let path = scene.file(&format!("src/d{}/e/{number}", number % 7), "x".repeat(number * 37));
                let times =
                    SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + number as u64, 123_456_789);
                File::open(path).unwrap().set_times(FileTimes::new().set_modified(times)).unwrap();
            }
            for bytes in [&b"\xff\xfe"[..], b"new\nline", &[b'x'; 255]] {
                fs::write(scene.path("src").join(OsStr::from_bytes(bytes)), "named").unwrap();
            }
            symlink("d1/e/1", scene.path("src/link")).unwrap();
            symlink("/etc/passwd", scene.path("src/out")).unwrap();
            symlink("nowhere", scene.path("src/dangling")).unwrap();
            mode(&scene, "src/d1/e/1", 0o4751);
            mode(&scene, "src/d2/e/2", 0o400);
            mode(&scene, "src/d3", 0o1777);
            mode(&scene, "src/d4/e", 0o500);
            mode(&scene, "src", 0o2750);

            let report = copied(&scene, threads).unwrap();
            assert!(report.skipped.is_empty() && report.imperfect.is_empty(), "{report:?}");
            assert_eq!(report.entries, 200 + 14 + 3 + 3);
            assert_eq!(fingerprint(&scene.path("src")), fingerprint(&scene.path("dst")));
            let (src, dst) =
                (fs::metadata(scene.path("src")).unwrap(), fs::metadata(scene.path("dst")).unwrap());
            assert_eq!((src.mode(), src.mtime_nsec()), (dst.mode(), dst.mtime_nsec()));
            mode(&scene, "src/d4/e", 0o700);
            mode(&scene, "dst/d4/e", 0o700);
        }
    });
}

#[test]
fn progress_and_bytes_add_up() {
    let scene = Scene::new();
    scene.file("src/a/one", vec![1; 100_000]);
    scene.file("src/two", vec![2; 5_000]);
    let control = Control::new();
    let report = copy(&scene.dir("src"), &scene.dir("dst"), &options(2), &control).unwrap();
    assert_eq!((report.entries, report.bytes), (3, 105_000));
    assert_eq!((control.progress().entries_done, control.progress().bytes_done), (3, 105_000));
}

#[test]
fn holes_stay_holes() {
    let scene = Scene::new();
    let path = scene.file("src/sparse", "");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(b"middle", 500 << 20).unwrap();
    file.write_all_at(b"near the end", (1 << 30) - (8 << 20)).unwrap();
    scene.file("src/all-hole", "");
    File::options().write(true).open(scene.path("src/all-hole")).unwrap().set_len(1 << 20).unwrap();

    let report = copied(&scene, 1).unwrap();
    let copy = fs::metadata(scene.path("dst/sparse")).unwrap();
    assert_eq!(copy.len(), 1 << 30);
    assert!(copy.blocks() * 512 < 1 << 20, "{} bytes allocated", copy.blocks() * 512);
    assert!(report.bytes < 1 << 20 || report.bytes == (1 << 30) + (1 << 20), "data only, or all shared");
    assert_eq!(fs::metadata(scene.path("dst/all-hole")).unwrap().len(), 1 << 20);
    let read = |offset: u64, length: usize| {
        let mut buffer = vec![0; length];
        File::open(scene.path("dst/sparse")).unwrap().read_exact_at(&mut buffer, offset).unwrap();
        buffer
    };
    assert_eq!(read(500 << 20, 6), b"middle");
    assert_eq!(read((1 << 30) - (8 << 20), 12), b"near the end");
}

#[test]
fn names_of_one_file_are_names_of_one_copy() {
    for threads in [1, 4] {
        let scene = Scene::new();
        for number in 0..50 {
            let first = scene.file(&format!("src/a{number}/first"), format!("content {number}"));
            scene.dir(&format!("src/b{number}"));
            fs::hard_link(&first, scene.path(&format!("src/b{number}/second"))).unwrap();
        }
        scene.file("outside", "one name outside");
        fs::hard_link(scene.path("outside"), scene.path("src/half")).unwrap();

        let report = copied(&scene, threads).unwrap();
        assert!(report.imperfect.is_empty(), "{}", report.imperfect);
        for number in 0..50 {
            let first = fs::metadata(scene.path(&format!("dst/a{number}/first"))).unwrap();
            let second = fs::metadata(scene.path(&format!("dst/b{number}/second"))).unwrap();
            assert_eq!(first.ino(), second.ino());
            let source = fs::metadata(scene.path(&format!("src/a{number}/first"))).unwrap();
            assert_ne!(source.ino(), first.ino());
        }
        assert_eq!(fs::metadata(scene.path("dst/half")).unwrap().nlink(), 1);
    }
}

#[test]
fn user_attributes_of_files_and_directories_are_kept() {
    let scene = Scene::new();
    scene.file("src/dir/file", "");
    let set = |at: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(scene.path(at), key, value, XattrFlags::empty()).unwrap();
    };
    set("src/dir/file", "user.one", b"value \xff");
    set("src/dir/file", "user.empty", b"");
    set("src/dir", "user.dir", &[b'v'; 1000]);
    let report = copied(&scene, 1).unwrap();
    assert!(report.imperfect.is_empty(), "{}", report.imperfect);
    let get = |at: &str, key: &str| {
        let mut value = Vec::with_capacity(4096);
        let spare = rustix::buffer::spare_capacity(&mut value);
        rustix::fs::getxattr(scene.path(at), key, spare).unwrap();
        value
    };
    assert_eq!(get("dst/dir/file", "user.one"), b"value \xff");
    assert_eq!(get("dst/dir/file", "user.empty"), b"");
    assert_eq!(get("dst/dir", "user.dir"), [b'v'; 1000]);
}

#[test]
fn fifos_are_skipped_and_named_and_the_staging_directory_is_left_out_at_the_top_only() {
    let scene = Scene::new();
    scene.file("src/.upload/session", "half");
    scene.file("src/a/.upload/kept", "");
    scene.fifo("src/a/fifo");
    let report = copied(&scene, 2).unwrap();
    assert_eq!(report.skipped.to_string(), "a/fifo: copy: a FIFO, socket or device");
    assert!(!scene.path("dst/.upload").exists());
    assert!(!scene.path("dst/a/fifo").exists());
    assert!(scene.path("dst/a/.upload/kept").exists());
}

#[test]
fn links_are_copied_as_links_and_their_targets_not_read() {
    let scene = Scene::new();
    scene.file("outside/secret", "secret");
    scene.dir("src");
    symlink("../outside", scene.path("src/link")).unwrap();
    copied(&scene, 1).unwrap();
    assert_eq!(fs::read_link(scene.path("dst/link")).unwrap(), OsStr::new("../outside"));
}

#[test]
fn a_file_of_somebody_else_is_copied_without_its_owner_and_set_id_bits() {
    if !is_root() {
        return assert!(chown("/", Some(0), None).is_err());
    }
    let scene = Scene::new();
    scene.file("src/foreign", "content");
    mode(&scene, "src/foreign", 0o6755);
    for at in ["", "src", "dst"] {
        scene.dir(at);
        chown(scene.path(at), Some(65534), Some(65534)).unwrap();
    }
    as_user(|| {
        let report = copied(&scene, 1).unwrap();
        assert_eq!(
            report.imperfect.to_string(),
            "foreign: keep the owner: Operation not permitted (os error 1)"
        );
    });
    let copy = fs::metadata(scene.path("dst/foreign")).unwrap();
    assert_eq!((copy.uid(), copy.mode() & 0o7777), (65534, 0o755));
}

#[test]
fn a_file_that_cannot_be_read_ends_the_copy_and_is_named() {
    as_user(|| {
        let scene = Scene::new();
        scene.file("src/a/closed", "");
        mode(&scene, "src/a/closed", 0o000);
        for threads in [1, 4] {
            let error = copied(&scene, threads).unwrap_err();
            assert_eq!(error.to_string(), "a/closed: open: Permission denied (os error 13)");
            fs::remove_dir_all(scene.path("dst")).unwrap();
        }
    });
}

#[test]
fn a_copy_into_itself_is_refused() {
    let scene = Scene::new();
    scene.file("src/file", "");
    let inside = scene.dir("src/sub/dst");
    let error = copy(&scene.dir("src"), &inside, &options(1), &Control::new()).unwrap_err();
    assert_eq!(error.to_string(), "sub/dst: open: the destination of the copy lies in its source");
    let src = scene.dir("src");
    let error = copy(&src, &src, &options(1), &Control::new()).unwrap_err();
    assert_eq!(error.to_string(), ".: copy: the destination of the copy lies in its source");
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let scene = Scene::new();
    scene.file("src/file", "new");
    let old = scene.file("dst/file", "old");
    let error = copied(&scene, 1).unwrap_err();
    assert_eq!(error.to_string(), "file: create: File exists (os error 17)");
    let mut text = String::new();
    File::open(old).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_copy_ends_when_told_to() {
    let scene = Scene::new();
    scene.file("src/file", "");
    let control = Control::new();
    control.cancel();
    let result = copy(&scene.dir("src"), &scene.dir("dst"), &options(4), &control);
    assert!(matches!(result, Err(TreeError::Interrupted(Interrupted::Cancelled))));
}

#[test]
fn a_durable_copy_is_the_same_copy() {
    let scene = Scene::new();
    scene.file("src/file", "content");
    let options = CopyOptions { sync: true, ..options(1) };
    copy(&scene.dir("src"), &scene.dir("dst"), &options, &Control::new()).unwrap();
    assert_eq!(fingerprint(&scene.path("src")), fingerprint(&scene.path("dst")));
}
