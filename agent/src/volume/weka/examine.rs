//! What `storage-agent check` finds out about a volume on Weka.

use std::sync::Arc;

use async_trait::async_trait;

use super::cluster::Cluster;
use crate::finding::Finding;
use crate::volume::array::{Call, Fields, finding};
use crate::volume::{Examine, Volume};

/// The examiner.
pub(super) struct Checks {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl Examine for Checks {
    async fn examine(&self, volume: &Arc<Volume>, online: bool) -> Vec<Finding> {
        let subject = format!("volume.{}", volume.name);
        if !online {
            return Vec::new();
        }
        let mut findings = match self.file_system(&subject).await {
            Ok(findings) => findings,
            Err(finding) => return vec![finding],
        };
        findings.push(self.release(&subject).await);
        findings.push(match self.cluster.quotas().await {
            Ok(quotas) => {
                Finding::ok(&subject, format!("the user can read quotas; there are {}", quotas.len()))
            }
            Err(error) => finding(&subject, &error),
        });
        findings
    }
}

impl Checks {
    async fn file_system(&self, subject: &str) -> Result<Vec<Finding>, Finding> {
        const READ: &str = "read the file system";
        let fs = self.cluster.file_system(READ).await.map_err(|error| finding(subject, &error))?;
        let fields = Fields::new(&self.cluster.client, READ, &fs);
        let status = fields.text("status").map_err(|error| finding(subject, &error))?;
        let told = format!("logged in; file system {:?} is {}", self.cluster.name, fields.tame(status));
        Ok(vec![if status == "READY" { Finding::ok(subject, told) } else { Finding::warning(subject, told) }])
    }

    async fn release(&self, subject: &str) -> Finding {
        const READ: &str = "read the release";
        match self.cluster.call(Call::get(READ, "/api/v2/cluster")).await {
            Ok(cluster) => {
                let fields = Fields::new(&self.cluster.client, READ, &cluster);
                let release = fields.raw("release").as_str().unwrap_or("unknown");
                Finding::ok(subject, format!("the release is Weka {}", fields.tame(release)))
            }
            Err(error) => finding(subject, &error),
        }
    }
}
