//! The client-facing API: uploads, downloads and archives, each authorised by a token in the URL.

mod accel;
mod archive;
mod conditional;
mod cors;
mod disposition;
mod download;
mod query;
mod range;
#[cfg(test)]
mod testing;
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
use super::routes::{Route, Routes, json_reply, no_such_route, with};
use crate::app::App;
use crate::listener::Connection;

/// Every route.
pub fn routes(app: &Arc<App>) -> Routes {
    let readable = Routes::new(all(app)).wrapped(|filter| {
        warp::filters::header::headers_cloned()
            .and(filter.recover(unknown).unify())
            .map(|headers: HeaderMap, reply| cors::readable(&headers, reply))
            .boxed()
    });
    Routes::new(vec![upload::route(app)]).and(readable)
}

fn all(app: &Arc<App>) -> Vec<Route> {
    let preflights = ["", "download", "download-archive"].map(preflight);
    let mut routes = vec![
        download(app, Method::GET),
        download(app, Method::HEAD),
        archive(app),
        status(),
        openapi::route(openapi::CLIENT),
    ];
    routes.extend(preflights);
    routes
}

fn unknown(_: Rejection) -> Ready<Result<Reply, Infallible>> {
    ready(Ok(no_such_route().reply()))
}

fn status() -> Route {
    let body = json!({ "status": "ok", "type": "client-facing", "storage-proxy": env!("CARGO_PKG_VERSION") });
    let reply = move || json_reply(StatusCode::OK, &body).unwrap_or_else(Problem::reply);
    Route::new(Method::GET, "", warp::any().map(reply).boxed())
}

/// The query, empty when there is none.
fn query() -> BoxedFilter<(Query,)> {
    warp::query::raw()
        .or_else(|_| ready(Ok::<_, Rejection>((String::new(),))))
        .map(|raw: String| Query::parse(&raw))
        .boxed()
}

fn download(app: &Arc<App>, method: Method) -> Route {
    let filter = with(app)
        .and(warp::method())
        .and(warp::filters::header::headers_cloned())
        .and(warp::ext::optional::<Connection>())
        .and(query())
        .then(|app, method, headers, connection, query| async move {
            download::download(app, method, headers, connection, query).await.unwrap_or_else(Problem::reply)
        })
        .boxed();
    Route::new(method, "download", filter)
}

fn archive(app: &Arc<App>) -> Route {
    let filter = with(app)
        .and(query())
        .then(|app, query| async move { archive::download(app, query).await.unwrap_or_else(Problem::reply) })
        .boxed();
    Route::new(Method::GET, "download-archive", filter)
}

fn preflight(path: &'static str) -> Route {
    let filter = warp::filters::header::headers_cloned()
        .map(|headers: HeaderMap| cors::preflight(&headers).unwrap_or_else(Problem::reply))
        .boxed();
    Route::new(Method::OPTIONS, path, filter)
}
