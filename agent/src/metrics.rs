//! What Prometheus may know: counts and durations under the prefix `storage_agent_`, in base units.
//!
//! No label takes a value that a stranger can choose: methods outside HTTP's own are `other`, statuses are classes,
//! volumes are those of the configuration. Figures of the process are read when they are asked for.

mod events;
mod process;
mod tasks;

use std::fmt::{self, Write as _};
use std::time::Duration;

use hyper::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use self::events::EventFigures;
pub use self::tasks::TaskCount;
use crate::listener::Requests;

/// The content type of [`Metrics::render`] (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds: JSON replies take milliseconds, transfers minutes.
const DURATIONS: [f64; 11] = [0.002, 0.01, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0];

/// Labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    api: &'static str,
    method: &'static str,
    status: &'static str,
}

/// The label of what is counted per listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: &'static str,
}

/// Labels of an upload that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabel {
    outcome: UploadEnd,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UploadEnd {
    /// All bytes are there and the file is in its place.
    Completed,
    /// The client ended it.
    Terminated,
    /// Nobody went on with it, and what there was of it was removed.
    Expired,
}

impl EncodeLabelValue for UploadEnd {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            UploadEnd::Completed => "completed",
            UploadEnd::Terminated => "terminated",
            UploadEnd::Expired => "expired",
        })
    }
}

/// The label of what is told per volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabel {
    volume: String,
}

/// Labels of limits that do not hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    volume: String,
    kind: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Requests that panicked.
    pub panics: Counter,
    /// Requests under way.
    pub under_way: Requests,
    requests: Family<RequestLabels, Counter>,
    durations: Family<ApiLabel, Histogram>,
    received: Family<ApiLabel, Counter>,
    sent: Family<ApiLabel, Counter>,
    open: Family<ApiLabel, Gauge>,
    wire_received: Family<ApiLabel, Counter>,
    wire_sent: Family<ApiLabel, Counter>,
    refused: Family<ApiLabel, Counter>,
    handshakes: Family<ApiLabel, Counter>,
    uploads_begun: Counter,
    uploads_ended: Family<UploadLabel, Counter>,
    ready: Family<VolumeLabel, Gauge>,
    drift: Family<DriftLabels, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::with_collectors(Vec::new())
    }
}

