use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::*;

const ID: &str = "0b6c1d7ea6f24d57a1b2c3d4e5f60718";
const DAY: Duration = Duration::from_secs(86_400);

/// A volume with one vfolder, and the uploads to it.
struct Site {
    uploads: Arc<Uploads>,
    volume: Arc<Volume>,
    folder: PathBuf,
    _dir: tempfile::TempDir,
}

fn settings() -> UploadSettings {
    UploadSettings {
        sync: SyncPolicy::EachPatch,
        holder_idle: Duration::from_millis(80),
        lock_wait: Duration::from_secs(5),
        body_idle: Duration::from_secs(10),
        sessions_per_folder: 5,
        done_retention: DAY,
        stale_after: DAY * 2,
    }
}

fn site() -> Site {
    site_at(tempfile::tempdir().unwrap())
}

fn site_at(dir: tempfile::TempDir) -> Site {
    let folder = dir.path().join("0b/6c/1d7ea6f24d57a1b2c3d4e5f60718");
    std::fs::create_dir_all(&folder).unwrap();
    let path = dir.path().to_owned();
    let volume = Arc::new(Volume::plain("v", path));
    Site { uploads: Arc::new(Uploads::new(settings())), volume, folder, _dir: dir }
}

impl Site {
    fn upload(&self, path: &str, size: u64) -> Upload {
        let vfid = ID.parse().unwrap();
        let target = target(None, path.as_bytes()).unwrap();
        let session = self.uploads.create(&self.volume, &vfid, &target, size).unwrap();
        Upload { volume: Arc::clone(&self.volume), vfid, session, size, target, expires: unix_now() + 1000 }
    }

    fn staged(&self, upload: &Upload) -> PathBuf {
        self.folder.join(STAGING).join(upload.session.to_string())
    }

    fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.folder.join(path)).unwrap()
    }

    async fn patch(&self, upload: &Upload, offset: u64, parts: &[&[u8]]) -> Result<u64, UploadError> {
        self.patch_with(upload, offset, None, None, parts, false).await
    }

    async fn patch_with(
        &self,
        upload: &Upload,
        offset: u64,
        length: Option<u64>,
        checksum: Option<&str>,
        parts: &[&[u8]],
        broken: bool,
    ) -> Result<u64, UploadError> {
        let checksum = checksum.map(|header| Checksum::parse(header.as_bytes()).unwrap());
        let writing = self.uploads.begin(upload.clone(), offset, length, checksum).await?;
        let mut items: Vec<Result<Bytes, ()>> =
            parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        items.extend(broken.then_some(Err(())));
        writing.receive(&mut stream::iter(items)).await
    }

    async fn offset(&self, upload: &Upload) -> Result<u64, UploadError> {
        self.uploads.offset(upload.clone()).await
    }
}

#[tokio::test]
async fn a_file_arrives_in_pieces_and_is_moved_to_its_place() {
    let site = site();
    let upload = site.upload("new/dir/file.bin", 11);
    assert_eq!(site.offset(&upload).await.unwrap(), 0);
    assert_eq!(site.patch(&upload, 0, &[b"hel", b"", b"lo"]).await.unwrap(), 5);
    assert_eq!(site.offset(&upload).await.unwrap(), 5);
    assert!(!site.folder.join("new").exists());
    assert_eq!(site.patch(&upload, 5, &[b" world"]).await.unwrap(), 11);
    assert_eq!(site.read("new/dir/file.bin"), b"hello world");
    let mode = std::fs::metadata(site.folder.join("new/dir/file.bin")).unwrap().permissions().mode();
    let umask = 0o777 & !std::fs::metadata(site.folder.join("new")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o644 & !umask);
    assert!(!site.staged(&upload).exists());
    assert_eq!(site.offset(&upload).await.unwrap(), 11, "the end is remembered");
    assert!(matches!(site.patch(&upload, 5, &[b"x"]).await, Err(UploadError::OffsetMismatch { actual: 11 })));
    assert_eq!(site.patch(&upload, 11, &[]).await.unwrap(), 11);
}

#[tokio::test]
async fn large_bodies_of_many_frames_are_stored_in_order() {
    let site = site();
    let piece: Vec<u8> = (0..70_001u32).map(|i| (i % 251) as u8).collect();
    let parts: Vec<&[u8]> =
        (0..100).map(|_| piece.as_slice()).chain((0..3000).map(|_| &b"tiny"[..])).collect();
    let whole = parts.concat();
    let upload = site.upload("big", whole.len() as u64);
    assert_eq!(site.patch(&upload, 0, &parts).await.unwrap(), whole.len() as u64);
    assert!(site.read("big") == whole);
}

