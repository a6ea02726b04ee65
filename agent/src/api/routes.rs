//! How routes are put together from warp's filters, and the replies for what is no route.
//!
//! A route is a method, a path and a handler: a function from the application and the request's parameters
//! to a reply or a problem. Both APIs are a list of such routes.

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use common::size::BinarySize;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::{Filter, Rejection};

use super::params::Params;
use super::problem::{Problem, Reply};
use crate::app::App;
use crate::listener::{Connection, ZeroCopy};

/// Matches exactly this method and this path, given without the slash in front.
pub fn at(method: Method, path: &'static str) -> BoxedFilter<()> {
    let same = move |asked: FullPath| match asked.as_str().strip_prefix('/') {
        Some(asked) if asked == path => ready(Ok(())),
        _ => ready(Err(warp::reject::not_found())),
    };
    let method = match method {
        Method::POST => warp::post().boxed(),
        Method::PATCH => warp::patch().boxed(),
        Method::DELETE => warp::delete().boxed(),
        Method::HEAD => warp::head().boxed(),
        Method::OPTIONS => warp::options().boxed(),
        _ => warp::get().boxed(),
    };
    warp::path::full().and_then(same).untuple_one().and(method).boxed()
}

/// One route: what it answers to, and the filter that does.
pub struct Route {
    method: Method,
    path: &'static str,
    filter: BoxedFilter<(Reply,)>,
}

impl Route {
    /// A route that `filter` answers. `path` has no slash in front; a part of it in braces stands for any name.
    pub fn new(method: Method, path: &'static str, filter: BoxedFilter<(Reply,)>) -> Self {
        Route { method, path, filter }
    }

    fn answers_at(&self, asked: &str) -> bool {
        let (mut own, mut asked) = (self.path.split('/'), asked.trim_start_matches('/').split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || (own.starts_with('{') && !asked.is_empty()) => {}
                _ => return false,
            }
        }
    }
}

/// Hands the application to the handler.
pub fn with(app: &Arc<App>) -> BoxedFilter<(Arc<App>,)> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app)).boxed()
}

/// Hands over how the connection sends files without copying them, if it can and the configuration allows it.
pub fn zero_copy(app: &Arc<App>) -> BoxedFilter<(Option<ZeroCopy>,)> {
    let allowed = app.config.download.zero_copy;
    warp::ext::optional::<Connection>()
        .map(move |connection: Option<Connection>| connection?.zero_copy.filter(|_| allowed))
        .boxed()
}

