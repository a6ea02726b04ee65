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
use super::openapi;
use super::problem::{Problem, Reply};
use super::routes::{Route, any_of, at, json_reply, no_such_route, with, zero_copy};
use crate::app::App;

/// Every route.
pub fn routes(app: &Arc<App>) -> BoxedFilter<(Reply,)> {
    let readable = any_of(all(app)).recover(unknown).unify();
    let readable = warp::filters::header::headers_cloned()
        .and(readable)
        .map(|headers: HeaderMap, reply| cors::readable(&headers, reply));
    upload::routes(app).or(readable).unify().boxed()
}

fn all(app: &Arc<App>) -> Vec<Route> {
    let preflights = ["", "download", "download-archive"].map(preflight);
    let mut routes = vec![
        status(),
        openapi::route(openapi::CLIENT),
        download(app, Method::GET),
        download(app, Method::HEAD),
    ];
    routes.push(archive(app));
    routes.extend(preflights);
    routes
}

fn unknown(_: Rejection) -> Ready<Result<Reply, Infallible>> {
    ready(Ok(no_such_route().reply()))
}

fn status() -> Route {
    let body = json!({ "status": "ok", "type": "client-facing", "storage-proxy": env!("CARGO_PKG_VERSION") });
    let reply = move || json_reply(StatusCode::OK, &body).unwrap_or_else(Problem::reply);
    Route::new(Method::GET, "", at(Method::GET, "").map(reply).boxed())
}

/// The query, empty when there is none.
fn query() -> BoxedFilter<(Query,)> {
    warp::query::raw()
        .or_else(|_| ready(Ok::<_, Rejection>((String::new(),))))
        .map(|raw: String| Query::parse(&raw))
        .boxed()
}

fn download(app: &Arc<App>, method: Method) -> Route {
    let filter = at(method.clone(), "download")
        .and(with(app))
        .and(warp::method())
        .and(warp::filters::header::headers_cloned())
        .and(zero_copy(app))
        .and(query())
        .then(|app, method, headers, zero_copy, query| async move {
            download::download(app, method, headers, zero_copy, query).await.unwrap_or_else(Problem::reply)
        })
        .boxed();
    Route::new(method, "download", filter)
}

fn archive(app: &Arc<App>) -> Route {
    let filter = at(Method::GET, "download-archive")
        .and(with(app))
        .and(query())
        .then(|app, query| async move { archive::download(app, query).await.unwrap_or_else(Problem::reply) })
        .boxed();
    Route::new(Method::GET, "download-archive", filter)
}

fn preflight(path: &'static str) -> Route {
    let filter = at(Method::OPTIONS, path)
        .and(warp::filters::header::headers_cloned())
        .map(|headers: HeaderMap| cors::preflight(&headers).unwrap_or_else(Problem::reply))
        .boxed();
    Route::new(Method::OPTIONS, path, filter)
}
