//! Routes about long work: what is going on, how far it is, and how to stop it.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use warp::Filter;
use warp::http::{Method, StatusCode};

use super::super::problem::{Problem, Reply};
use super::super::routes::{Route, json_reply, with};
use crate::app::App;
use crate::tasks::{State, Task};

pub(super) fn shown(task: &Task) -> Value {
    let (state, progress) = (task.state(), task.control.progress());
    let message = match &state {
        State::Failed(message) => Some(message.as_str()),
        _ => None,
    };
    let created = jiff::Timestamp::try_from(task.created).map(|time| time.to_string()).ok();
    json!({
        "id": task.id,
        "kind": task.subject.kind,
        "volume": task.subject.volume,
        "vfid": task.subject.vfid,
        "target_vfid": task.subject.target,
        "state": state.word(),
        "message": message,
        "created_at": created,
        "progress": {
            "entries_done": progress.entries_done,
            "entries_total": progress.entries_total,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
        },
    })
}

/// `GET /tasks`: oldest first.
pub(super) async fn list(app: Arc<App>) -> Result<Reply, Problem> {
    let mut tasks = app.tasks.all();
    tasks.sort_by_key(|task| task.created);
    let tasks: Vec<Value> = tasks.iter().map(|task| shown(task)).collect();
    json_reply(StatusCode::OK, &json!({ "tasks": tasks }))
}

fn find(app: &App, id: &str) -> Result<Arc<Task>, Problem> {
    let task = id.parse::<Uuid>().ok().and_then(|id| app.tasks.get(id));
    task.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "storage/task/not-found", "Task Not Found")
            .msg("no such task: it never was, or it ended longer ago than agent.task-retention")
    })
}

/// `GET /tasks/{id}`.
pub(super) fn one(app: &Arc<App>) -> Route {
    let filter = warp::path!("tasks" / String)
        .and(with(app))
        .map(|id: String, app: Arc<App>| {
            let reply = find(&app, &id).and_then(|task| json_reply(StatusCode::OK, &shown(&task)));
            reply.unwrap_or_else(Problem::reply)
        })
        .boxed();
    Route::new(Method::GET, "tasks/{id}", filter)
}

/// `DELETE /tasks/{id}`: asks the task to stop. A purge that is stopped goes on at the next start.
pub(super) fn cancel(app: &Arc<App>) -> Route {
    let filter = warp::path!("tasks" / String)
        .and(with(app))
        .map(|id: String, app: Arc<App>| {
            let reply = find(&app, &id).and_then(|task| {
                task.control.cancel();
                json_reply(StatusCode::ACCEPTED, &shown(&task))
            });
            reply.unwrap_or_else(Problem::reply)
        })
        .boxed();
    Route::new(Method::DELETE, "tasks/{id}", filter)
}
