//! Routes about whole vfolders: create, delete, clone, measure, mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use warp::http::StatusCode;

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::{empty_reply, json_reply};
use super::{Target, dialect, target};
use crate::app::App;
use crate::error::OpError;
use crate::fs::Dir;
use crate::tasks::work::{self, Claim};
use crate::tasks::{Kind, State, Subject, Task};
use crate::vfolder::delete::Hidden;
use crate::vfolder::measure::FolderUsage;
use crate::vfolder::{self, clone::Place};
use crate::volume::{NOOP, Trees, Volume, VolumeRef};

/// A repeated request within this time gets the same task: managers repeat what they got no reply to.
const REPEAT_WITHIN: Duration = Duration::from_secs(300);

/// `POST /folder/create`.
pub(super) async fn create(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, mode) = (target(&mut params), params.mode("mode"));
    let limit = params.size_in("options", "initial_max_size_for_quota_scope");
    let folder_limit = params.size_in("options", "quota");
    let (Some(named), Some(mode), Some(limit), Some(folder_limit)) = (named, mode, limit, folder_limit)
    else {
        return Err(params.problem());
    };
    let Target { volume, id, .. } = Target::find(&app, named)?;
    let VolumeRef::Real(volume) = volume else { return Ok(empty_reply(StatusCode::NO_CONTENT)) };
    if let Some(scope) = id.scope()
        && app.config().storage_proxy.allow_auto_quota_scope_creation
    {
        volume.backend.quota.create_scope(&volume, scope, limit.filter(|bytes| *bytes > 0)).await?;
    }
    volume.run(move |volume| vfolder::create::vfolder(volume, &id, mode)).await?;
    if let (true, Some(limit)) = (id.is_bare(), folder_limit) {
        match volume.backend.quota.set_folder_limit(&volume, &id, limit).await {
            // Plain volumes never had limits; old managers send the option nevertheless.
            Err(OpError::Unsupported { .. }) => {}
            outcome => outcome?,
        }
    }
    Ok(empty_reply(StatusCode::NO_CONTENT))
}

/// `POST /folder/delete`: gone from sight when the reply is sent, purged afterwards.
pub(super) async fn delete(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let Some(named) = target(&mut params) else { return Err(params.problem()) };
    let Target { volume, id, vfid } = Target::find(&app, named)?;
    let task_id = Uuid::new_v4();
    let subject = |volume: &str| Subject {
        kind: Kind::Delete,
        volume: volume.to_owned(),
        vfid: vfid.clone(),
        target: None,
    };
    let VolumeRef::Real(volume) = volume else {
        nothing_to_delete(&app, task_id, subject(NOOP)).await?;
        return dialect::folder_deleted(&id, task_id);
    };
    let task = Registered::new(&app, task_id, subject(&volume.name))?;
    app.warn_untold(&task.task.subject);
    // What is hidden is purged, also when a volume that hung lets that happen after the reply.
    let deletion = move |volume: &Arc<Volume>| {
        let purge = |filed| {
            move |app: &Arc<App>, task: &Arc<Task>| work::purge(app, task, filed, (Arc::clone(volume), id))
        };
        match vfolder::delete::hide(&task.app.marks, volume, &id, &vfid, task_id) {
            // A folder that is not there is deleted.
            Ok(Hidden::Missing) | Err(OpError::ScopeNotFound(_)) => {
                task.start(|app, task| work::nothing_to_do(app, task, volume, id.scope()));
            }
            Ok(Hidden::Noted(filed)) => task.start(purge(Some(filed))),
            Ok(Hidden::Unnoted) => task.start(purge(None)),
            Err(error) => return Err(error),
        }
        Ok(())
    };
    volume.run(deletion).await?;
    dialect::folder_deleted(&id, task_id)
}

/// Deletes a folder of the volume that does nothing. That it is done is kept on the first real volume until managers
/// know.
async fn nothing_to_delete(app: &Arc<App>, id: Uuid, subject: Subject) -> Result<(), OpError> {
    let (Some(_), Some(volume)) = (&app.outbox, app.volumes.iter().next()) else { return Ok(()) };
    let task = Registered::new(app, id, subject)?;
    let nothing = move |volume: &Arc<Volume>| {
        task.start(|app, task| work::nothing_to_do(app, task, volume, None));
        Ok(())
    };
    volume.run(nothing).await
}