#[tokio::test]
async fn offsets_that_lie_change_nothing() {
    let site = site();
    let upload = site.upload("f", 10);
    site.patch(&upload, 0, &[b"12345"]).await.unwrap();
    for offset in [0, 4, 6, 10, 11, u64::MAX] {
        let refused = site.patch(&upload, offset, &[b"x"]).await;
        assert!(matches!(refused, Err(UploadError::OffsetMismatch { actual: 5 })), "{offset}: {refused:?}");
    }
    assert_eq!(std::fs::read(site.staged(&upload)).unwrap(), b"12345");
}

#[tokio::test]
async fn a_body_that_passes_the_size_is_refused_and_leaves_the_offset() {
    let site = site();
    let upload = site.upload("f", 10);
    site.patch(&upload, 0, &[b"12345"]).await.unwrap();
    let stated = site.patch_with(&upload, 5, Some(6), None, &[b"678901"], false).await;
    assert!(matches!(stated, Err(UploadError::TooLong { offset: 5, size: 10 })), "{stated:?}");
    let chunked = site.patch(&upload, 5, &[b"678", b"901"]).await;
    assert!(matches!(chunked, Err(UploadError::TooLong { offset: 5, size: 10 })), "{chunked:?}");
    assert_eq!(std::fs::read(site.staged(&upload)).unwrap(), b"12345");
    assert_eq!(site.patch(&upload, 5, &[b"67890"]).await.unwrap(), 10);
}

#[tokio::test]
async fn a_broken_connection_keeps_what_arrived() {
    let site = site();
    let upload = site.upload("f", 10);
    let broken = site.patch_with(&upload, 0, Some(10), None, &[b"123"], true).await;
    assert!(matches!(broken, Err(UploadError::Broken { offset: 3 })), "{broken:?}");
    let short = site.patch_with(&upload, 3, Some(7), None, &[b"45"], false).await;
    assert!(
        matches!(short, Err(UploadError::Broken { offset: 5 })),
        "an end that comes too early: {short:?}"
    );
    assert_eq!(site.offset(&upload).await.unwrap(), 5);
    assert_eq!(site.patch(&upload, 5, &[b"67890"]).await.unwrap(), 10);
    assert_eq!(site.read("f"), b"1234567890");
}

#[tokio::test]
async fn a_wrong_checksum_leaves_the_offset_and_a_right_one_moves_it() {
    let site = site();
    let upload = site.upload("f", 11);
    for header in ["sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "crc32c yZRlqg=="] {
        let wrong = site.patch_with(&upload, 0, None, Some(header), &[b"hello ", b"earth"], false).await;
        assert!(matches!(wrong, Err(UploadError::Checksum { offset: 0 })), "{wrong:?}");
        assert_eq!(site.offset(&upload).await.unwrap(), 0);
    }
    let cut = site.patch_with(&upload, 0, Some(11), Some("crc32c yZRlqg=="), &[b"hello "], true).await;
    assert!(matches!(cut, Err(UploadError::Broken { offset: 0 })), "unverified bytes are not kept: {cut:?}");
    let right =
        site.patch_with(&upload, 0, None, Some("crc32c yZRlqg=="), &[b"hello ", b"world"], false).await;
    assert_eq!(right.unwrap(), 11);
    assert_eq!(site.read("f"), b"hello world");
}

#[tokio::test]
async fn unverified_bytes_of_a_crashed_process_are_cut_off() {
    let site = site();
    let upload = site.upload("f", 10);
    site.patch(&upload, 0, &[b"123"]).await.unwrap();
    std::fs::write(site.staged(&upload), b"123garbage").unwrap();
    std::fs::write(site.staged(&upload).with_extension("unverified"), b"3").unwrap();
    assert_eq!(site.offset(&upload).await.unwrap(), 3);
    assert_eq!(site.patch(&upload, 3, &[b"4567890"]).await.unwrap(), 10);
    assert_eq!(site.read("f"), b"1234567890");
    assert!(!site.staged(&upload).with_extension("unverified").exists());
}

