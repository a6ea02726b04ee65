//! A volume without space: what was stored stays, clients learn it, and all goes on when there is space again.
//!
//! The volume is a file system in memory of 4 MiB, which only root can mount; without root these tests say so.

use std::fs;
use std::process::Command;

use serde_json::json;
use storage_agent_tests::agent::{AGENT_ID, is_root};
use storage_agent_tests::http::Request;
use storage_agent_tests::problem;
use storage_agent_tests::site::{Dialect, Site, fresh_uuid};

/// A site whose first volume is tiny. It is unmounted when dropped.
struct Tiny(Site);

impl Tiny {
    fn start() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: only root can mount a small file system");
            return None;
        }
        let mut site = Site::prepare(|_| {});
        let options = format!("size=4m,uid={AGENT_ID},gid={AGENT_ID},mode=755");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tiny"])
            .arg(site.path("local"))
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            eprintln!("skipped: mounting is not allowed here");
            return None;
        }
        site.launch();
        Some(Tiny(site))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path("local")).status());
    }
}

#[test]
fn an_upload_to_a_full_volume_keeps_its_bytes_and_is_told() {
    let Some(Tiny(site)) = &Tiny::start() else { return };
    let folder = site.folder(Dialect::Scoped);
    folder.write("ballast", vec![0; 1 << 20]);
    let content: Vec<u8> = (0..3_500_000u32).map(|i| (i % 255) as u8).collect();
    let target = format!("/upload?token={}", folder.upload_token("up.bin", content.len() as u64));
    let patch = |offset: usize| {
        Request::new("PATCH", &target)
            .header("Upload-Offset", offset.to_string())
            .body(&content[offset..])
            .send(site.client)
    };
    let reply = patch(0);
    let body = problem::client(&reply, 507).unwrap();
    assert_eq!(reply.header("access-control-allow-origin").as_deref(), Some("*"), "{body}");
    let head = Request::new("HEAD", &target).send(site.client).expect(200);
    let kept: usize = head.header("upload-offset").unwrap().parse().unwrap();
    assert!((1 << 20..3_500_000).contains(&kept), "what fitted is kept: {kept}");
    fs::remove_file(folder.path.join("ballast")).unwrap();
    assert_eq!(patch(kept).status, 204);
    assert!(folder.read("up.bin").unwrap() == content);
}

#[test]
fn a_manager_learns_that_the_volume_is_full() {
    let Some(Tiny(site)) = &Tiny::start() else { return };
    let folder = site.folder(Dialect::Scoped);
    let source = site.folder(Dialect::Bare);
    source.write("half", vec![1; 2 << 20]);
    let params = json!({"src_volume": "local", "src_vfid": source.vfid, "dst_volume": "local", "dst_vfid": fresh_uuid()});
    folder.write("some", vec![1; 1 << 20]);
    let clone = site.call("POST folder/clone", &params);
    let body = problem::manager(&clone, 500).unwrap();
    assert!(body["msg"].as_str().unwrap().starts_with("Not enough space available for clone."), "{body}");
    assert!(!site.folder_named("local", params["dst_vfid"].as_str().unwrap()).path.exists());
    let mut rest = fs::File::create(folder.path.join("rest")).unwrap();
    while std::io::Write::write_all(&mut rest, &[0; 4096]).is_ok() {}
    let full = site.call("GET folder/fs-usage", &json!({"volume": "local"})).expect(200).json();
    assert_eq!(full["capacity_bytes"], 4 << 20);
    assert_eq!(full["used_bytes"], 4 << 20);
    // Deleting must work without space.
    folder.call("POST folder/file/delete", json!({"relpaths": ["some"]})).expect(200);
    folder.call("POST folder/delete", json!({})).expect(202);
    assert!(!folder.path.exists());
}
