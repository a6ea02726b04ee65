//! Routes about quota scopes, and the limits of single folders that managers of 22.03 and 22.09 set.
//!
//! `limit_files` and `used_files` are not in the reference proxy: a limit on the number of entries, where the backend
//! has one. Managers see them only where somebody has set such a limit.

use std::sync::Arc;

use common::id::QuotaScopeId;
use serde::Serialize;
use warp::http::StatusCode;

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::{empty_reply, json_reply};
use crate::app::App;
use crate::error::OpError;
use crate::volume::{EntryUsage, ScopeUsage, Volume, VolumeRef};

/// What may be said of a new limit; nothing is said of those that are missing.
#[derive(Clone, Copy)]
struct Limits {
    bytes: Option<u64>,
    files: Option<u64>,
}

fn scope(app: &App, mut params: Params) -> Result<(VolumeRef, QuotaScopeId, Limits), Problem> {
    let (volume, qsid) = (params.string("volume"), params.qsid("qsid"));
    let (bytes, files) = (params.size_in("options", "limit_bytes"), params.size_in("options", "limit_files"));
    let (Some(volume), Some(qsid), Some(bytes), Some(files), true) =
        (volume, qsid, bytes, files, params.is_right())
    else {
        return Err(params.problem());
    };
    Ok((app.volumes.get(&volume)?, qsid, Limits { bytes, files }))
}

/// Makes the scope where it is missing. Whether it was.
async fn make(volume: &Arc<Volume>, qsid: QuotaScopeId, limits: Limits) -> Result<bool, OpError> {
    let quota = &volume.backend.quota;
    let made = quota.create_scope(volume, &qsid, limits.bytes.filter(|bytes| *bytes > 0)).await?;
    if let (true, Some(files)) = (made, limits.files) {
        quota.set_entry_limit(volume, &qsid, files).await?;
    }
    Ok(made)
}

async fn must_exist(volume: &Arc<Volume>, scope: QuotaScopeId) -> Result<(), Problem> {
    Ok(volume.run(move |volume| volume.holder(Some(&scope)).map(drop)).await?)
}

/// `POST /quota-scope`.
pub(super) async fn create(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let (volume, qsid, limits) = scope(&app, params)?;
    if let VolumeRef::Real(volume) = volume
        && !make(&volume, qsid, limits).await?
    {
        return Err(OpError::ScopeExists(qsid).into());
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// The reply of `GET /quota-scope`.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    usage: ScopeUsage,
    #[serde(flatten)]
    entries: Option<EntryUsage>,
}

/// `GET /quota-scope`.
pub(super) async fn describe(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let (usage, entries) = match scope(&app, params)? {
        (VolumeRef::Noop, ..) => (ScopeUsage::default(), None),
        (VolumeRef::Real(volume), qsid, _) => {
            must_exist(&volume, qsid).await?;
            let quota = &volume.backend.quota;
            (quota.describe(&volume, &qsid).await?, quota.entry_usage(&volume, &qsid).await?)
        }
    };
    json_reply(StatusCode::OK, &Described { usage, entries })
}

/// `PATCH /quota-scope`: makes the scope too, where it is missing.
pub(super) async fn update(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    if !params.has_in("options", "limit_files") && params.require_in("options", "limit_bytes").is_none() {
        return Err(params.problem());
    }
    let (volume, qsid, limits) = scope(&app, params)?;
    if let VolumeRef::Real(volume) = volume
        && !make(&volume, qsid, limits).await?
    {
        let quota = &volume.backend.quota;
        if let Some(bytes) = limits.bytes {
            quota.set_limit(&volume, &qsid, bytes).await?;
        }
        if let Some(files) = limits.files {
            quota.set_entry_limit(&volume, &qsid, files).await?;
        }
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `DELETE /quota-scope/quota`: lifts the limit, keeps the scope.
pub(super) async fn unset(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    if let (VolumeRef::Real(volume), qsid, _) = scope(&app, params)? {
        must_exist(&volume, qsid).await?;
        volume.backend.quota.unset_limit(&volume, &qsid).await?;
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `DELETE /quota-scope`, which no manager calls yet: removes a scope without folders, for owners who are gone.
pub(super) async fn remove(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    if let (VolumeRef::Real(volume), qsid, _) = scope(&app, params)? {
        volume.backend.quota.remove_scope(&volume, &qsid).await?;
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// Limits of single scoped folders were given up with quota scopes.
fn deprecated(operation: &str) -> Problem {
    let msg = format!("{operation} (for individual vfolder) is a deprecated API");
    Problem::new(StatusCode::BAD_REQUEST, "storage/invalid-api-params", "Invalid API parameters").msg(msg)
}

/// `GET /volume/quota`.
pub(super) async fn folder_limit(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (name, id) = (params.string("volume"), params.optional_vfid("vfid"));
    let (Some(name), Some(id)) = (name, id) else { return Err(params.problem()) };
    let volume = app.volumes.get(&name)?;
    if id.is_some_and(|id| !id.is_bare()) {
        return Err(deprecated("get_quota"));
    }
    let limit = match volume {
        VolumeRef::Noop => 0,
        VolumeRef::Real(volume) => volume.backend.quota.folder_limit(&volume, id.as_ref()).await?,
    };
    json_reply(StatusCode::OK, &limit)
}

/// `PATCH /volume/quota`. Only where the volume itself has a limit may the folder be missing.
pub(super) async fn set_folder_limit(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (name, limit) = (params.string("volume"), params.size("size_bytes"));
    let volume = name.as_deref().map(|name| app.volumes.get(name));
    let limited = |volume: &Arc<Volume>| volume.backend.capabilities.contains(&"vfhost-quota");
    let id = match &volume {
        Some(Ok(VolumeRef::Real(volume))) if limited(volume) => params.optional_vfid("vfid"),
        _ => params.vfid("vfid").map(Some),
    };
    let (Some(volume), Some(id), Some(limit)) = (volume, id, limit) else { return Err(params.problem()) };
    let volume = volume?;
    if id.is_some_and(|id| !id.is_bare()) {
        return Err(deprecated("set_quota"));
    }
    match (volume, id) {
        (VolumeRef::Noop, _) => {}
        (VolumeRef::Real(volume), Some(id)) => {
            volume.backend.quota.set_folder_limit(&volume, &id, limit).await?;
        }
        (VolumeRef::Real(volume), None) => volume.backend.quota.set_volume_limit(&volume, limit).await?,
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}