#[tokio::test]
async fn a_dead_holder_is_preempted_and_what_it_had_received_is_kept() {
    let site = site();
    let upload = site.upload("f", 10);
    let writing = site.uploads.begin(upload.clone(), 0, Some(10), None).await.unwrap();
    let mut body = stream::iter([Ok::<_, ()>(Bytes::from_static(b"123"))]).chain(stream::pending());
    let dead = tokio::spawn(async move { writing.receive(&mut body).await });
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(site.offset(&upload).await.unwrap(), 3, "asking for the offset ends the dead one");
    assert!(matches!(dead.await.unwrap(), Err(UploadError::TakenOver { offset: 3 })));
    assert_eq!(site.patch(&upload, 3, &[b"4567890"]).await.unwrap(), 10);
}

#[tokio::test]
async fn a_live_holder_keeps_its_session() {
    let site = site();
    let upload = site.upload("f", 40);
    let writing = site.uploads.begin(upload.clone(), 0, Some(40), None).await.unwrap();
    let mut body = Box::pin(stream::iter(0..40).then(|_| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, ()>(Bytes::from_static(b"x"))
    }));
    let live = tokio::spawn(async move { writing.receive(&mut body).await });
    assert_eq!(site.offset(&upload).await.unwrap(), 0, "what is durable, without disturbing it");
    assert!(matches!(site.patch(&upload, 0, &[b"y"]).await, Err(UploadError::Held)));
    assert_eq!(live.await.unwrap().unwrap(), 40);
    assert_eq!(site.read("f"), [b'x'; 40]);
}

#[tokio::test]
async fn another_process_that_holds_the_file_keeps_it() {
    let site = site();
    let upload = site.upload("f", 10);
    site.patch(&upload, 0, &[b"12"]).await.unwrap();
    let other = std::fs::File::open(site.staged(&upload)).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(site.patch(&upload, 2, &[b"x"]).await, Err(UploadError::Held)));
    assert_eq!(site.offset(&upload).await.unwrap(), 2);
    drop(other);
    assert_eq!(site.patch(&upload, 2, &[b"34567890"]).await.unwrap(), 10);
}

#[tokio::test]
async fn termination_removes_the_session_but_never_a_finished_file() {
    let site = site();
    let upload = site.upload("f", 10);
    site.patch(&upload, 0, &[b"12"]).await.unwrap();
    site.uploads.terminate(upload.clone()).await.unwrap();
    assert!(!site.folder.join(STAGING).exists(), "nothing is left");
    assert!(matches!(site.offset(&upload).await, Err(UploadError::NoSession)));
    assert!(matches!(site.patch(&upload, 0, &[b"x"]).await, Err(UploadError::NoSession)));
    let upload = site.upload("g", 1);
    site.patch(&upload, 0, &[b"x"]).await.unwrap();
    assert!(matches!(site.uploads.terminate(upload).await, Err(UploadError::NoSession)));
    assert_eq!(site.read("g"), b"x");
}

#[tokio::test]
async fn an_existing_file_or_link_is_replaced_and_what_a_link_points_to_is_not() {
    let site = site();
    std::fs::write(site.folder.join("old"), b"old").unwrap();
    std::fs::write(site.folder.join("precious"), b"precious").unwrap();
    symlink("precious", site.folder.join("link")).unwrap();
    for path in ["old", "link"] {
        let upload = site.upload(path, 3);
        site.patch(&upload, 0, &[b"new"]).await.unwrap();
        assert_eq!(site.read(path), b"new");
    }
    assert!(!site.folder.join("link").is_symlink());
    assert_eq!(site.read("precious"), b"precious");
}

#[tokio::test]
async fn a_directory_in_the_files_place_keeps_the_session_until_it_is_gone() {
    let site = site();
    let upload = site.upload("d", 3);
    site.patch(&upload, 0, &[b"1"]).await.unwrap();
    std::fs::create_dir(site.folder.join("d")).unwrap();
    assert!(matches!(site.patch(&upload, 1, &[b"23"]).await, Err(UploadError::TargetIsDirectory(_))));
    let writing = {
        std::fs::remove_dir(site.folder.join("d")).unwrap();
        site.uploads.begin(upload.clone(), 1, None, None).await.unwrap()
    };
    std::fs::create_dir(site.folder.join("d")).unwrap();
    let mut body = stream::iter([Ok::<_, ()>(Bytes::from_static(b"23"))]);
    assert!(matches!(writing.receive(&mut body).await, Err(UploadError::TargetIsDirectory(_))));
    assert_eq!(std::fs::read(site.staged(&upload)).unwrap(), b"123");
    std::fs::remove_dir(site.folder.join("d")).unwrap();
    assert_eq!(site.offset(&upload).await.unwrap(), 3, "finished when asked again");
    assert_eq!(site.read("d"), b"123");
}

