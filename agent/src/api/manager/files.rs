//! Routes about the files of a vfolder.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use uuid::Uuid;
use warp::Reply as _;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::{empty_reply, json_reply};
use super::{Target, target};
use crate::api::body::{FileRange, OpenFile, file_reply};
use crate::app::App;
use crate::error::OpError;
use crate::fs::{Dir, RelPath};
use crate::tasks::journal::Record;
use crate::tasks::{Kind, Subject, work};
use crate::tree::Control;
use crate::vfolder::{files, listing};
use crate::volume::{Volume, VolumeRef};

/// Managers send at most this many directories at once.
const MKDIR_MOST: usize = 50;

/// Paths of one deletion; the body's size bounds them further.
const DELETE_MOST: usize = 1_000_000;

/// Runs file work inside the vfolder that the request names; `noop` is the result on the volume that does nothing.
async fn within<T, F>(app: &App, named: Named, noop: T, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(&Volume, &Dir) -> Result<T, OpError> + Send + 'static,
{
    let Target { volume, id, .. } = Target::find(app, named)?;
    match volume {
        VolumeRef::Noop => Ok(noop),
        VolumeRef::Real(volume) => Ok(volume.run(move |volume| work(volume, &volume.vfolder(&id)?)).await?),
    }
}

type Named = (String, common::id::VfolderId, String);

/// `POST /folder/file/list`.
pub(super) async fn list(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, path) = (target(&mut params), params.relpath("relpath"));
    let (Some(named), Some(path)) = (named, path) else { return Err(params.problem()) };
    let limit = app.config().storage_proxy.scandir_limit.map_or(0, |most| most.get() as u64);
    let noop = vec![Bytes::from_static(b"{\"items\":[]}")];
    let pieces = within(&app, named, noop, move |_, folder| listing::json(folder, &path, limit)).await?;
    Ok(pieces_reply(pieces))
}

fn pieces_reply(pieces: Vec<Bytes>) -> Reply {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let body = stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    let mut reply = warp::reply::stream(body).into_response();
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    reply
}

/// `POST /folder/file/mkdir`: each path for itself.
pub(super) async fn mkdir(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let single = params.is_string("relpath");
    let (named, paths) = (target(&mut params), params.relpaths("relpath", MKDIR_MOST, true));
    let (parents, exist_ok) = (params.bool_or("parents", true), params.bool_or("exist_ok", false));
    let (Some(named), Some(paths), Some(parents), Some(exist_ok)) = (named, paths, parents, exist_ok) else {
        return Err(params.problem());
    };
    let legacy = single && named.1.is_bare();
    let noop = paths.iter().map(|path| (path.to_string(), Ok(()))).collect();
    let outcomes = within(&app, named, noop, move |_, folder| {
        Ok(paths
            .iter()
            .map(|path| (path.to_string(), files::mkdir(folder, path, parents, exist_ok)))
            .collect())
    });
    mkdir_reply(outcomes.await?, legacy)
}

fn mkdir_reply(outcomes: Vec<(String, Result<(), OpError>)>, legacy: bool) -> Result<Reply, Problem> {
    let (mut success, mut failed, mut last) = (Vec::new(), Vec::new(), None);
    for (item, outcome) in outcomes {
        match outcome {
            Ok(()) => success.push(json!({ "msg": null, "item": item })),
            Err(error) => {
                failed.push(json!({ "msg": error.to_string(), "item": item }));
                last = Some(error);
            }
        }
    }
    let some_made = !success.is_empty();
    let results = json!({ "success": success, "failed": failed });
    match last {
        None => json_reply(StatusCode::OK, &json!({ "results": results })),
        Some(_) if some_made => json_reply(StatusCode::MULTI_STATUS, &json!({ "results": results })),
        // Managers before 24.03 know no list of results.
        Some(error) if legacy => Err(error.into()),
        Some(error) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "storage/fs/failed",
            "Filesystem Operation Failed",
        )
        .code("vfolder_access_invalid-parameters")
        .msg(error.to_string())
        .extra("results", results)),
    }
}

