//! `GET /overview`: what the agent is doing at the moment, for operators (`storage-agent top`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use warp::http::StatusCode;

use super::super::problem::{Problem, Reply};
use super::super::routes::json_reply;
use super::tasks::shown;
use crate::app::App;
use crate::listener::UnderWay;
use crate::logging::{self, Complaint};
use crate::sandbox;
use crate::tasks::Task;
use crate::volume::Volume;

/// How long a volume may take to tell its capacity.
const PATIENCE: Duration = Duration::from_secs(2);
/// Ended tasks that are shown with those that have not ended.
const ENDED: usize = 5;

pub(super) async fn overview(app: Arc<App>) -> Result<Reply, Problem> {
    let findings = app.health.check(&app.metrics).await;
    let measured = futures_util::future::join_all(app.volumes.iter().map(capacity)).await;
    let volumes: Vec<Value> = app
        .volumes
        .iter()
        .zip(measured)
        .map(|(volume, capacity)| {
            let finding = findings.iter().find(|finding| finding.volume == volume.name);
            let error = finding.and_then(|finding| finding.error.as_deref());
            json!({
                "name": volume.name,
                "backend": volume.backend.name,
                "ready": error.is_none(),
                "error": error,
                "capacity_bytes": capacity.map(|(all, _)| all),
                "used_bytes": capacity.map(|(_, used)| used),
            })
        })
        .collect();
    let transfers: Vec<Value> =
        app.metrics.under_way.list().iter().filter(|request| request.api == "client").map(transfer).collect();
    let tasks: Vec<Value> = of_interest(app.tasks.all()).iter().map(|task| shown(task)).collect();
    let complaints: Vec<Value> = logging::recent().iter().map(complaint).collect();
    let held = sandbox::state();
    let body = json!({
        "storage-proxy": env!("CARGO_PKG_VERSION"),
        "sandbox": { "landlock": held.landlock.word(), "seccomp": held.seccomp.word() },
        "volumes": volumes,
        "transfers": transfers,
        "tasks": tasks,
        "errors": complaints,
    });
    json_reply(StatusCode::OK, &body)
}

/// All and used, in bytes; nothing where the volume does not tell in time.
async fn capacity(volume: &Arc<Volume>) -> Option<(u64, u64)> {
    let asked = tokio::time::timeout(PATIENCE, volume.backend.gauge.capacity(volume));
    let capacity = asked.await.ok()?.ok()?;
    Some((capacity.capacity_bytes, capacity.used_bytes))
}

/// What has not ended, and the last that did; the oldest first.
fn of_interest(mut tasks: Vec<Arc<Task>>) -> Vec<Arc<Task>> {
    tasks.sort_by_key(|task| task.created);
    let ended = tasks.iter().filter(|task| task.state().is_final()).count();
    let mut left_out = ended.saturating_sub(ENDED);
    tasks.retain(|task| {
        let out = left_out > 0 && task.state().is_final();
        left_out -= usize::from(out);
        !out
    });
    tasks
}

fn transfer(request: &UnderWay) -> Value {
    json!({
        "request_id": &*request.request_id,
        "method": request.method,
        "path": request.path,
        "peer": request.peer.to_string(),
        "seconds": request.age.as_secs_f64(),
        "received_bytes": request.received,
        "sent_bytes": request.sent,
    })
}

fn complaint(complaint: &Complaint) -> Value {
    json!({
        "at": complaint.at.to_string(),
        "level": if complaint.is_error { "error" } else { "warning" },
        "message": complaint.text,
    })
}
