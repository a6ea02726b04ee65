//! `/upload`: tus 1.0 without creation, which is the manager's, and with the extensions checksum,
//! termination and expiration.
//!
//! Every reply, refusals included, carries the cross-origin headers: a browser hides a reply without them
//! from its page, which then cannot tell a mistake from a broken network.

mod body;
mod headers;
mod refusal;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Buf;
use common::id::VfolderId;
use futures_util::Stream;
use warp::Filter;
use warp::http::{HeaderMap, Method, StatusCode};

use self::body::Body;
use self::headers::{Patch, check_version, describe, discover, dress};
use self::refusal::refusal;
use super::query::Query;
use super::{query, tokens};
use crate::api::problem::{Problem, Reply};
use crate::api::routes::{Route, empty_reply, not_allowed, with};
use crate::app::App;
use crate::token::UploadClaims;
use crate::vfolder::upload::{Upload, UploadError, target};
use crate::volume::Volume;

const METHODS: &str = "OPTIONS, HEAD, PATCH, DELETE";

/// The route. It answers every method itself.
pub(super) fn route(app: &Arc<App>) -> Route {
    let filter = with(app)
        .and(warp::method())
        .and(warp::filters::header::headers_cloned())
        .and(query())
        .and(warp::body::stream())
        .then(|app, method, headers: HeaderMap, query, stream| async move {
            let body = Body::new(Box::pin(stream), &headers);
            dress(answer(app, method, &headers, &query, body).await)
        })
        .boxed();
    Route::any_method("upload", filter)
}

async fn answer<S, B, E>(
    app: Arc<App>,
    method: Method,
    headers: &HeaderMap,
    query: &Query,
    body: Body<S>,
) -> Reply
where
    S: Stream<Item = Result<B, E>> + Send + Unpin + 'static,
    B: Buf + Send + 'static,
    E: Send + 'static,
{
    if method == Method::OPTIONS {
        let max_size = app.config().storage_proxy.max_upload_size.bytes();
        return body.leave(discover(empty_reply(StatusCode::OK), headers, max_size));
    }
    let (upload, verb) = match read(&app, &method, headers, query) {
        Ok(request) => request,
        Err(problem) => return body.leave(problem.reply()),
    };
    let (size, expires) = (upload.size, upload.expires);
    let (volume, vfid) = (Arc::clone(&upload.volume), upload.vfid);
    let (outcome, body) = match verb {
        Verb::Head => (in_time(&volume, Box::pin(app.uploads.offset(upload))).await.map(Some), Some(body)),
        Verb::Delete => {
            (in_time(&volume, Box::pin(app.uploads.terminate(upload))).await.map(|()| None), Some(body))
        }
        Verb::Patch(patch) => store(&app, upload, patch, body).await,
    };
    let reply = match outcome {
        Ok(offset) => {
            let status = if method == Method::HEAD { StatusCode::OK } else { StatusCode::NO_CONTENT };
            describe(empty_reply(status), offset, size, expires)
        }
        Err(error) => {
            let offset = error.offset();
            let problem = match error {
                UploadError::Full { .. } => full(volume, vfid, error).await,
                // After a HEAD, tus-js-client gives an upload up for any 4xx but this.
                UploadError::Held if method == Method::HEAD => refusal(error).with_status(StatusCode::LOCKED),
                error => refusal(error),
            };
            describe(problem.reply(), offset, size, expires)
        }
    };
    match body {
        Some(body) => body.leave(reply),
        None => body::close(reply),
    }
}

/// The user can make room in a quota, only the operator on a full disk: tells them apart where that can be told.
async fn full(volume: Arc<Volume>, vfid: VfolderId, error: UploadError) -> Problem {
    let problem = refusal(error);
    match volume.run(move |volume| volume.quota_of(&vfid)).await {
        Ok(Some(limit)) => {
            problem.msg(format!("the quota of {limit} bytes that the folder counts against is used up"))
        }
        _ => problem,
    }
}

/// What a request wants done.
enum Verb {
    Head,
    Patch(Patch),
    Delete,
}

/// Reads everything but the body.
fn read(app: &App, method: &Method, headers: &HeaderMap, query: &Query) -> Result<(Upload, Verb), Problem> {
    if ![Method::HEAD, Method::PATCH, Method::DELETE].contains(method) {
        return Err(not_allowed(METHODS));
    }
    check_version(headers)?;
    let upload = named(app, query)?;
    let verb = match *method {
        Method::HEAD => Verb::Head,
        Method::DELETE => Verb::Delete,
        _ => Verb::Patch(Patch::read(headers)?),
    };
    Ok((upload, verb))
}

/// The upload that the token and `dst_dir` name.
fn named(app: &App, query: &Query) -> Result<Upload, Problem> {
    let claims: UploadClaims = app.tokens().verify(query.token()?).map_err(tokens::refusal)?;
    check_size(claims.size, app.config().storage_proxy.max_upload_size.bytes())?;
    let target = target(query.get("dst_dir"), &claims.relpath.0).map_err(refusal)?;
    Ok(Upload {
        volume: app.volumes.real(&claims.volume)?,
        vfid: claims.vfid,
        session: claims.session,
        size: claims.size,
        target,
        expires: claims.exp,
    })
}

/// Another proxy with the same secret may have made the token with other settings.
fn check_size(size: u64, most: u64) -> Result<(), Problem> {
    if size <= most {
        return Ok(());
    }
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "storage/upload-too-long", "Upload Too Long")
        .msg(format!("the upload's size of {size} bytes is above max-upload-size ({most} bytes)")))
}

/// The outcome, unless the volume hangs: then the client is told, and what was begun goes on without it.
///
/// On the heap, because it would be a part of the request's state, several times over, as long as a slow body arrives.
async fn in_time<T>(
    volume: &Arc<Volume>,
    work: Pin<Box<impl Future<Output = Result<T, UploadError>>>>,
) -> Result<T, UploadError> {
    volume.unless_hanging(work).await?
}

/// Stores a body and says the new offset. Gives back what is left of the body, unless storing it panicked.
async fn store<S, B, E>(
    app: &Arc<App>,
    upload: Upload,
    patch: Patch,
    mut body: Body<S>,
) -> (Result<Option<u64>, UploadError>, Option<Body<S>>)
where
    S: Stream<Item = Result<B, E>> + Send + Unpin + 'static,
    B: Buf + Send + 'static,
    E: Send + 'static,
{
    let volume = Arc::clone(&upload.volume);
    let begin = Box::pin(app.uploads.begin(upload, patch.offset, patch.length, patch.checksum));
    let writing = match in_time(&volume, begin).await {
        Ok(writing) => writing,
        Err(error) => return (Err(error), Some(body)),
    };
    // When the connection breaks this handler is dropped; what has arrived is to be kept all the same.
    let storing = tokio::spawn(async move {
        let outcome = writing.receive(&mut body).await;
        (outcome, body)
    });
    match storing.await {
        Ok((outcome, body)) => (outcome.map(Some), Some(body)),
        Err(_) => (Err(UploadError::failed_inside()), None),
    }
}
