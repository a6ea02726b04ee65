//! What a CephFS volume needs and an operator may have forgotten, found out without any of Ceph's tools.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use common::size::BinarySize;
use rustix::io::Errno;

use super::attributes::{Attributes, Limit, is_forbidden, is_foreign};
use super::client::Client;
use crate::finding::Finding;
use crate::fs::{Dir, Name, RelPath};
use crate::volume::Volume;
use crate::volume::examine::Examine;

/// The limit that is tried out, in bytes.
const TRIED: u64 = 4096;

/// The examining part.
pub(super) struct Mount {
    pub(super) attributes: Arc<dyn Attributes>,
}

#[async_trait]
impl Examine for Mount {
    async fn examine(&self, volume: &Arc<Volume>, _: bool) -> Vec<Finding> {
        let attributes = Arc::clone(&self.attributes);
        let key = format!("volume.{}.backend", volume.name);
        let subject = key.clone();
        let findings = volume.run(move |volume| Ok(look(&*attributes, &key, &volume.path)));
        findings
            .await
            .unwrap_or_else(|error: crate::error::OpError| vec![Finding::problem(subject, error.to_string())])
    }
}

fn look(attributes: &dyn Attributes, key: &str, path: &Path) -> Vec<Finding> {
    // That the directory cannot be opened has been told already.
    let Ok(root) = Dir::open_root(path) else { return Vec::new() };
    let mut findings = vec![match attributes.bytes(&root) {
        Ok(bytes) => Finding::ok(key, format!("{} is CephFS and holds {}", path.display(), readable(bytes))),
        Err(error) => return vec![no_cephfs(key, path, &error)],
    }];
    if let Ok(Some(limit)) = attributes.limit(&root, Limit::Bytes) {
        let text = format!("everything in the volume together is limited to {}", readable(limit));
        findings.push(Finding::note(key, text));
    }
    findings.push(match try_limit(attributes, &root) {
        Ok(Enforced::Yes) => Finding::ok(key, "limits can be set and are enforced"),
        Ok(Enforced::No) => Finding::problem(key, "limits can be set, but the mount's client does not enforce them")
            .cure(
                "mount with ceph-fuse whose option client_quota is not off, or with Linux 4.17 or later and a cluster \
                 of Mimic or later",
            ),
        Err(error) if is_forbidden(&error) => no_right(key, path),
        Err(error) => Finding::problem(key, format!("no limit can be set: {error}")),
    });
    findings
}

fn no_cephfs(key: &str, path: &Path, error: &io::Error) -> Finding {
    let shown = path.display();
    if is_foreign(error) {
        Finding::problem(key, format!("what is at {shown} is no CephFS"))
            .cure("mount the CephFS there before the service starts, or name the backend \"vfs\"")
    } else {
        Finding::problem(key, format!("CephFS does not tell the size of {shown}: {error}"))
            .cure("see that the cluster is healthy (ceph status), then mount the volume again")
    }
}

/// Only keys with the flag `p` may set limits ("CephFS client capabilities" in the Ceph documentation).
fn no_right(key: &str, path: &Path) -> Finding {
    let client = Client::of_mount(path);
    let (name, file_system) = (client.name(), client.file_system());
    let who = if client.is_known() { format!("the key {name}") } else { "the key of the mount".to_owned() };
    Finding::problem(key, format!("limits cannot be set: {who} has no flag \"p\" in its MDS capabilities")).cure(
        format!(
            "as the cluster's administrator: ceph auth caps {name} mon 'allow r' mds 'allow rwp' osd 'allow rw tag \
             cephfs data={file_system}' (it replaces what `ceph auth get {name}` shows; keep a path= that is there); \
             then mount the volume again. {}",
            client.hint()
        ),
    )
}

enum Enforced {
    Yes,
    No,
}

/// Makes a directory, limits it, and grows a file in it past the limit; leaves nothing behind. The directory is the
/// service's own, so a refusal is not for lack of permissions on it.
fn try_limit(attributes: &dyn Attributes, root: &Dir) -> io::Result<Enforced> {
    let name = name(&format!(".storage-agent-probe-{}", uuid::Uuid::new_v4().simple()))?;
    root.mkdir(&name, 0o700)?;
    let outcome = root.open_dir_nofollow(&RelPath::from(name.clone())).and_then(|dir| {
        attributes.set_limit(&dir, Limit::Bytes, TRIED)?;
        grow(&dir)
    });
    root.rmdir(&name)?;
    outcome
}

fn grow(dir: &Dir) -> io::Result<Enforced> {
    let name = name("probe")?;
    let grown = dir.create_new(&name, 0o600)?.set_len(TRIED + 1);
    dir.unlink(&name)?;
    match grown {
        Ok(()) => Ok(Enforced::No),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::DQUOT) => Ok(Enforced::Yes),
        Err(error) => Err(error),
    }
}

fn name(text: &str) -> io::Result<Name> {
    Name::new(text.as_bytes()).map_err(io::Error::other)
}

fn readable(bytes: u64) -> String {
    BinarySize::new(bytes).map_or_else(|_| format!("{bytes} bytes"), |size| size.to_string())
}
