//! Status, health and metrics: the routes that need no secret, for operators and their probes.
//!
//! `/livez` says whether this process should be restarted, `/readyz` whether it should get requests, `/health` how
//! it is. A volume that is gone makes the agent not ready, but a restart would not bring it back.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::http::{Method, StatusCode};

use super::problem::{Problem, Reply};
use super::routes::{Routes, json_reply, plain_route};
use crate::app::App;
use crate::fs;
use crate::health::Finding;
use crate::metrics;
use crate::sandbox::{self, Guard};

/// `/`, `/status`, `/health`, `/livez` and `/readyz`, for joining with other routes.
pub fn status_routes(app: &Arc<App>) -> Routes {
    Routes::new(vec![
        plain_route(app, Method::GET, "", status),
        plain_route(app, Method::GET, "status", status),
        plain_route(app, Method::GET, "health", health),
        plain_route(app, Method::GET, "livez", live),
        plain_route(app, Method::GET, "readyz", ready),
    ])
}

/// All that the internal listener serves: the status routes and `/metrics`.
pub fn internal_routes(app: &Arc<App>) -> Routes {
    status_routes(app).and(Routes::new(vec![plain_route(app, Method::GET, "metrics", scrape)]))
}

async fn status(_: Arc<App>) -> Result<Reply, Problem> {
    let held = sandbox::state();
    let openat2 = if fs::kernel_resolves() { Guard::On } else { Guard::Missing };
    let body = json!({
        "status": "ok",
        "type": "manager-facing",
        "storage-proxy": env!("CARGO_PKG_VERSION"),
        "sandbox": {
            "landlock": held.landlock.word(),
            "seccomp": held.seccomp.word(),
            "openat2": openat2.word(),
        },
    });
    json_reply(StatusCode::OK, &body)
}

async fn health(app: Arc<App>) -> Result<Reply, Problem> {
    report(StatusCode::OK, "degraded", &app.health.check(&app.metrics).await)
}

async fn live(_: Arc<App>) -> Result<Reply, Problem> {
    report(StatusCode::OK, "error", &[])
}

async fn ready(app: Arc<App>) -> Result<Reply, Problem> {
    report(StatusCode::SERVICE_UNAVAILABLE, "error", &app.health.check(&app.metrics).await)
}

/// The reply when all is well is 200 and `ok`; otherwise it has this status and word.
fn report(bad_status: StatusCode, bad: &str, findings: &[Finding]) -> Result<Reply, Problem> {
    let healthy = findings.iter().all(|finding| finding.error.is_none());
    let checks: Vec<_> = findings.iter().map(check).collect();
    let body = json!({
        "status": if healthy { "ok" } else { bad },
        "version": env!("CARGO_PKG_VERSION"),
        "component": "storage-proxy",
        "connectivity": {
            "overall_healthy": healthy,
            "connectivity_checks": checks,
            "timestamp": time(Timestamp::now()),
        },
    });
    let mut reply = json_reply(if healthy { StatusCode::OK } else { bad_status }, &body)?;
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

fn check(finding: &Finding) -> Value {
    json!({
        "service_group": "volume",
        "component_id": finding.volume,
        "is_healthy": finding.error.is_none(),
        "last_checked_at": time(finding.at),
        "error_message": finding.error,
    })
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

async fn scrape(app: Arc<App>) -> Result<Reply, Problem> {
    app.health.check(&app.metrics).await;
    let text =
        app.metrics.render().map_err(|_| Problem::internal("the metrics could not be written as text"))?;
    let mut reply = Reply::new(text.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(reply)
}