#[tokio::test]
async fn links_on_the_way_are_not_followed() {
    let site = site();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), site.folder.join("out")).unwrap();
    std::fs::create_dir(site.folder.join("real")).unwrap();
    symlink("real", site.folder.join("inside")).unwrap();
    std::fs::write(site.folder.join("file"), b"").unwrap();
    for path in ["out/f", "inside/f", "file/f"] {
        let upload = site.upload(path, 1);
        assert!(matches!(site.patch(&upload, 0, &[b"x"]).await, Err(UploadError::Target { .. })), "{path}");
        assert!(matches!(site.offset(&upload).await, Err(UploadError::Target { .. })), "{path}");
    }
    assert!(outside.path().read_dir().unwrap().next().is_none());
}

#[tokio::test]
async fn a_planted_link_in_place_of_the_staging_directory_is_refused() {
    let site = site();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), site.folder.join(STAGING)).unwrap();
    let target = target(None, b"f").unwrap();
    assert!(site.uploads.create(&site.volume, &ID.parse().unwrap(), &target, 1).is_err());
    assert!(outside.path().read_dir().unwrap().next().is_none());
}

#[test]
fn targets_are_joined_and_escapes_refused() {
    let joined = |dst: Option<&str>, path: &str| {
        target(dst.map(str::as_bytes), path.as_bytes()).map(|p| p.to_string())
    };
    assert_eq!(joined(Some("a/b/"), "c/d").unwrap(), "a/b/c/d");
    assert_eq!(joined(Some(""), "./c").unwrap(), "c");
    assert_eq!(joined(Some("."), "c").unwrap(), "c");
    for (dst, path) in [
        (None, ""),
        (None, "."),
        (Some("a"), "."),
        (None, "/etc/passwd"),
        (Some("/etc"), "passwd"),
        (Some(".."), "x"),
        (Some("a/../.."), "x"),
        (None, "../x"),
        (None, "a\0b"),
        (None, ".upload/x"),
        (Some(".upload"), "x"),
        (Some("./.upload/"), "x"),
    ] {
        assert!(matches!(joined(dst, path), Err(UploadError::Target { .. })), "{dst:?} {path:?}");
    }
    assert!(joined(Some(&"d/".repeat(2000)), &"f/".repeat(100)).is_err(), "too long together");
}

#[tokio::test]
async fn an_empty_file_needs_no_patch() {
    let site = site();
    let upload = site.upload("a/empty", 0);
    assert_eq!(site.read("a/empty"), b"", "made with the session");
    assert_eq!(site.offset(&upload).await.unwrap(), 0);
    assert!(!site.staged(&upload).exists());
    std::fs::write(site.folder.join("full"), b"full").unwrap();
    let upload = site.upload("full", 0);
    assert_eq!(site.read("full"), b"full", "not before the client asks");
    site.offset(&upload).await.unwrap();
    assert_eq!(site.read("full"), b"");
}

#[tokio::test]
async fn sessions_are_limited_per_folder_and_stale_ones_make_room() {
    let site = site();
    let uploads: Vec<Upload> = (0..5).map(|i| site.upload(&format!("f{i}"), 1)).collect();
    let id = ID.parse().unwrap();
    let another = || site.uploads.create(&site.volume, &id, &target(None, b"g").unwrap(), 1);
    assert!(matches!(another(), Err(OpError::Busy { .. })));
    let old = SystemTime::now() - DAY * 2 - Duration::from_secs(5);
    std::fs::File::options().write(true).open(site.staged(&uploads[0])).unwrap().set_modified(old).unwrap();
    another().unwrap();
    assert!(!site.staged(&uploads[0]).exists());
    assert!(site.staged(&uploads[1]).exists());
}

