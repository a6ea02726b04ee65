//! Figures of a Weka cluster: capacity of the file system, health and performance of the whole cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use super::cluster::Cluster;
use crate::error::OpError;
use crate::volume::array::{ArrayError, Call, Fields, Known, at, capacity_without, degraded};
use crate::volume::{Capacity, FsPerfMetric, Gauge, Hardware, Volume};

const STATISTICS: [&str; 6] =
    ["READS", "WRITES", "READ_BYTES", "WRITE_BYTES", "READ_LATENCY", "WRITE_LATENCY"];

/// The gauge.
pub(super) struct Figures {
    cluster: Arc<Cluster>,
    capacity: Known<Capacity>,
    facts: Known<BTreeMap<String, String>>,
}

impl Figures {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Figures { cluster, capacity: Known::default(), facts: Known::default() }
    }

    async fn read_capacity(&self) -> Result<Capacity, ArrayError> {
        const READ: &str = "read the capacity";
        let fs = self.cluster.file_system(READ).await?;
        let fields = Fields::new(&self.cluster.client, READ, &fs);
        let capacity = Capacity {
            capacity_bytes: fields.required_count("total_budget")?,
            used_bytes: fields.required_count("used_total")?,
        };
        self.capacity.keep(&capacity);
        Ok(capacity)
    }

    async fn read_health(&self) -> Result<Hardware, ArrayError> {
        const READ: &str = "read the health";
        let cluster = self.cluster.call(Call::get(READ, "/api/v2/cluster")).await?;
        let fields = Fields::new(&self.cluster.client, READ, &cluster);
        let troubles = troubles(&fields)?;
        let shown = ["name", "release", "status", "io_status", "capacity", "drives", "hosts"];
        let info: serde_json::Map<_, _> =
            shown.iter().map(|key| ((*key).to_owned(), fields.raw(key).clone())).collect();
        let metadata = BTreeMap::from([
            ("file_system".to_owned(), self.cluster.name.clone()),
            ("cluster_info".to_owned(), Value::Object(info).to_string()),
        ]);
        self.facts.keep(&metadata);
        let status = if troubles.is_empty() { "healthy" } else { "degraded" };
        let status_info = Some(troubles.join("; ")).filter(|info| !info.is_empty());
        Ok(Hardware { status, status_info, metadata })
    }
}

/// What is not as it should be.
fn troubles(fields: &Fields<'_>) -> Result<Vec<String>, ArrayError> {
    let mut troubles = Vec::new();
    for (path, right) in [("status", "OK"), ("io_status", "STARTED")] {
        let found = fields.text(path)?;
        if found != right {
            troubles.push(format!("the cluster's {path} is {}", fields.tame(found)));
        }
    }
    for (what, active, total) in [
        ("drives", "drives.active", "drives.total"),
        ("hosts", "hosts.backends.active", "hosts.backends.total"),
    ] {
        if let (Some(active), Some(total)) = (fields.count(active)?, fields.count(total)?)
            && active < total
        {
            troubles.push(format!("{active} of {total} {what} are active"));
        }
    }
    let unprotected = fields.list("rebuild.protectionState")?.iter().any(|state| {
        at(state, "numFailures").as_u64().unwrap_or(0) > 0 && at(state, "MiB").as_f64().unwrap_or(0.0) > 0.0
    });
    if unprotected {
        troubles.push("a part of the data has less protection than it should".to_owned());
    }
    Ok(troubles)
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
        Ok(self.read_health().await.unwrap_or_else(|error| degraded(&error, self.facts.last())))
    }

    async fn performance(&self, volume: &Arc<Volume>) -> Result<FsPerfMetric, OpError> {
        const READ: &str = "read the performance";
        let (start, end) = window(Timestamp::now())?;
        let call = Call::get(READ, "/api/v2/stats").query("start_time", start).query("end_time", end);
        let call = STATISTICS.iter().fold(call, |call, name| call.query("stat", format!("ops.{name}")));
        let answer = self.cluster.call(call).await?;
        let fields = Fields::new(&self.cluster.client, READ, &answer);
        let buckets = fields.list("all.ops")?;
        let full = |bucket: &&Value| !at(bucket, "stats.READS").is_null();
        let Some(bucket) = buckets.iter().rev().find(full) else {
            return Err(OpError::NoMetric(volume.name.clone()));
        };
        let fields = fields.of(bucket);
        Ok(FsPerfMetric {
            iops_read: fields.rounded("stats.READS")?,
            iops_write: fields.rounded("stats.WRITES")?,
            io_bytes_read: fields.rounded("stats.READ_BYTES")?,
            io_bytes_write: fields.rounded("stats.WRITE_BYTES")?,
            // Null while idle.
            io_usec_read: fields.figure("stats.READ_LATENCY")?,
            io_usec_write: fields.figure("stats.WRITE_LATENCY")?,
        })
    }
}

/// The two full minutes before this one, in ISO 8601.
fn window(now: Timestamp) -> Result<(String, String), OpError> {
    let minute = Timestamp::from_second(now.as_second() - now.as_second().rem_euclid(60));
    let end = minute.map_err(|_| OpError::Inside)?;
    let start = end.checked_sub(2.minutes()).map_err(|_| OpError::Inside)?;
    let text = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Ok((text(start), text(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::array::testing::fuzz;

    #[test]
    fn statistics_are_asked_for_in_full_minutes_of_utc() {
        let now = "2026-01-05T10:02:59.7Z".parse().unwrap();
        let window = window(now).unwrap();
        assert_eq!(window, ("2026-01-05T10:00:00Z".to_owned(), "2026-01-05T10:02:00Z".to_owned()));
    }

    #[test]
    fn fuzzed() {
        let build = |client| Figures::new(Arc::new(Cluster::new(client, "fs1".into(), false)));
        fuzz("weka", build, async |figures: &Figures| {
            vec![figures.cluster.quotas().await.err(), figures.cluster.quota(7).await.err()]
        });
    }
}
