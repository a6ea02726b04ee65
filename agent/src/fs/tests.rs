//! What a directory handle must hold to, each tried with `openat2` and without.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::Errno;

use super::open::tests::{FORCE_STEPWISE, both_ways};
use super::*;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// `root` to be served and `canary`, a file beside it that must never be reached.
fn scene() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "inside").unwrap();
    fs::write(temp.path().join("canary"), "secret").unwrap();
    let dir = Dir::open_root(&root).unwrap();
    (temp, dir)
}

fn read(dir: &Dir, at: &str) -> io::Result<String> {
    let (mut file, stat) = dir.open_file(&path(at))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    assert_eq!(stat.size, text.len() as u64);
    Ok(text)
}

#[test]
fn links_are_followed_for_reading_while_they_stay_inside() {
    both_ways(|| {
        let (temp, dir) = scene();
        let root = temp.path().join("root");
        symlink("../a/./b/../file", root.join("a/up-and-down")).unwrap();
        symlink("a", root.join("dir-link")).unwrap();
        assert_eq!(read(&dir, "a/file").unwrap(), "inside");
        assert_eq!(read(&dir, "a/up-and-down").unwrap(), "inside");
        assert_eq!(read(&dir, "dir-link/up-and-down").unwrap(), "inside");
        assert!(dir.open_dir(&path("dir-link/b")).is_ok());
        assert_eq!(dir.open_dir(&path("")).unwrap().stat_self().unwrap().ino, dir.stat_self().unwrap().ino);
    });
}

#[test]
fn a_path_that_leaves_the_directory_is_an_escape() {
    both_ways(|| {
        let (temp, dir) = scene();
        let root = temp.path().join("root");
        for (link, target) in [
            ("relative", "../canary"),
            ("deep", "a/b/../../../canary"),
            ("absolute", "/etc/passwd"),
            ("absolute-inside", root.join("a/file").to_str().unwrap()),
            ("dir", ".."),
            ("proc", "/proc/self/root"),
        ] {
            symlink(target, root.join(link)).unwrap();
            let error = dir.open_file(&path(link)).unwrap_err();
            assert!(is_escape(&error), "{link}: {error}");
            assert!(is_escape(&dir.open_dir(&path(link)).unwrap_err()), "{link}");
        }
        assert!(is_escape(&dir.open_file(&path("dir/canary")).unwrap_err()));
        assert!(!is_escape(&dir.open_file(&path("missing")).unwrap_err()));
    });
}

