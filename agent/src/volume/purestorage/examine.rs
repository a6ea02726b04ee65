//! What `storage-agent check` finds out about a volume on FlashBlade.

use std::sync::Arc;

use async_trait::async_trait;

use super::blade::Blade;
use super::rapidfile::RapidFile;
use crate::finding::Finding;
use crate::jobs::blocking;
use crate::volume::array::finding;
use crate::volume::{Examine, Volume};

/// The examiner.
pub(super) struct Checks {
    pub(super) blade: Arc<Blade>,
    pub(super) toolkit: Arc<RapidFile>,
}

#[async_trait]
impl Examine for Checks {
    async fn examine(&self, volume: &Arc<Volume>, online: bool) -> Vec<Finding> {
        let subject = format!("volume.{}", volume.name);
        let toolkit = Arc::clone(&self.toolkit);
        let told = blocking(move || Ok(toolkit.described())).await;
        let mut findings = vec![Finding::note(&subject, told.unwrap_or_else(|error| error.to_string()))];
        if online {
            findings.extend(self.array(&subject).await);
        }
        findings
    }
}

impl Checks {
    async fn array(&self, subject: &str) -> Vec<Finding> {
        let served = match self.blade.versions().await {
            Ok(served) => served,
            Err(error) => return vec![finding(subject, &error)],
        };
        if let Some(wanted) = self.blade.wanted.as_ref().filter(|wanted| !served.contains(wanted)) {
            let shown = self.blade.client.tame(&served.join(", "));
            let problem = format!("purity_api_version is {wanted:?}, but the array serves {shown}");
            return vec![Finding::problem(subject, problem).cure("set purity_api_version to \"auto\"")];
        }
        let version = match self.blade.version().await {
            Ok(version) => version,
            Err(error) => return vec![finding(subject, &error)],
        };
        vec![match self.blade.file_system("find the file system").await {
            Ok(_) => Finding::ok(
                subject,
                format!("logged in by REST {version}; file system {:?} is there", self.blade.name),
            ),
            Err(error) => finding(subject, &error),
        }]
    }
}