/// `POST /folder/clone`.
pub(super) async fn clone(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (src_volume, src) = (params.string("src_volume"), params.vfid("src_vfid"));
    let (dst_volume, dst) = (params.optional_string("dst_volume"), params.vfid("dst_vfid"));
    let (src_vfid, dst_vfid) = (params.string("src_vfid"), params.string("dst_vfid"));
    let (Some(src_volume), Some(src), Some(dst_volume), Some(dst), Some(src_vfid), Some(dst_vfid)) =
        (src_volume, src, dst_volume, dst, src_vfid, dst_vfid)
    else {
        return Err(params.problem());
    };
    let dst_volume = dst_volume.unwrap_or_else(|| src_volume.clone());
    let (source, target) = match (app.volumes.get(&src_volume)?, app.volumes.get(&dst_volume)?) {
        (VolumeRef::Real(source), VolumeRef::Real(target)) => (source, target),
        _ => return json_reply(StatusCode::OK, &json!({ "bgtask_id": Uuid::new_v4() })),
    };
    let subject = Subject { kind: Kind::Clone, volume: dst_volume, vfid: src_vfid, target: Some(dst_vfid) };
    let wait = dialect::clone_wait(&app, &dst);
    if let Some(task) = app.tasks.same(&subject, REPEAT_WITHIN) {
        return target.unless_hanging(cloned(&task, wait)).await?;
    }
    let from = Arc::clone(&source);
    let check = target.run(move |target| {
        vfolder::clone::check(&Place { volume: &from, id: src }, &Place { volume: target, id: dst })
    });
    source.unless_hanging(check).await??;
    if let Some(scope) = dst.scope() {
        target.backend.quota.create_scope(&target, scope, None).await?;
    }
    let (from, here) = (Arc::clone(&source), Arc::clone(&app));
    // Whoever was told that nothing comes of the clone must not find it later.
    let still_asked = Arc::new(());
    let asked = Arc::downgrade(&still_asked);
    let recorded = target.run(move |target| {
        let (folder, id) = ((Arc::clone(target), dst), Uuid::new_v4());
        let filed = match work::record_clone(&here, id, &subject, &from, &folder)? {
            Claim::Others(other) => return Ok(other),
            Claim::Ours(filed) => filed,
        };
        if asked.upgrade().is_none() {
            return filed.remove().map(|()| id);
        }
        // Only now: nobody who asks for the same may wait for a task that turns out to be another's.
        match Registered::new(&here, id, subject) {
            Ok(task) => {
                here.warn_untold(&task.task.subject);
                task.start(|app, task| work::clone(app, task, filed, (from, src), folder));
            }
            Err(error) => {
                filed.remove()?;
                return Err(error);
            }
        }
        Ok::<_, OpError>(id)
    });
    let id = recorded.await?;
    drop(still_asked);
    let Some(task) = app.tasks.get(id) else {
        return answer(id, work::wait_for_other(&target, dst, id, wait).await?);
    };
    source.unless_hanging(target.unless_hanging(cloned(&task, wait))).await??
}

/// A task that is registered and, unless it is started, forgotten again.
struct Registered {
    app: Arc<App>,
    task: Arc<Task>,
    started: bool,
}

impl Registered {
    fn new(app: &Arc<App>, id: Uuid, subject: Subject) -> Result<Self, OpError> {
        Ok(Registered { app: Arc::clone(app), task: app.tasks.register(id, subject)?, started: false })
    }

    fn start(mut self, start: impl FnOnce(&Arc<App>, &Arc<Task>)) {
        start(&self.app, &self.task);
        self.started = true;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.started {
            self.app.tasks.forget(&self.task);
        }
    }
}

/// The reply to a clone, after waiting for it as long as the manager needs.
async fn cloned(task: &Task, wait: Option<Duration>) -> Result<Reply, Problem> {
    answer(task.id, task.wait(wait).await)
}

