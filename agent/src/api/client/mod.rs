//! The client-facing API: uploads, downloads and archives, each authorised by a token in the URL.

mod archive;
mod conditional;
mod cors;
mod disposition;
mod download;
mod query;
mod range;
mod tokens;
mod upload;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use serde_json::json;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method, StatusCode};
use warp::{Filter, Rejection};

use self::query::Query;
use super::problem::{Problem, Reply};
use super::routes::{allow, any_of, at, json_reply, no_match, with};
use crate::app::App;

/// Every route.
pub fn routes(app: &Arc<App>) -> BoxedFilter<(Reply,)> {
    let readable = any_of(vec![status(), download(app), archive(app), preflight()]).recover(unknown).unify();
    let readable = warp::filters::header::headers_cloned()
        .and(readable)
        .map(|headers: HeaderMap, reply| cors::readable(&headers, reply));
    upload::routes(app).or(readable).unify().boxed()
}

fn unknown(rejection: Rejection) -> Ready<Result<Reply, Infallible>> {
    let problem = no_match(&rejection);
    let problem = match problem.status() {
        StatusCode::METHOD_NOT_ALLOWED => allow(problem, "GET,HEAD,OPTIONS"),
        _ => problem,
    };
    ready(Ok(problem.reply()))
}

fn status() -> BoxedFilter<(Reply,)> {
    let body = json!({ "status": "ok", "type": "client-facing", "storage-proxy": env!("CARGO_PKG_VERSION") });
    at(Method::GET, "").map(move || json_reply(StatusCode::OK, &body).unwrap_or_else(Problem::reply)).boxed()
}

/// The query, empty when there is none.
fn query() -> BoxedFilter<(Query,)> {
    warp::query::raw()
        .or_else(|_| ready(Ok::<_, Rejection>((String::new(),))))
        .map(|raw: String| Query::parse(&raw))
        .boxed()
}

fn download(app: &Arc<App>) -> BoxedFilter<(Reply,)> {
    at(Method::GET, "download")
        .or(at(Method::HEAD, "download"))
        .unify()
        .and(with(app))
        .and(warp::method())
        .and(warp::filters::header::headers_cloned())
        .and(query())
        .then(|app, method, headers, query| async move {
            download::download(app, method, headers, query).await.unwrap_or_else(Problem::reply)
        })
        .boxed()
}

fn archive(app: &Arc<App>) -> BoxedFilter<(Reply,)> {
    at(Method::GET, "download-archive")
        .and(with(app))
        .and(query())
        .then(|app, query| async move { archive::download(app, query).await.unwrap_or_else(Problem::reply) })
        .boxed()
}

fn preflight() -> BoxedFilter<(Reply,)> {
    let path = |path| at(Method::OPTIONS, path);
    path("")
        .or(path("download"))
        .unify()
        .or(path("download-archive"))
        .unify()
        .and(warp::filters::header::headers_cloned())
        .map(|headers: HeaderMap| cors::preflight(&headers).unwrap_or_else(Problem::reply))
        .boxed()
}
