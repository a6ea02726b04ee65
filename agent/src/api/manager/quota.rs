//! Routes about quota scopes, and the limits of single folders that managers of 22.03 and 22.09 set.

use std::sync::Arc;

use common::id::QuotaScopeId;
use warp::http::StatusCode;

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::{empty_reply, json_reply};
use crate::app::{App, blocking};
use crate::error::OpError;
use crate::vfolder;
use crate::volume::{ScopeUsage, Volume, VolumeRef};

/// Makes a scope that is missing, with its limit. Whether it was missing.
pub(super) async fn ensure_scope(
    volume: &Arc<Volume>,
    scope: QuotaScopeId,
    limit: Option<u64>,
) -> Result<bool, Problem> {
    let at = Arc::clone(volume);
    let new = blocking(move || vfolder::create::scope_dir(&at, &scope)).await?;
    if new {
        volume.backend.quota.prepare(volume, &scope, limit.filter(|bytes| *bytes > 0)).await?;
    }
    Ok(new)
}

fn scope(app: &App, mut params: Params) -> Result<(VolumeRef, QuotaScopeId, Option<u64>), Problem> {
    let (volume, qsid) = (params.string("volume"), params.qsid("qsid"));
    let limit = params.size_in("options", "limit_bytes");
    let (Some(volume), Some(qsid), Some(limit), true) = (volume, qsid, limit, params.is_right()) else {
        return Err(params.problem());
    };
    Ok((app.volumes.get(&volume)?, qsid, limit))
}

async fn must_exist(volume: &Arc<Volume>, scope: QuotaScopeId) -> Result<(), Problem> {
    let volume = Arc::clone(volume);
    blocking(move || volume.holder(Some(&scope)).map(drop)).await
}

/// `POST /quota-scope`.
pub(super) async fn create(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let (volume, qsid, limit) = scope(&app, params)?;
    if let VolumeRef::Real(volume) = volume
        && !ensure_scope(&volume, qsid, limit).await?
    {
        return Err(OpError::ScopeExists(qsid).into());
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `GET /quota-scope`.
pub(super) async fn describe(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let usage = match scope(&app, params)? {
        (VolumeRef::Noop, ..) => ScopeUsage::default(),
        (VolumeRef::Real(volume), qsid, _) => {
            must_exist(&volume, qsid).await?;
            volume.backend.quota.describe(&volume, &qsid).await?
        }
    };
    json_reply(StatusCode::OK, &usage)
}

/// `PATCH /quota-scope`: makes the scope too, where it is missing.
pub(super) async fn update(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    if params.require_in("options", "limit_bytes").is_none() {
        return Err(params.problem());
    }
    let (volume, qsid, limit) = scope(&app, params)?;
    if let (VolumeRef::Real(volume), Some(limit)) = (volume, limit)
        && !ensure_scope(&volume, qsid, Some(limit)).await?
    {
        volume.backend.quota.set_limit(&volume, &qsid, limit).await?;
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

/// `PATCH /volume/quota`.
pub(super) async fn set_folder_limit(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (name, id, limit) = (params.string("volume"), params.vfid("vfid"), params.size("size_bytes"));
    let (Some(name), Some(id), Some(limit)) = (name, id, limit) else { return Err(params.problem()) };
    let volume = app.volumes.get(&name)?;
    if !id.is_bare() {
        return Err(deprecated("set_quota"));
    }
    if let VolumeRef::Real(volume) = volume {
        volume.backend.quota.set_folder_limit(&volume, &id, limit).await?;
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}
