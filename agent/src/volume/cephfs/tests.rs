//! The parts together, on a CephFS that is played by an ordinary directory.

use std::sync::Arc;

use common::id::{QuotaScopeId, ScopeKind, VfolderId};
use rustix::io::Errno;

use super::attributes::tests::Fake;
use super::with;
use crate::error::OpError;
use crate::fs::{Dir, RelPath};
use crate::tree::Control;
use crate::volume::{EntryUsage, ScopeUsage, Volume};

struct Scene {
    temp: tempfile::TempDir,
    fake: Arc<Fake>,
    volume: Arc<Volume>,
    scope: QuotaScopeId,
}

fn scene(fake: Fake) -> Scene {
    let temp = tempfile::tempdir().unwrap();
    let fake = Arc::new(fake);
    let mut volume = Volume::plain("ceph", temp.path().to_owned());
    volume.backend = with(fake.clone());
    let scope = QuotaScopeId::new(ScopeKind::User, common::id::Uuid::from(7));
    Scene { temp, fake, volume: Arc::new(volume), scope }
}

impl Scene {
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.temp.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_scope_is_made_with_its_limit_and_tells_its_use() {
    let scene = scene(Fake::default());
    let (quota, volume, scope) = (&scene.volume.backend.quota, &scene.volume, &scene.scope);
    assert!(matches!(quota.describe(volume, scope).await, Err(OpError::ScopeNotFound(_))));
    assert!(quota.create_scope(volume, scope, Some(1000)).await.unwrap());
    assert!(!quota.create_scope(volume, scope, Some(5)).await.unwrap(), "it exists now");
    let dir = scene.temp.path().join(scope.dir_name());
    std::fs::write(dir.join("file"), [0; 300]).unwrap();
    let told = quota.describe(volume, scope).await.unwrap();
    assert_eq!(told, ScopeUsage { used_bytes: Some(300), limit_bytes: Some(1000) });
    quota.set_limit(volume, scope, 0).await.unwrap();
    assert_eq!(quota.describe(volume, scope).await.unwrap().limit_bytes, None);
    assert_eq!(scene.names(), [scope.dir_name()]);
}

#[tokio::test]
async fn a_scope_whose_limit_is_refused_is_not_made_and_the_reason_is_told() {
    let scene = scene(Fake::default());
    let (quota, volume, scope) = (&scene.volume.backend.quota, &scene.volume, &scene.scope);
    *scene.fake.refuses.lock().unwrap() = Some(Errno::ACCESS);
    let error = quota.create_scope(volume, scope, Some(1000)).await.unwrap_err();
    assert!(matches!(&error, OpError::QuotaFailed(_)) && error.to_string().contains("\"p\""), "{error}");
    assert!(scene.names().is_empty(), "{:?}", scene.names());
    assert!(quota.create_scope(volume, scope, None).await.unwrap(), "without a limit none is set");
    *scene.fake.refuses.lock().unwrap() = Some(Errno::INVAL);
    assert!(matches!(quota.set_limit(volume, scope, 1).await, Err(OpError::QuotaConfig)));
}

#[tokio::test]
async fn what_an_interrupted_creation_left_is_used_up_by_the_next() {
    let scene = scene(Fake::default());
    std::fs::create_dir(scene.temp.path().join(format!(".{}.new", scene.scope.dir_name()))).unwrap();
    let quota = &scene.volume.backend.quota;
    assert!(quota.create_scope(&scene.volume, &scene.scope, Some(1000)).await.unwrap());
    assert_eq!(scene.names(), [scene.scope.dir_name()]);
    assert_eq!(quota.describe(&scene.volume, &scene.scope).await.unwrap().limit_bytes, Some(1000));
}

#[tokio::test]
async fn the_number_of_entries_is_limited_without_counting_the_scope_itself() {
    let scene = scene(Fake::default());
    let (quota, volume, scope) = (&scene.volume.backend.quota, &scene.volume, &scene.scope);
    quota.create_scope(volume, scope, None).await.unwrap();
    assert_eq!(quota.entry_usage(volume, scope).await.unwrap(), None);
    quota.set_entry_limit(volume, scope, 10).await.unwrap();
    let set = scene.fake.values.lock().unwrap().values().cloned().collect::<Vec<_>>();
    assert_eq!(set, ["11"], "the directory itself is one of them");
    std::fs::write(scene.temp.path().join(scope.dir_name()).join("file"), "").unwrap();
    let told = quota.entry_usage(volume, scope).await.unwrap();
    assert_eq!(told, Some(EntryUsage { used_files: 1, limit_files: 10 }));
    quota.unset_limit(volume, scope).await.unwrap();
    assert_eq!(quota.entry_usage(volume, scope).await.unwrap(), None);
}

#[tokio::test]
async fn bare_folders_have_limits_of_their_own() {
    let scene = scene(Fake::default());
    let id: VfolderId = "0b6c1d7e-a6f2-4d57-a1b2-c3d4e5f60718".parse().unwrap();
    crate::vfolder::create::vfolder(&scene.volume, &id, None).unwrap();
    let quota = &scene.volume.backend.quota;
    assert_eq!(quota.folder_limit(&scene.volume, Some(&id)).await.unwrap(), 0);
    quota.set_folder_limit(&scene.volume, &id, 4096).await.unwrap();
    assert_eq!(quota.folder_limit(&scene.volume, Some(&id)).await.unwrap(), 4096);
    assert_eq!(quota.folder_limit(&scene.volume, None).await.unwrap(), 0, "the volume has none");
}

#[test]
fn the_room_in_a_directory_is_what_its_limit_leaves() {
    let scene = scene(Fake::default());
    let trees = &scene.volume.backend.trees;
    let root = scene.volume.root().unwrap();
    let free = trees.room(&root).unwrap();
    assert!(free > 1000);
    std::fs::write(scene.temp.path().join("file"), [0; 300]).unwrap();
    let key = (root.stat_self().unwrap().id(), "ceph.quota.max_bytes".to_owned());
    scene.fake.values.lock().unwrap().insert(key.clone(), "1000".into());
    assert_eq!(trees.room(&root).unwrap(), 700);
    scene.fake.values.lock().unwrap().insert(key, "100".into());
    assert_eq!(trees.room(&root).unwrap(), 0, "a limit may be below what is used");
}

#[test]
fn usage_is_what_the_file_system_says() {
    let scene = scene(Fake::default());
    std::fs::create_dir(scene.temp.path().join("d")).unwrap();
    std::fs::write(scene.temp.path().join("d/file"), [0; 300]).unwrap();
    let root = scene.volume.root().unwrap();
    let usage = scene.volume.backend.trees.usage(&root, &Control::new(), 1).unwrap();
    assert_eq!((usage.entries, usage.files), (2, 1));
}

#[test]
fn a_directory_without_cephfs_is_an_unusable_volume() {
    let scene = scene(Fake { foreign: true, ..Fake::default() });
    let error = scene.volume.root().unwrap_err();
    assert!(matches!(&error, OpError::VolumeUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("no CephFS is mounted there"), "{error}");
}

#[test]
fn the_directory_of_snapshots_is_out_of_reach() {
    let scene = scene(Fake::default());
    std::fs::create_dir(scene.temp.path().join(".snap")).unwrap();
    let open = |root: &Dir| root.open_dir(&RelPath::parse(b".snap").unwrap()).map(drop);
    assert!(open(&scene.volume.root().unwrap()).is_err());
    assert!(open(&Dir::open_root(scene.temp.path()).unwrap()).is_ok());
}
