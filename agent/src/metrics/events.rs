//! What managers are still to be told, counted when somebody asks. Nothing where nothing is published.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::events::Outbox;

/// The collector.
pub struct EventFigures(pub Option<Arc<Outbox>>);

impl fmt::Debug for EventFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventFigures")
    }
}

impl Collector for EventFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(outbox) = &self.0 else { return Ok(()) };
        let figures = outbox.figures();
        let mut gauge = |name, help, unit: Option<&Unit>, value: f64| {
            let family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(family)
        };
        let pending = "Ended tasks that managers have not been told of";
        gauge("events_pending", pending, None, figures.pending as f64)?;
        let oldest = "How long the oldest of them has been waiting";
        gauge("events_oldest", oldest, Some(&Unit::Seconds), figures.oldest.as_secs_f64())?;
        let connected = "Whether Valkey could be reached when it was last needed";
        gauge("events_connected", connected, None, f64::from(u8::from(figures.connected)))?;
        let mut counter = |name, help, value| {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(family)
        };
        counter("events_published", "Ended tasks that managers were told of", figures.published)?;
        counter("events_dropped", "Ended tasks that managers will not be told of", figures.dropped)
    }
}
