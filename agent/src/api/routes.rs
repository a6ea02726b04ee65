//! How routes are put together from warp's filters, and the replies for what is no route.
//!
//! A route is a method, a path and a handler: a function from the application and the request's parameters
//! to a reply or a problem. Both APIs are a list of such routes.

use std::future::Future;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use common::size::BinarySize;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use warp::http::{Method, StatusCode};

use super::params::Params;
use super::problem::{Problem, Reply};
use crate::app::App;

/// One route: what it answers to, and the filter that does.
pub struct Route {
    pattern: Pattern,
    filter: BoxedFilter<(Reply,)>,
}

/// What a route answers to.
#[derive(Clone)]
struct Pattern {
    /// None: every method; the filter knows which there are.
    method: Option<Method>,
    /// Without the slash in front. A part in braces stands for any name.
    path: &'static str,
}

impl Route {
    /// A route that `filter` answers. `path` has no slash in front; a part of it in braces stands for any name.
    pub fn new(method: Method, path: &'static str, filter: BoxedFilter<(Reply,)>) -> Self {
        Route { pattern: Pattern { method: Some(method), path }, filter }
    }

    /// A route whose filter answers every method.
    pub fn any_method(path: &'static str, filter: BoxedFilter<(Reply,)>) -> Self {
        Route { pattern: Pattern { method: None, path }, filter }
    }
}

impl Pattern {
    fn answers(&self, method: &Method, asked: &str) -> bool {
        self.method.as_ref().is_none_or(|own| own == method) && self.answers_at(asked)
    }

    fn answers_at(&self, asked: &str) -> bool {
        if !self.path.contains('{') {
            return self.path == asked;
        }
        let (mut own, mut asked) = (self.path.split('/'), asked.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || (own.starts_with('{') && !asked.is_empty()) => {}
                _ => return false,
            }
        }
    }
}

/// Routes that belong together, and what answers a request for none of them.
///
/// A request's route is found by its method and path before any filter runs, so that the number of routes costs
/// nothing.
pub struct Routes {
    groups: Vec<Group>,
}

struct Group {
    routes: Vec<Route>,
    /// Answers 405 for a path that one of the routes has, and 404 for any other.
    otherwise: BoxedFilter<(Reply,)>,
}

impl Routes {
    /// These routes, and nothing in front of them.
    pub fn new(routes: Vec<Route>) -> Self {
        let known: Arc<[Pattern]> = routes.iter().map(|route| route.pattern.clone()).collect();
        let otherwise = warp::path::full()
            .map(move |asked: FullPath| match allowed(&known, relative(asked.as_str())).as_str() {
                "" => no_such_route().reply(),
                methods => not_allowed(methods).reply(),
            })
            .boxed();
        Routes { groups: vec![Group { routes, otherwise }] }
    }

    /// No routes but a filter that answers everything.
    pub fn only(otherwise: BoxedFilter<(Reply,)>) -> Self {
        Routes { groups: vec![Group { routes: Vec::new(), otherwise }] }
    }

    /// Puts something around each of the routes, and around what answers for none of them.
    pub fn wrapped(mut self, wrap: impl Fn(BoxedFilter<(Reply,)>) -> BoxedFilter<(Reply,)>) -> Self {
        for group in &mut self.groups {
            for route in &mut group.routes {
                route.filter = wrap(route.filter.clone());
            }
            group.otherwise = wrap(group.otherwise.clone());
        }
        self
    }

    /// These routes and then those, which also answer what is no route of either.
    pub fn and(mut self, more: Routes) -> Self {
        self.groups.extend(more.groups);
        self
    }

    /// What answers a request for this path of a URL.
    pub fn find(&self, method: &Method, path: &str) -> BoxedFilter<(Reply,)> {
        let asked = relative(path);
        for group in &self.groups {
            if let Some(route) = group.routes.iter().find(|route| route.pattern.answers(method, asked)) {
                return route.filter.clone();
            }
            if group.routes.iter().any(|route| route.pattern.answers_at(asked)) {
                return group.otherwise.clone();
            }
        }
        self.groups.last().map_or_else(nothing, |last| last.otherwise.clone())
    }
}

fn relative(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

fn nothing() -> BoxedFilter<(Reply,)> {
    warp::any().map(|| no_such_route().reply()).boxed()
}

/// Hands the application to the handler.
pub fn with(app: &Arc<App>) -> BoxedFilter<(Arc<App>,)> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app)).boxed()
}

/// A route whose parameters come as a JSON object in the body.
pub fn json_route<H, F>(app: &Arc<App>, method: Method, path: &'static str, handler: H) -> Route
where
    H: Fn(Arc<App>, Params) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Problem>> + Send + 'static,
{
    let filter = with(app)
        .and(warp::header::optional(CONTENT_LENGTH.as_str()))
        .and(warp::body::stream())
        .then(move |app: Arc<App>, length, body| {
            let handler = handler.clone();
            async move {
                let config = app.config();
                let limits = &config.limits;
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
    let filter = with(app)
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

fn allowed(known: &[Pattern], asked: &str) -> String {
    let here = known.iter().filter(|pattern| pattern.answers_at(asked));
    here.filter_map(|pattern| pattern.method.as_ref().map(Method::as_str)).collect::<Vec<_>>().join(", ")
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
    use http_body_util::{BodyExt, Empty};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[test]
    fn a_path_knows_its_methods_and_names_in_braces_stand_for_any() {
        let route = |method, path| Pattern { method: Some(method), path };
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
            ("//tasks", ""),
        ] {
            assert_eq!(allowed(&routes, relative(asked)), methods, "{asked}");
        }
    }

    #[tokio::test]
    async fn a_request_goes_to_its_route_or_to_the_group_that_has_its_path() {
        let says = |text: &'static str| warp::any().map(move || Reply::new(text.into())).boxed();
        let first = Routes::new(vec![Route::new(Method::GET, "a", says("a"))]);
        let second = vec![Route::new(Method::POST, "b", says("b")), Route::any_method("c", says("c"))];
        let second = Routes::new(second).wrapped(|filter| {
            filter
                .map(|mut reply: Reply| {
                    reply.headers_mut().insert("wrapped", HeaderValue::from_static("yes"));
                    reply
                })
                .boxed()
        });
        let routes = first.and(second);
        for (method, path, status, body, wrapped) in [
            ("GET", "/a", 200, "a", false),
            ("POST", "/a", 405, "", false),
            ("POST", "/b", 200, "b", true),
            ("GET", "/b", 405, "", true),
            ("PATCH", "/c", 200, "c", true),
            ("GET", "/d", 404, "", true),
        ] {
            let service =
                TowerToHyperService::new(warp::service(routes.find(&method.parse().unwrap(), path)));
            let request = hyper::Request::builder().method(method).uri(path).body(Empty::<Bytes>::new());
            let reply = service.call(request.unwrap()).await.unwrap();
            assert_eq!(reply.status(), status, "{method} {path}");
            assert_eq!(reply.headers().contains_key("wrapped"), wrapped, "{method} {path}");
            let content = reply.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty() || content == body, "{method} {path}");
        }
    }
}