fn answer(id: Uuid, state: State) -> Result<Reply, Problem> {
    match state {
        State::Failed(message) => Err(Problem::internal(message)),
        State::Cancelled => Err(Problem::internal("the clone was cancelled")),
        _ => json_reply(StatusCode::OK, &json!({ "bgtask_id": id })),
    }
}

/// `GET /folder/mount`: the path that agents bind-mount. `subpath` is only checked.
pub(super) async fn mount(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, subpath) = (target(&mut params), params.relpath_or_root("subpath"));
    let (named, subpath) = match (named, subpath) {
        (Some(named), Some(subpath)) => (named, subpath),
        (Some((.., vfid)), None) => {
            let given = params.string("subpath");
            let problem = params.problem();
            return Err(match given {
                Some(given) => invalid_subpath(problem, vfid, given),
                None => problem,
            });
        }
        _ => return Err(params.problem()),
    };
    let Target { volume, id, vfid } = Target::find(&app, named)?;
    let VolumeRef::Real(volume) = volume else { return json_reply(StatusCode::OK, &json!({ "path": "." })) };
    let shown = subpath.to_string();
    let found = volume.run(move |volume| -> Result<PathBuf, OpError> {
        match volume.vfolder(&id)?.open_dir(&subpath).map_err(|e| OpError::fs(e, &subpath)) {
            Err(escape @ OpError::Subpath { .. }) => Err(escape),
            // A subpath that does not exist, or is a file, is the manager's to judge.
            _ => volume.absolute(&id),
        }
    });
    match found.await.map_err(Problem::from) {
        Ok(path) => json_reply(StatusCode::OK, &json!({ "path": path.to_string_lossy() })),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "storage/vfolder/not-found", "VFolder Not Found")
                .code("vfolder_read_not-found")
                .msg("VFolder not found")
                .extra("vfid", vfid))
        }
        Err(problem) if problem.status() == StatusCode::BAD_REQUEST => {
            Err(invalid_subpath(problem, vfid, shown))
        }
        Err(problem) => Err(problem),
    }
}

fn invalid_subpath(problem: Problem, vfid: String, subpath: String) -> Problem {
    problem.msg("Invalid vfolder subpath").extra("vfid", vfid).extra("subpath", subpath)
}

async fn in_folder<T, F>(app: &App, mut params: Params, noop: T, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(&dyn Trees, &Dir, usize) -> Result<T, OpError> + Send + 'static,
{
    let Some(named) = target(&mut params) else { return Err(params.problem()) };
    let Target { volume, id, .. } = Target::find(app, named)?;
    let threads = app.config().limits.tree_parallelism;
    match volume {
        VolumeRef::Noop => Ok(noop),
        VolumeRef::Real(volume) => {
            let work =
                move |volume: &Arc<Volume>| work(&*volume.backend.trees, &volume.vfolder(&id)?, threads);
            Ok(volume.run(work).await?)
        }
    }
}

/// `GET /folder/usage`.
pub(super) async fn usage(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let noop = FolderUsage { file_count: 0, used_bytes: 0 };
    json_reply(StatusCode::OK, &in_folder(&app, params, noop, vfolder::measure::folder_usage).await?)
}

/// `GET /folder/used-bytes`.
pub(super) async fn used_bytes(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    let used = in_folder(&app, params, 0, vfolder::measure::used_bytes).await?;
    json_reply(StatusCode::OK, &json!({ "used_bytes": used }))
}

/// `GET /folder/metadata`: a feature that no release has.
pub(super) async fn metadata(app: Arc<App>, params: Params) -> Result<Reply, Problem> {
    in_folder(&app, params, (), |_, _, _| Ok(())).await?;
    json_reply(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `POST /folder/metadata`: wants bytes, which JSON cannot carry.
pub(super) async fn set_metadata(_: Arc<App>, _: Params) -> Result<Reply, Problem> {
    let mut data = serde_json::Map::new();
    data.insert("payload".into(), Value::String("value is not bytes: JSON cannot carry any".into()));
    Err(Problem::invalid_params(data))
}