#[tokio::test]
async fn marks_are_swept_when_the_token_has_ended_and_foreign_files_never() {
    let site = site();
    let upload = site.upload("f", 1);
    site.patch(&upload, 0, &[b"x"]).await.unwrap();
    let sweep = |now| site.uploads.schedule.sweep_due(&site.volume, now, site.uploads.lifetime());
    sweep(upload.expires - 1);
    assert_eq!(site.offset(&upload).await.unwrap(), 1);
    std::fs::write(site.folder.join(STAGING).join("notes"), b"mine").unwrap();
    sweep(upload.expires + 1);
    assert!(matches!(site.offset(&upload).await, Err(UploadError::NoSession)));
    assert_eq!(std::fs::read(site.folder.join(STAGING).join("notes")).unwrap(), b"mine");
}

#[tokio::test]
async fn the_staging_directory_goes_with_the_last_mark() {
    let site = site();
    let upload = site.upload("f", 1);
    site.patch(&upload, 0, &[b"x"]).await.unwrap();
    site.uploads.schedule.sweep_due(&site.volume, upload.expires + 1, site.uploads.lifetime());
    assert!(!site.folder.join(STAGING).exists());
}

/// Needs root for the mount; other users see it skipped on standard error.
#[tokio::test]
async fn a_full_disk_keeps_the_bytes_before_it_and_the_session_goes_on_later() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount =
        |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success();
    let path = dir.path().to_str().unwrap().to_owned();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &path]));
    let site = site_at(dir);
    let filler = site.folder.join("filler");
    std::fs::write(&filler, vec![0; 700 * 1024]).unwrap();
    let whole: Vec<u8> = (0..600 * 1024u32).map(|i| (i % 253) as u8).collect();
    let upload = site.upload("f", whole.len() as u64);
    let full = site.patch(&upload, 0, &[&whole]).await;
    let Err(UploadError::Full { offset }) = full else { panic!("{full:?}") };
    assert_eq!(site.offset(&upload).await.unwrap(), offset);
    assert!(offset > 0 && offset < whole.len() as u64, "{offset}");
    std::fs::remove_file(&filler).unwrap();
    site.patch(&upload, offset, &[&whole[offset as usize..]]).await.unwrap();
    assert!(site.read("f") == whole);
    assert!(mount(&["umount", "-l", &path]));
}

/// A file system whose files can be longer after a crash than what was stored of them.
struct Outrunning;

impl crate::volume::Trees for Outrunning {
    fn sizes_outrun_data(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn where_sizes_outrun_data_only_bytes_that_were_made_durable_count_after_a_crash() {
    let Site { uploads, volume, folder, _dir } = site();
    let Ok(mut volume) = Arc::try_unwrap(volume) else { panic!("the volume is in use") };
    volume.backend.trees = Arc::new(Outrunning);
    let site = Site { uploads, volume: Arc::new(volume), folder, _dir };
    let upload = site.upload("f", 10);
    assert_eq!(site.patch(&upload, 0, &[b"123"]).await.unwrap(), 3);
    assert!(!site.staged(&upload).with_extension("unverified").exists(), "an orderly end leaves no mark");

    let writing = site.uploads.begin(upload.clone(), 3, None, None).await.unwrap();
    let mut body = stream::iter([Ok::<_, ()>(Bytes::from_static(b"456"))]).chain(stream::pending());
    let crashing = tokio::spawn(async move { writing.receive(&mut body).await });
    while std::fs::metadata(site.staged(&upload)).unwrap().len() < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    crashing.abort();
    assert!(crashing.await.unwrap_err().is_cancelled());
    assert_eq!(site.offset(&upload).await.unwrap(), 3);
    assert_eq!(std::fs::metadata(site.staged(&upload)).unwrap().len(), 3);
    assert_eq!(site.patch(&upload, 3, &[b"4567890"]).await.unwrap(), 10);
    assert_eq!(site.read("f"), b"1234567890");
}

#[test]
fn a_mark_that_moves_on_lets_more_bytes_count() {
    let site = site();
    let upload = site.upload("f", 100);
    std::fs::write(site.staged(&upload), [7; 90]).unwrap();
    let folder = site.volume.vfolder(&upload.vfid).unwrap();
    let open = || match Staging::find(&folder, upload.session, upload.size).unwrap() {
        Found::Open(staging) => staging,
        _ => panic!("the session is not free"),
    };
    let staging = open();
    let mark = staging.begin_unverified().unwrap();
    mark.advance(64).unwrap();
    drop(staging);
    assert_eq!(open().offset, 64);
}
