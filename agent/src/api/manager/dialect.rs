//! The few places where managers of different generations need different replies.
//!
//! A vfolder id with a scope is only sent by managers from 23.03.7 on; a bare one by old managers, and by
//! newer ones for folders that were never migrated. Everything else is answered with a superset that all
//! generations accept.

use std::time::Duration;

use common::id::VfolderId;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;

use super::super::problem::{Problem, Reply};
use super::super::routes::{empty_reply, json_reply};
use crate::app::App;

/// The reply to an accepted deletion: managers that send bare ids take it for done.
pub(super) fn folder_deleted(id: &VfolderId, task: Uuid) -> Result<Reply, Problem> {
    if id.is_bare() {
        Ok(empty_reply(StatusCode::NO_CONTENT))
    } else {
        json_reply(StatusCode::ACCEPTED, &json!({ "bgtask_id": task }))
    }
}

/// How long a clone's reply may wait for the copy; nothing means until its end. Managers that take the reply
/// for the end are those that send bare ids and those that the configuration calls older than 25.13.
pub(super) fn clone_wait(app: &App, id: &VfolderId) -> Option<Duration> {
    let config = app.config();
    let agent = &config.agent;
    let waits_for_event = agent.manager_version.is_none_or(|version| !version.takes_clone_reply_for_done());
    (!id.is_bare() && waits_for_event).then_some(agent.clone_wait)
}
