//! Tasks by kind and state, counted when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::tasks::{Kind, Tasks};

const KINDS: [(Kind, &str); 3] =
    [(Kind::Delete, "delete"), (Kind::Clone, "clone"), (Kind::DeleteFiles, "delete-files")];
const STATES: [&str; 5] = ["queued", "running", "done", "failed", "cancelled"];

/// The collector. Ended tasks count as long as they are remembered.
pub struct TaskCount(pub Arc<Tasks>);

impl fmt::Debug for TaskCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskCount")
    }
}

impl Collector for TaskCount {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let tasks: Vec<_> =
            self.0.all().iter().map(|task| (task.subject.kind, task.state().word())).collect();
        let mut family =
            encoder.encode_descriptor("tasks", "Tasks by kind and state", None, MetricType::Gauge)?;
        for (kind, label) in KINDS {
            for state in STATES {
                let count = tasks.iter().filter(|task| **task == (kind, state)).count();
                let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&[("kind", label), ("state", state)])?)?;
            }
        }
        Ok(())
    }
}