/// A route whose parameters come as a JSON object in the body.
pub fn json_route<H, F>(app: &Arc<App>, method: Method, path: &'static str, handler: H) -> Route
where
    H: Fn(Arc<App>, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Problem>> + Send + 'static,
{
    let filter = at(method.clone(), path)
        .and(with(app))
        .and(warp::header::optional(CONTENT_LENGTH.as_str()))
        .and(warp::body::stream())
        .then(move |app: Arc<App>, length, body| {
            let handler = handler.clone();
            async move {
                let limits = &app.config.limits;
                let outcome = match read_body(body, length, usize_of(limits.json_size)).await {
                    Ok(body) => match Params::parse(&body, limits.json_depth) {
                        Ok(params) => detached(handler(Arc::clone(&app), params)).await,
                        Err(problem) => Err(problem),
                    },
                    Err(problem) => Err(problem),
                };
                outcome.unwrap_or_else(Problem::reply)
            }
        })
        .boxed();
    Route::new(method, path, filter)
}

/// Runs a handler to its end even if the peer goes away in the middle: what several steps change together must
/// not stop between two of them. A panic ends this request only.
async fn detached<F>(handler: F) -> Result<Reply, Problem>
where
    F: Future<Output = Result<Reply, Problem>> + Send + 'static,
{
    tokio::spawn(handler).await.unwrap_or_else(|_| {
        Err(Problem::internal("the request failed inside the storage agent; see its log"))
    })
}

/// A route without parameters: a body is refused.
pub fn plain_route<H, F>(app: &Arc<App>, method: Method, path: &'static str, handler: H) -> Route
where
    H: Fn(Arc<App>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Problem>> + Send,
{
    let filter = at(method.clone(), path)
        .and(with(app))
        .and(warp::header::optional(CONTENT_LENGTH.as_str()))
        .and(warp::body::stream())
        .then(move |app: Arc<App>, length, body| {
            let handler = handler.clone();
            async move {
                match read_body(body, length, 0).await {
                    Ok(_) => handler(app).await.unwrap_or_else(Problem::reply),
                    Err(_) => Problem::new(
                        StatusCode::BAD_REQUEST,
                        "storage/malformed-request",
                        "Malformed request (request body should be empty)",
                    )
                    .reply(),
                }
            }
        })
        .boxed();
    Route::new(method, path, filter)
}

fn usize_of(size: BinarySize) -> usize {
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

/// Reads a body of at most `limit` bytes. The limit holds for what arrives; what the header announces beyond it
/// (`length`) is not waited for.
pub async fn read_body<S, B>(mut body: S, length: Option<u64>, limit: usize) -> Result<Bytes, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Unpin,
    B: Buf,
{
    if length.is_some_and(|length| !usize::try_from(length).is_ok_and(|length| length <= limit)) {
        return Err(too_large(limit));
    }
    let mut all = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| Problem::invalid("the request's body ended too early"))?;
        if all.len() + chunk.remaining() > limit {
            return Err(too_large(limit));
        }
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            all.extend_from_slice(piece);
            let read = piece.len();
            chunk.advance(read);
        }
    }
    Ok(all.freeze())
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "storage/invalid-api-params", "Request body too large")
        .msg(format!("the body is larger than {limit} bytes (limit limits.json-size)"))
        .header(warp::http::header::CONNECTION, HeaderValue::from_static("close"))
}

/// Joins routes to one filter. It also answers requests for their paths with methods that they do not have; any other
/// path is left to whatever comes after.
pub fn any_of(routes: Vec<Route>) -> BoxedFilter<(Reply,)> {
    let mut joined = warp::any().and_then(no_route).boxed();
    for route in &routes {
        joined = joined.or(route.filter.clone()).unify().boxed();
    }
    let routes = Arc::new(routes);
    let other_method = warp::path::full().and_then(move |asked: FullPath| {
        let methods = allowed(&routes, asked.as_str());
        ready(if methods.is_empty() {
            Err(warp::reject::not_found())
        } else {
            Ok(not_allowed(&methods).reply())
        })
    });
    joined.or(other_method).unify().boxed()
}

async fn no_route() -> Result<Reply, Rejection> {
    Err(warp::reject::not_found())
}

fn allowed(routes: &[Route], asked: &str) -> String {
    let methods: Vec<_> =
        routes.iter().filter(|route| route.answers_at(asked)).map(|route| route.method.as_str()).collect();
    methods.join(", ")
}

/// The reply to a method that a path does not have; `allowed` are those that it has (RFC 9110, section 15.5.6).
pub fn not_allowed(allowed: &str) -> Problem {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method Not Allowed");
    match HeaderValue::from_str(allowed) {
        Ok(allowed) => problem.header(ALLOW, allowed),
        Err(_) => problem,
    }
}

/// The reply when no route matched.
pub fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "url-not-found", "Not Found")
}

/// A reply that carries JSON.
pub fn json_reply<T: Serialize>(status: StatusCode, value: &T) -> Result<Reply, Problem> {
    let body =
        serde_json::to_vec(value).map_err(|e| Problem::internal(format!("the reply is not JSON: {e}")))?;
    Ok(json_bytes(status, body))
}

/// A reply that carries JSON which is rendered already.
pub fn json_bytes(status: StatusCode, body: Vec<u8>) -> Reply {
    let mut reply = Reply::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    reply
}

/// A reply without a body.
pub fn empty_reply(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_knows_its_methods_and_names_in_braces_stand_for_any() {
        let route = |method, path| Route::new(method, path, warp::any().and_then(no_route).boxed());
        let routes = [
            route(Method::GET, ""),
            route(Method::GET, "tasks"),
            route(Method::GET, "tasks/{id}"),
            route(Method::DELETE, "tasks/{id}"),
        ];
        for (asked, methods) in [
            ("/", "GET"),
            ("/tasks", "GET"),
            ("/tasks/7", "GET, DELETE"),
            ("/tasks/", ""),
            ("/tasks/7/x", ""),
            ("/x", ""),
        ] {
            assert_eq!(allowed(&routes, asked), methods, "{asked}");
        }
    }
}
