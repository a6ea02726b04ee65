//! The manager-facing API: volumes, quota scopes, vfolders, files and tasks, behind a shared secret.
//!
//! Managers of four generations speak to it at once; what differs between them is decided per request in
//! `dialect`. Errors follow the rules of `api::problem`.

mod auth;
mod dialect;
mod files;
mod folders;
mod overview;
mod quota;
mod tasks;
mod tokens;
mod volumes;

use std::convert::Infallible;
use std::sync::Arc;

use warp::http::Method;
use warp::{Filter, Rejection};

use super::openapi;
use super::params::Params;
use super::problem::{Problem, Reply};
use super::routes::{Route, Routes, json_route, no_such_route, plain_route};
use crate::app::App;
use crate::volume::VolumeRef;
use common::id::VfolderId;

/// Every route: those of `public`, which need no secret, and those behind it.
pub fn routes(app: &Arc<App>, public: Routes) -> Routes {
    let secret = auth::required(app);
    let guarded =
        Routes::new(all(app)).wrapped(|filter| secret.clone().and(filter).recover(unknown).unify().boxed());
    public.and(Routes::new(vec![openapi::route(openapi::MANAGER)])).and(guarded)
}

/// Rejections behind the secret's check: a wrong secret, or no such route.
async fn unknown(rejection: Rejection) -> Result<Reply, Infallible> {
    Ok(auth::refusal(&rejection).unwrap_or_else(no_such_route).reply())
}

fn all(app: &Arc<App>) -> Vec<Route> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        json_route(app, post.clone(), "folder/file/list", files::list),
        json_route(app, post.clone(), "folder/file/mkdir", files::mkdir),
        json_route(app, post.clone(), "folder/file/rename", files::rename),
        json_route(app, post.clone(), "folder/file/move", files::relocate),
        json_route(app, post.clone(), "folder/file/fetch", files::fetch),
        json_route(app, post.clone(), "folder/file/delete", files::delete),
        json_route(app, post.clone(), "folder/file/delete-async", files::delete_async),
        json_route(app, post.clone(), "folder/file/upload", tokens::upload),
        json_route(app, post.clone(), "folder/file/download", tokens::download),
        json_route(app, post.clone(), "folder/file/archive-download-token", tokens::archive),
        json_route(app, post.clone(), "folder/file/download-archive", tokens::archive),
        json_route(app, post.clone(), "folder/create", folders::create),
        json_route(app, post.clone(), "folder/delete", folders::delete),
        json_route(app, post.clone(), "folder/clone", folders::clone),
        json_route(app, get.clone(), "folder/mount", folders::mount),
        json_route(app, get.clone(), "folder/usage", folders::usage),
        json_route(app, get.clone(), "folder/used-bytes", folders::used_bytes),
        json_route(app, get.clone(), "folder/fs-usage", volumes::fs_usage),
        json_route(app, get.clone(), "folder/metadata", folders::metadata),
        json_route(app, post.clone(), "folder/metadata", folders::set_metadata),
        plain_route(app, get.clone(), "volumes", volumes::list),
        json_route(app, get.clone(), "volume/hwinfo", volumes::hwinfo),
        json_route(app, get.clone(), "volume/performance-metric", volumes::performance_metric),
        json_route(app, get.clone(), "volume/quota", quota::folder_limit),
        json_route(app, patch.clone(), "volume/quota", quota::set_folder_limit),
        json_route(app, get.clone(), "quota-scope", quota::describe),
        json_route(app, post, "quota-scope", quota::create),
        json_route(app, patch, "quota-scope", quota::update),
        json_route(app, delete.clone(), "quota-scope", quota::remove),
        json_route(app, delete.clone(), "quota-scope/quota", quota::unset),
        plain_route(app, get.clone(), "overview", overview::overview),
        plain_route(app, get, "tasks", tasks::list),
        tasks::one(app),
        tasks::cancel(app),
    ]
}

/// The volume and the vfolder that most requests name.
struct Target {
    volume: VolumeRef,
    id: VfolderId,
    /// The id as the manager wrote it: events must repeat it.
    vfid: String,
}

/// Reads `volume` and `vfid`; mistakes are noted in `params`.
fn target(params: &mut Params) -> Option<(String, VfolderId, String)> {
    let (volume, id) = (params.string("volume"), params.vfid("vfid"));
    let vfid = params.string("vfid");
    Some((volume?, id?, vfid?))
}

impl Target {
    fn find(app: &App, (volume, id, vfid): (String, VfolderId, String)) -> Result<Self, Problem> {
        Ok(Target { volume: app.volumes.get(&volume)?, id, vfid })
    }
}