#[test]
fn no_link_is_followed_for_writing() {
    both_ways(|| {
        let (temp, dir) = scene();
        symlink("a", temp.path().join("root/link")).unwrap();
        symlink("file", temp.path().join("root/a/staged")).unwrap();
        for at in ["link", "link/b"] {
            assert_eq!(errno(&dir.open_dir_nofollow(&path(at)).unwrap_err()), Some(Errno::LOOP), "{at}");
        }
        assert!(dir.mkdir_all(&path("link/new"), 0o755).is_err());
        let a = dir.open_dir_nofollow(&path("a")).unwrap();
        assert!(is_not_regular(&a.open_existing_rw(&name("staged")).unwrap_err()));
        assert_eq!(a.create_new(&name("staged"), 0o644).unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn link_loops_and_wrong_kinds_have_their_errno() {
    both_ways(|| {
        let (temp, dir) = scene();
        let root = temp.path().join("root");
        symlink("loop-b", root.join("loop-a")).unwrap();
        symlink("loop-a", root.join("loop-b")).unwrap();
        let expect = |result: io::Result<()>, expected| {
            assert_eq!(errno(&result.unwrap_err()), Some(expected));
        };
        expect(dir.open_file(&path("loop-a")).map(drop), Errno::LOOP);
        expect(dir.open_file(&path("a")).map(drop), Errno::ISDIR);
        expect(dir.open_file(&path("a/missing")).map(drop), Errno::NOENT);
        expect(dir.open_file(&path("a/file/below")).map(drop), Errno::NOTDIR);
        expect(dir.open_dir(&path("a/file")).map(drop), Errno::NOTDIR);
        expect(dir.open_dir_nofollow(&path("missing/b")).map(drop), Errno::NOENT);
    });
}

#[test]
fn fifos_sockets_and_devices_are_never_opened() {
    both_ways(|| {
        let (temp, dir) = scene();
        let root = temp.path().join("root");
        mkfifoat(CWD, root.join("fifo"), Mode::RWXU).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        symlink("fifo", root.join("to-fifo")).unwrap();
        // With a blocking open this test would hang on the FIFO.
        for at in ["fifo", "socket", "to-fifo"] {
            assert!(is_not_regular(&dir.open_file(&path(at)).unwrap_err()), "{at}");
            assert!(is_not_regular(&dir.open_existing_rw(&name(at)).unwrap_err()), "{at}");
        }
        let null = Dir::open_root(Path::new("/dev")).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(is_not_regular(&null.open_file(&path("null")).unwrap_err()));
    });
}

#[test]
fn a_staging_file_must_have_one_name_only() {
    let (temp, dir) = scene();
    let a = dir.open_dir_nofollow(&path("a")).unwrap();
    a.open_existing_rw(&name("file")).unwrap().write_all(b"more").unwrap();
    assert_eq!(fs::read(temp.path().join("root/a/file")).unwrap(), b"morede");
    fs::hard_link(temp.path().join("root/a/file"), temp.path().join("root/second")).unwrap();
    let error = a.open_existing_rw(&name("file")).unwrap_err();
    assert_eq!(error.to_string(), "the file has more than one hard link");
}

#[test]
fn opened_files_block_again_as_usual() {
    let (_temp, dir) = scene();
    let (file, _) = dir.open_file(&path("a/file")).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&file).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn names_of_every_kind_can_be_made_listed_and_removed() {
    let (_temp, dir) = scene();
    let a = dir.open_dir(&path("a/b")).unwrap();
    let long = [b'x'; 255];
    let names: [&[u8]; 6] = [&long, b"\xff\xfe", b"new\nline", b" ", b"-rf", b"..."];
    for bytes in names {
        drop(a.create_new(&Name::new(bytes).unwrap(), 0o644).unwrap());
    }
    let mut listed: Vec<_> = a.entries().unwrap().map(|entry| entry.unwrap().name).collect();
    listed.sort();
    let mut expected: Vec<_> = names.iter().map(|bytes| Name::new(bytes).unwrap()).collect();
    expected.sort();
    assert_eq!(listed, expected);
    for name in &listed {
        assert_eq!(a.stat(name).unwrap().kind, FileKind::File);
        a.unlink(name).unwrap();
    }
    assert_eq!(a.entries().unwrap().count(), 0);
}

#[test]
fn making_directories_is_repeatable_and_modes_can_be_set_exactly() {
    both_ways(|| {
        let (temp, dir) = scene();
        let made = dir.mkdir_all(&path("a/x/y"), 0o755).unwrap();
        dir.mkdir_all(&path("a/x/y"), 0o755).unwrap();
        made.set_mode(0o2770).unwrap();
        made.sync().unwrap();
        let metadata = fs::metadata(temp.path().join("root/a/x/y")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o2770);
        assert_eq!(errno(&dir.mkdir_all(&path("a/file/z"), 0o755).unwrap_err()), Some(Errno::NOTDIR));
    });
}

#[test]
fn stat_tells_what_the_standard_library_tells() {
    let (temp, dir) = scene();
    let metadata = fs::symlink_metadata(temp.path().join("root/a/file")).unwrap();
    let stat = dir.open_dir(&path("a")).unwrap().stat(&name("file")).unwrap();
    assert_eq!((stat.mode, stat.size, stat.ino), (metadata.mode(), metadata.size(), metadata.ino()));
    assert_eq!((stat.dev, u64::from(stat.nlink)), (metadata.dev(), metadata.nlink()));
    assert_eq!((stat.uid, stat.gid), (metadata.uid(), metadata.gid()));
    assert_eq!(stat.allocated, metadata.blocks() * 512);
    assert_eq!((stat.mtime.secs, i64::from(stat.mtime.nanos)), (metadata.mtime(), metadata.mtime_nsec()));
    assert_eq!((stat.ctime.secs, i64::from(stat.ctime.nanos)), (metadata.ctime(), metadata.ctime_nsec()));
}

#[test]
fn a_large_directory_is_read_completely_and_can_be_resumed() {
    let (_temp, dir) = scene();
    let b = dir.open_dir(&path("a/b")).unwrap();
    let count = 5_000;
    for number in 0..count {
        drop(b.create_new(&name(&format!("a-rather-long-file-name-{number:06}")), 0o644).unwrap());
    }
    let all: Vec<_> = b.entries().unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(all.len(), count);
    let half = &all[count / 2];
    let mut batch = Batch::resuming(rustix::fd::AsFd::as_fd(&b), half.next);
    let next = batch.next(rustix::fd::AsFd::as_fd(&b)).unwrap().unwrap();
    assert_eq!(next.name, all[count / 2 + 1].name);
}

#[test]
fn the_targets_of_links_are_told_relative_to_the_directory() {
    let (temp, dir) = scene();
    let root = temp.path().join("root");
    let cases: [(&str, &str, Option<&str>); 10] = [
        ("plain", "a/file", Some("a/file")),
        ("through", "plain", Some("a/file")),
        ("dots", "./a//b/../file", Some("a/file")),
        ("self", ".", Some(".")),
        ("dangling", "a/no/such", Some("a/no/such")),
        ("dangling-up", "no/../a", Some("a")),
        ("outside", "../canary", None),
        ("dangling-outside", "no/../../canary", None),
        ("absolute", "/etc/passwd", None),
        ("loop", "loop", None),
    ];
    for (link, target, _) in cases {
        symlink(target, root.join(link)).unwrap();
    }
    for (link, _, expected) in cases {
        let told = link_target(&dir, &name(link)).unwrap();
        assert_eq!(told.as_deref(), expected.map(str::as_bytes), "{link}");
    }
}

#[test]
fn a_directory_swapped_with_a_link_to_outside_is_never_passed() {
    let (temp, dir) = scene();
    let root = temp.path().join("root");
    fs::create_dir(temp.path().join("outside")).unwrap();
    fs::write(temp.path().join("outside/file"), "secret").unwrap();
    symlink("../outside", root.join("evil")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    CWD,
                    root.join("a"),
                    CWD,
                    root.join("evil"),
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        let mut reached = [0; 2];
        for round in 0..4_000 {
            FORCE_STEPWISE.set(round % 2 == 0);
            if let Ok(text) = read(&dir, "a/file") {
                assert_eq!(text, "inside");
                reached[round % 2] += 1;
            }
            if let Ok(made) = dir.mkdir_all(&path("a/made"), 0o755) {
                drop(made);
            }
        }
        FORCE_STEPWISE.set(false);
        stop.store(true, Ordering::Relaxed);
        assert!(reached.iter().all(|count| *count > 0), "both ways read the file at times: {reached:?}");
    });
    assert!(!temp.path().join("outside/made").exists());
    assert_eq!(fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
}

#[test]
fn capacity_is_that_of_the_file_system() {
    let (_temp, dir) = scene();
    let capacity = dir.statfs().unwrap();
    assert!(capacity.total > 0 && capacity.available <= capacity.total);
    assert_eq!(capacity.used(), capacity.total - capacity.available);
}

#[test]
fn a_root_must_be_an_absolute_path() {
    assert_eq!(Dir::open_root(Path::new("relative")).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_name_that_the_file_system_keeps_for_itself_is_refused_wherever_it_stands() {
    let (temp, dir) = scene();
    let hidden = temp.path().join("root/a/.snap");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("file"), "").unwrap();
    fs::create_dir(temp.path().join("root/d")).unwrap();
    let dir = dir.reserving(Some(".snap"));
    let a = dir.open_dir(&path("a")).unwrap();
    let (snap, file) = (name(".snap"), name("file"));
    let refused: [io::Result<()>; 16] = [
        dir.open_dir(&path("a/.snap")).map(drop),
        dir.open_dir_nofollow(&path("a/.snap")).map(drop),
        dir.open_file(&path("a/.snap/file")).map(drop),
        dir.mkdir_all(&path("a/.snap/new"), 0o755).map(drop),
        a.open_child(&snap).map(drop),
        a.open_file_nofollow(&snap).map(drop),
        a.open_existing_rw(&snap).map(drop),
        a.create_new(&snap, 0o644).map(drop),
        a.mkdir(&snap, 0o755),
        a.stat(&snap).map(drop),
        a.unlink(&snap),
        a.rmdir(&snap),
        a.rename(&snap, &dir, &name("rescued"), Replace::Yes),
        dir.rename(&name("d"), &a, &snap, Replace::Yes),
        a.symlink(b"file", &snap),
        a.hard_link(&file, &a.try_clone().unwrap(), &snap),
    ];
    for (case, outcome) in refused.into_iter().enumerate() {
        assert!(is_reserved(&outcome.unwrap_err()), "case {case}");
    }
    assert!(hidden.join("file").exists() && temp.path().join("root/d").exists());
    dir.open_dir(&path("a")).unwrap().mkdir(&name(".snapshot"), 0o755).unwrap();
}
