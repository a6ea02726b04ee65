//! Calls to arrays, counted and timed. They belong to the process like the connections do, so that whoever makes a call
//! needs no handle to count it.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds: most calls take milliseconds, the longest allowed a few tens of seconds.
const DURATIONS: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    volume: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabel {
    volume: String,
}

struct Calls {
    requests: Family<CallLabels, Counter>,
    durations: Family<VolumeLabel, Histogram>,
}

static CALLS: LazyLock<Calls> = LazyLock::new(|| Calls {
    requests: Family::default(),
    durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
});

/// Lets a registry show them.
pub(crate) fn register(registry: &mut Registry) {
    registry.register(
        "array_requests",
        "Requests to arrays by volume, what for, and outcome",
        CALLS.requests.clone(),
    );
    registry.register_with_unit(
        "array_request_duration",
        "Time from a request to an array to the end of its reply",
        Unit::Seconds,
        CALLS.durations.clone(),
    );
}

/// Counts one request; its repetitions count each.
pub(super) fn count(volume: &str, operation: &'static str, outcome: &'static str, took: Duration) {
    let labels = CallLabels { volume: volume.to_owned(), operation, outcome };
    CALLS.requests.get_or_create(&labels).inc();
    let labels = VolumeLabel { volume: volume.to_owned() };
    CALLS.durations.get_or_create(&labels).observe(took.as_secs_f64());
}
