//! Figures of an ONTAP volume: capacity, health, performance.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::ontap::Ontap;
use crate::error::OpError;
use crate::volume::array::{ArrayError, Fields, Kind, Known, capacity_without, degraded};
use crate::volume::{Capacity, FsPerfMetric, Gauge, Hardware, Volume};

const CAPACITY: &str = "read the capacity";
const HEALTH: &str = "read the health";
const PERFORMANCE: &str = "read the performance";

/// The gauge. With a qtree that is the volume, its quota counts.
pub(super) struct Figures {
    ontap: Arc<Ontap>,
    qtree: Option<String>,
    capacity: Known<Capacity>,
    facts: Known<BTreeMap<String, String>>,
}

impl Figures {
    pub(super) fn new(ontap: Arc<Ontap>, qtree: Option<String>) -> Self {
        Figures { ontap, qtree, capacity: Known::default(), facts: Known::default() }
    }

    async fn read_capacity(&self) -> Result<Capacity, ArrayError> {
        let volume = self.ontap.volume(CAPACITY, "space.size,space.used").await?;
        let fields = Fields::new(&self.ontap.client, CAPACITY, &volume);
        let mut capacity = Capacity {
            capacity_bytes: fields.required_count("space.size")?,
            used_bytes: fields.required_count("space.used")?,
        };
        if let Some(qtree) = &self.qtree {
            // The report tells limit and use; while quotas are off the rule still tells the limit.
            let (report, rule) = (self.ontap.report(qtree).await?, self.ontap.rule(qtree).await?);
            let limit = rule.and_then(|rule| rule.limit).or(report.and_then(|report| report.limit));
            capacity.capacity_bytes = limit.unwrap_or(capacity.capacity_bytes);
            capacity.used_bytes = report.and_then(|report| report.used).unwrap_or(capacity.used_bytes);
        }
        self.capacity.keep(&capacity);
        Ok(capacity)
    }

    async fn read_facts(&self) -> Result<(Hardware, BTreeMap<String, String>), ArrayError> {
        let wanted = "state,nas.path,svm,files,quota.state,space.size,space.used";
        let volume = self.ontap.volume(HEALTH, wanted).await?;
        let fields = Fields::new(&self.ontap.client, HEALTH, &volume);
        let (state, quota) = (fields.text("state")?, fields.raw("quota.state").as_str().unwrap_or("unknown"));
        let mut facts = BTreeMap::from([
            ("volume".to_owned(), self.ontap.name.clone()),
            ("state".to_owned(), self.ontap.client.tame(state)),
            ("quota".to_owned(), json!({"state": quota}).to_string()),
            ("files".to_owned(), fields.raw("files").to_string()),
            ("space".to_owned(), fields.raw("space").to_string()),
            ("svm".to_owned(), fields.raw("svm.name").as_str().unwrap_or_default().to_owned()),
            ("path".to_owned(), fields.raw("nas.path").as_str().unwrap_or_default().to_owned()),
        ]);
        if let Some(qtree) = &self.qtree {
            if self.ontap.qtree(qtree).await?.is_none() {
                let problem = format!(
                    "there is no qtree {qtree:?} in ONTAP volume {:?}; netapp_qtree_name must be its name in System Manager",
                    self.ontap.name
                );
                return Err(self.ontap.client.error(HEALTH, Kind::Missing(problem)));
            }
            facts.insert("qtree".into(), qtree.clone());
            facts.insert("quota".into(), self.qtree_quota(qtree, quota).await?.to_string());
        }
        let status_info = match (state, quota) {
            ("online", "corrupt" | "mixed") => Some(format!("the volume's quotas are {quota}")),
            ("online", _) => None,
            (state, _) => Some(format!("the volume is {}", self.ontap.client.tame(state))),
        };
        let status = if status_info.is_none() { "healthy" } else { "degraded" };
        Ok((Hardware { status, status_info, metadata: facts.clone() }, facts))
    }

    async fn qtree_quota(&self, qtree: &str, state: &str) -> Result<Value, ArrayError> {
        let rule = self.ontap.rule(qtree).await?;
        let limit = rule.and_then(|rule| rule.limit);
        let used = self.ontap.report(qtree).await?.and_then(|report| report.used);
        Ok(json!({"state": state, "space": {"hard_limit": limit, "used": used}}))
    }
}

#[async_trait]
impl Gauge for Figures {
    async fn capacity(&self, volume: &Arc<Volume>) -> Result<Capacity, OpError> {
        match self.read_capacity().await {
            Ok(capacity) => Ok(capacity),
            Err(error) => capacity_without(&error, self.capacity.last(), volume).await,
        }
    }

    async fn hardware(&self, _: &Arc<Volume>) -> Result<Hardware, OpError> {
        match self.read_facts().await {
            Ok((hardware, facts)) => {
                self.facts.keep(&facts);
                Ok(hardware)
            }
            Err(error) => Ok(degraded(&error, self.facts.last())),
        }
    }

    async fn performance(&self, volume: &Arc<Volume>) -> Result<FsPerfMetric, OpError> {
        let answer = self.ontap.volume(PERFORMANCE, "metric").await?;
        let fields = Fields::new(&self.ontap.client, PERFORMANCE, &answer);
        if fields.raw("metric").is_null() {
            return Err(OpError::NoMetric(volume.name.clone()));
        }
        match fields.text("metric.status")? {
            "ok" | "backfilled_data" => {}
            status => {
                let status = self.ontap.client.tame(status);
                tracing::warn!(
                    volume = volume.name,
                    status,
                    "the array has no sound performance figures now"
                );
                return Ok(FsPerfMetric::default());
            }
        }
        Ok(FsPerfMetric {
            iops_read: fields.rounded("metric.iops.read")?,
            iops_write: fields.rounded("metric.iops.write")?,
            io_bytes_read: fields.rounded("metric.throughput.read")?,
            io_bytes_write: fields.rounded("metric.throughput.write")?,
            io_usec_read: fields.figure("metric.latency.read")?,
            io_usec_write: fields.figure("metric.latency.write")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::array::testing::fuzz;

    #[test]
    fn fuzzed() {
        let build = |client| {
            let ontap = Ontap::new(client, "vol1".into(), None, std::time::Duration::from_secs(1));
            Figures::new(Arc::new(ontap), Some("q1".into()))
        };
        fuzz("netapp", build, async |figures: &Figures| {
            vec![figures.ontap.all_reports().await.err(), figures.ontap.place().await.err()]
        });
    }
}
