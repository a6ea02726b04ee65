//! What `storage-agent check` finds out about a volume on ONTAP.

use std::sync::Arc;

use async_trait::async_trait;

use super::ontap::Ontap;
use super::xcp::Xcp;
use crate::finding::Finding;
use crate::jobs::blocking;
use crate::volume::array::{ArrayError, Call, Fields, Kind, finding};
use crate::volume::{Examine, Volume};

/// The oldest release whose quota rules can be handled by REST without a known defect (9.8).
const OLDEST: (u64, u64) = (9, 8);

/// The examiner.
pub(super) struct Checks {
    pub(super) ontap: Arc<Ontap>,
    pub(super) xcp: Arc<Xcp>,
    pub(super) qtree: Option<String>,
}

#[async_trait]
impl Examine for Checks {
    async fn examine(&self, volume: &Arc<Volume>, online: bool) -> Vec<Finding> {
        let subject = format!("volume.{}", volume.name);
        let xcp = Arc::clone(&self.xcp);
        let told = blocking(move || Ok(xcp.described())).await;
        let mut findings = vec![Finding::note(&subject, told.unwrap_or_else(|error| error.to_string()))];
        if online {
            findings.extend(self.array(&subject).await);
        }
        findings
    }
}

impl Checks {
    async fn array(&self, subject: &str) -> Vec<Finding> {
        let place = match self.ontap.place().await {
            Ok(place) => place,
            Err(error) => return vec![finding(subject, &error)],
        };
        let mut findings = vec![Finding::ok(
            subject,
            format!("logged in; ONTAP volume {:?} of SVM {:?} is there", self.ontap.name, place.svm_name),
        )];
        findings.extend(self.release(subject).await);
        if place.junction.is_none() {
            let problem =
                format!("ONTAP volume {:?} has no junction path, so nobody can mount it", self.ontap.name);
            findings.push(Finding::warning(subject, problem).cure("mount it in the SVM's namespace"));
        }
        match self.rights().await {
            Ok(()) => {
                findings.push(Finding::ok(subject, "the account can read qtrees, quota rules and reports"))
            }
            Err(error) => findings.push(finding(subject, &error)),
        }
        findings.push(self.quota_state(subject).await);
        findings.extend(self.missing_qtree(subject).await);
        findings
    }

    /// An account of one SVM may not see the cluster; that is no mistake.
    async fn release(&self, subject: &str) -> Option<Finding> {
        let call = Call::get("read the release", "/api/cluster").query("fields", "version");
        let cluster = self.ontap.call(call).await.ok()?;
        let fields = Fields::new(&self.ontap.client, "read the release", &cluster);
        let release = (fields.count("version.generation").ok()??, fields.count("version.major").ok()??);
        let told = format!("the release is ONTAP {}.{}", release.0, release.1);
        if release >= OLDEST {
            return Some(Finding::ok(subject, told));
        }
        let cure = "update to 9.8 or later: before, many changes of quota rules in short time may be lost";
        Some(Finding::warning(subject, told).cure(cure))
    }

    async fn rights(&self) -> Result<(), ArrayError> {
        for (operation, path) in [
            ("list qtrees", "/api/storage/qtrees"),
            ("list quota rules", "/api/storage/quota/rules"),
            ("list quota reports", "/api/storage/quota/reports"),
            ("list jobs", "/api/cluster/jobs"),
        ] {
            self.ontap.call(Call::get(operation, path).query("max_records", "1")).await?;
        }
        Ok(())
    }

    async fn quota_state(&self, subject: &str) -> Finding {
        const READ: &str = "read the quota state";
        let volume = match self.ontap.volume(READ, "quota.state").await {
            Ok(volume) => volume,
            Err(error) => return finding(subject, &error),
        };
        match Fields::new(&self.ontap.client, READ, &volume).text("quota.state") {
            Ok("on" | "resizing") => Finding::ok(subject, "quotas are on"),
            Ok("off") if self.qtree.is_none() => {
                Finding::note(subject, "quotas are off; the first quota scope switches them on")
            }
            Ok("off") => Finding::warning(subject, "quotas are off: no limit is in force")
                .cure("make a tree rule for the qtree and switch the volume's quotas on"),
            Ok(state) => {
                let problem = format!("quotas are {}", self.ontap.client.tame(state));
                Finding::warning(subject, problem).cure("wait, or switch the volume's quotas off and on")
            }
            Err(error) => finding(subject, &error),
        }
    }

    async fn missing_qtree(&self, subject: &str) -> Option<Finding> {
        let qtree = self.qtree.as_ref()?;
        match self.ontap.qtree(qtree).await {
            Ok(Some(_)) => Some(Finding::ok(subject, format!("qtree {qtree:?} is there"))),
            Ok(None) => {
                let problem = format!("there is no qtree {qtree:?} in ONTAP volume {:?}", self.ontap.name);
                let error = self.ontap.client.error("find the qtree", Kind::Missing(problem));
                Some(
                    finding(subject, &error)
                        .cure("correct netapp_qtree_name, or make the qtree in System Manager"),
                )
            }
            Err(error) => Some(finding(subject, &error)),
        }
    }
}