impl Metrics {
    /// Metrics that include what these collectors tell when asked.
    pub fn with_collectors(collectors: Vec<Box<dyn Collector>>) -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("storage_agent"),
            panics: Counter::default(),
            under_way: Requests::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            received: Family::default(),
            sent: Family::default(),
            open: Family::default(),
            wire_received: Family::default(),
            wire_sent: Family::default(),
            refused: Family::default(),
            handshakes: Family::default(),
            uploads_begun: Counter::default(),
            uploads_ended: Family::default(),
            ready: Family::default(),
            drift: Family::default(),
        };
        metrics.register();
        for collector in collectors {
            metrics.registry.register_collector(collector);
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "requests",
            "Requests by listener, method and class of status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to the end of its reply",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit("request_body", "Bodies received", Unit::Bytes, self.received.clone());
        registry.register_with_unit("reply_body", "Bodies sent", Unit::Bytes, self.sent.clone());
        registry.register(
            "request_panics",
            "Requests that ended in a defect of the program",
            self.panics.clone(),
        );
        registry.register("connections_open", "Connections at the moment", self.open.clone());
        registry.register_with_unit(
            "connections_received",
            "Everything received on connections that have ended",
            Unit::Bytes,
            self.wire_received.clone(),
        );
        registry.register_with_unit(
            "connections_sent",
            "Everything sent on connections that have ended",
            Unit::Bytes,
            self.wire_sent.clone(),
        );
        registry.register("connections_refused", "Connections refused at a limit", self.refused.clone());
        registry.register("tls_handshakes_failed", "TLS handshakes that failed", self.handshakes.clone());
        registry.register("uploads_started", "Upload sessions that were created", self.uploads_begun.clone());
        registry.register("uploads_finished", "Uploads that ended, by outcome", self.uploads_ended.clone());
        registry.register("volume_ready", "Whether the volume's directory can be opened", self.ready.clone());
        registry.register(
            "quota_drift",
            "Scopes and folders whose limits did not hold at the last look, by kind",
            self.drift.clone(),
        );
        crate::volume::array::metrics::register(registry);
        registry.register_collector(Box::new(process::Process));
    }

    /// Counts a request whose reply is over. No status: it never got one.
    pub fn request_done(
        &self,
        api: &'static str,
        method: &Method,
        status: Option<StatusCode>,
        duration: Duration,
        received: u64,
        sent: u64,
    ) {
        let labels = RequestLabels { api, method: method_label(method), status: class(status) };
        let api = ApiLabel { api };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&api).observe(duration.as_secs_f64());
        self.received.get_or_create(&api).inc_by(received);
        self.sent.get_or_create(&api).inc_by(sent);
    }

    /// Counts a connection as open until the value is dropped.
    pub fn connection_opened(&self, api: &'static str) -> OpenConnection {
        let gauge = self.open.get_or_create_owned(&ApiLabel { api });
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Counts the bytes of a connection that has ended, heads and TLS payload included.
    pub fn connection_done(&self, api: &'static str, received: u64, sent: u64) {
        self.wire_received.get_or_create(&ApiLabel { api }).inc_by(received);
        self.wire_sent.get_or_create(&ApiLabel { api }).inc_by(sent);
    }

    /// Counts a connection that was one too many.
    pub fn connection_refused(&self, api: &'static str) {
        self.refused.get_or_create(&ApiLabel { api }).inc();
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failed(&self, api: &'static str) {
        self.handshakes.get_or_create(&ApiLabel { api }).inc();
    }

    /// Counts an upload session that was created.
    pub fn upload_started(&self) {
        self.uploads_begun.inc();
    }

    /// Counts an upload that ended.
    pub fn upload_finished(&self, outcome: UploadEnd) {
        self.uploads_finished(outcome, 1);
    }

    /// Counts so many uploads that ended.
    pub fn uploads_finished(&self, outcome: UploadEnd, count: u64) {
        self.uploads_ended.get_or_create(&UploadLabel { outcome }).inc_by(count);
    }

    /// Says whether a volume's directory could be opened when it was last tried.
    pub fn volume_ready(&self, volume: &str, ready: bool) {
        self.ready.get_or_create(&VolumeLabel { volume: volume.to_owned() }).set(ready.into());
    }

    /// Says how many scopes and folders of a volume have limits that do not hold.
    pub fn quota_drift(&self, volume: &str, kind: &'static str, count: i64) {
        self.drift.get_or_create(&DriftLabels { volume: volume.to_owned(), kind }).set(count);
    }

    /// All figures as text. Reads a few files of `/proc`, which do not block.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One open connection.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: Option<StatusCode>) -> &'static str {
    match status.map_or(0, |status| status.as_u16() / 100) {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_prefix_base_units_and_an_end() {
        let metrics = Metrics::default();
        metrics.request_done("client", &Method::GET, Some(StatusCode::OK), Duration::from_millis(30), 5, 70);
        metrics.upload_finished(UploadEnd::Completed);
        metrics.volume_ready("local", true);
        let open = metrics.connection_opened("client");
        let text = metrics.render().unwrap();
        for line in [
            r#"storage_agent_requests_total{api="client",method="GET",status="2xx"} 1"#,
            r#"storage_agent_request_duration_seconds_bucket{le="0.05",api="client"} 1"#,
            r#"storage_agent_request_body_bytes_total{api="client"} 5"#,
            r#"storage_agent_reply_body_bytes_total{api="client"} 70"#,
            r#"storage_agent_connections_open{api="client"} 1"#,
            r#"storage_agent_uploads_finished_total{outcome="completed"} 1"#,
            r#"storage_agent_volume_ready{volume="local"} 1"#,
            concat!(r#"storage_agent_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop(open);
        assert!(metrics.render().unwrap().contains(r#"connections_open{api="client"} 0"#));
    }

    #[test]
    fn a_made_up_method_gives_no_label_of_its_own() {
        let metrics = Metrics::default();
        let method = Method::from_bytes(b"BREW-7").unwrap();
        metrics.request_done("client", &method, None, Duration::ZERO, 0, 0);
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"method="other",status="none""#) && !text.contains("BREW"));
    }
}