/// `POST /folder/file/rename`: within the parent directory.
pub(super) async fn rename(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let threads = app.config().limits.tree_parallelism;
    let (named, path, name) = (target(&mut params), params.relpath("relpath"), params.name("new_name"));
    let (Some(named), Some(path), Some(name)) = (named, path, name) else { return Err(params.problem()) };
    within(&app, named, (), move |_, folder| {
        let parent = path.split_last().map_or_else(RelPath::root, |(parent, _)| parent);
        let to = parent.child(&name).map_err(|e| OpError::path(name.as_bytes(), &e))?;
        files::rename(folder, &path, &to, threads)
    })
    .await?;
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `POST /folder/file/move`.
pub(super) async fn relocate(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let threads = app.config().limits.tree_parallelism;
    let (named, from, to) =
        (target(&mut params), params.relpath("src_relpath"), params.relpath("dst_relpath"));
    let (Some(named), Some(from), Some(to)) = (named, from, to) else { return Err(params.problem()) };
    within(&app, named, (), move |_, folder| files::rename(folder, &from, &to, threads)).await?;
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `POST /folder/file/fetch`: a file's bytes.
pub(super) async fn fetch(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, path) = (target(&mut params), params.relpath("relpath"));
    let (Some(named), Some(path)) = (named, path) else { return Err(params.problem()) };
    let volume = app.volumes.real(&named.0).ok();
    let opened = within(&app, named, None, move |_, folder| {
        folder.open_file(&path).map(Some).map_err(|e| OpError::fs(e, &path))
    });
    let opened = opened.await.map_err(|problem| match problem.is_missing_file() {
        true => Problem::new(StatusCode::NOT_FOUND, "storage/file-not-found", "File not found")
            .code("vfolder_read_not-found")
            .msg("No such file or directory"),
        false => problem,
    })?;
    let mut reply = match opened {
        Some((file, stat)) => {
            let open = OpenFile { file: Arc::new(file), volume };
            file_reply(open, FileRange { start: 0, length: stat.size }, None)
        }
        None => Reply::default(),
    };
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(reply)
}

/// The parameters of both deletions.
fn deletion(mut params: Params) -> Result<(Named, Vec<RelPath>, bool), Problem> {
    let (named, paths) = (target(&mut params), params.relpaths("relpaths", DELETE_MOST, false));
    let recursive = params.bool_or("recursive", false);
    match (named, paths, recursive) {
        (Some(named), Some(paths), Some(recursive)) => Ok((named, paths, recursive)),
        _ => Err(params.problem()),
    }
}

/// `POST /folder/file/delete`.
pub(super) async fn delete(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let (named, paths, recursive) = deletion(params)?;
    let threads = app.config().limits.delete_parallelism;
    within(&app, named, (), move |volume, folder| {
        files::check_delete(folder, &paths, recursive)?;
        files::delete(&*volume.backend.trees, folder, &paths, &Control::new(), threads)
    })
    .await?;
    json_reply(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `POST /folder/file/delete-async`: checked now, done as a task.
pub(super) async fn delete_async(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let (named, paths, recursive) = deletion(params)?;
    let Target { volume, id, vfid } = Target::find(&app, named)?;
    let accepted = |id: Uuid| json_reply(StatusCode::ACCEPTED, &json!({ "bgtask_id": id }));
    let VolumeRef::Real(volume) = volume else { return accepted(Uuid::new_v4()) };
    let checked = paths.clone();
    volume.run(move |volume| files::check_delete(&volume.vfolder(&id)?, &checked, recursive)).await?;
    let subject = Subject { kind: Kind::DeleteFiles, volume: volume.name.clone(), vfid, target: None };
    let task = app.tasks.register(Uuid::new_v4(), subject)?;
    let threads = app.config().limits.delete_parallelism;
    let (keeping, kept) = (Arc::clone(&app), Arc::clone(&task));
    let filed = volume.run(move |volume| {
        let record = Record::new(Kind::DeleteFiles, &kept.subject.vfid);
        Ok::<_, OpError>(work::keep(&keeping, &kept, volume, id.scope(), record))
    });
    let filed = filed.await.inspect_err(|_| app.tasks.forget(&task))?;
    app.begin(&task, filed, move |task| {
        files::delete(&*volume.backend.trees, &volume.vfolder(&id)?, &paths, &task.control, threads)
    });
    accepted(task.id)
}
