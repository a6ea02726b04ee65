//! Routes about whole volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use warp::http::StatusCode;

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::json_reply;
use crate::app::App;
use crate::volume::{Capacity, FsPerfMetric, Hardware, VolumeRef};

/// `GET /volumes`: from memory, since every listing of hosts calls it.
pub(super) async fn list(app: Arc<App>) -> Result<Reply, Problem> {
    let volumes: Vec<Value> = app
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "name": volume.name,
                "backend": volume.backend.name,
                "path": volume.path.to_string_lossy(),
                "fsprefix": volume.fsprefix,
                "capabilities": volume.backend.capabilities,
            })
        })
        .collect();
    json_reply(StatusCode::OK, &json!({ "volumes": volumes }))
}

fn volume(app: &App, mut params: Params) -> Result<VolumeRef, Problem> {
    let Some(name) = params.string("volume") else { return Err(params.problem()) };
    Ok(app.volumes.get(&name)?)
}

/// `GET /volume/hwinfo`.
pub(super) async fn hwinfo(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let hardware = match volume(&app, params)? {
        VolumeRef::Noop => Hardware { status: "healthy", status_info: None, metadata: BTreeMap::new() },
        VolumeRef::Real(volume) => volume.backend.gauge.hardware(&volume).await?,
    };
    json_reply(StatusCode::OK, &hardware)
}

/// `GET /volume/performance-metric`.
pub(super) async fn performance_metric(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let metric = match volume(&app, params)? {
        VolumeRef::Noop => FsPerfMetric::default(),
        VolumeRef::Real(volume) => volume.backend.gauge.performance(&volume).await?,
    };
    let observed_at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string();
    json_reply(StatusCode::OK, &json!({ "metric": metric, "observed_at": observed_at }))
}

/// `GET /folder/fs-usage`.
pub(super) async fn fs_usage(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let capacity = match volume(&app, params)? {
        VolumeRef::Noop => Capacity { capacity_bytes: 0, used_bytes: 0 },
        VolumeRef::Real(volume) => volume.backend.gauge.capacity(&volume).await?,
    };
    json_reply(StatusCode::OK, &capacity)
}
