//! What `storage-agent check` says of an XFS volume.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use common::protocol::{Reply, Request};

use super::super::{Examine, Volume};
use super::helper::Helper;
use crate::finding::Finding;
use crate::fs::project;

/// Asks the helper and the file system.
pub(super) struct Xfs {
    pub(super) helper: Arc<Helper>,
}

#[async_trait]
impl Examine for Xfs {
    async fn examine(&self, volume: &Arc<Volume>, _: bool) -> Vec<Finding> {
        let key = format!("volume.{}.backend", volume.name);
        vec![file_system(&key, volume), self.helper(&key, volume).await, user_namespace(&key)]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Xfs {
    async fn helper(&self, key: &str, volume: &Volume) -> Option<Finding> {
        let status = match self.helper.ask(Request::Status).await {
            Ok(Reply::Status(status)) => status,
            Ok(_) => return Some(Finding::problem(key, "the quota helper answered another question")),
            Err(error) => {
                return Some(Finding::problem(key, error.to_string()).cure(
                    "without the helper volumes are served and limits hold, but no limit can be made or changed",
                ));
            }
        };
        let known = status.volumes.iter().find(|known| known.volume.as_str() == volume.name);
        Some(match known.map(|known| &known.problem) {
            Some(None) => Finding::ok(key, format!("the quota helper {} serves it", status.version)),
            Some(Some(problem)) => Finding::problem(key, format!("the quota helper says: {problem}")),
            None => Finding::problem(key, "the quota helper does not know this volume").cure(format!(
                "add the line \"volume {} {}\" to its quota-helper.conf and restart quota-helper.service",
                volume.name,
                volume.path.display()
            )),
        })
    }
}

fn file_system(key: &str, volume: &Volume) -> Option<Finding> {
    let root = volume.root().ok()?;
    match project(&root) {
        Ok(Some(_)) => None,
        _ => Some(
            Finding::problem(key, "the volume's file system has no projects")
                .cure("mount an XFS with the option pquota there, or use backend = \"vfs\""),
        ),
    }
}

/// In a user namespace the kernel lets nobody change a project (fs/ioctl.c, fileattr_set_prepare).
fn user_namespace(key: &str) -> Option<Finding> {
    // The initial one has this inode number (include/linux/proc_ns.h).
    const INITIAL: u64 = 0xEFFF_FFFD;
    let own = std::fs::metadata("/proc/self/ns/user").ok()?.ino();
    (own != INITIAL).then(|| {
        Finding::problem(key, "the agent runs in a user namespace, where no directory can get a project")
            .cure("run it without PrivateUsers= and outside of rootless containers")
    })
}
