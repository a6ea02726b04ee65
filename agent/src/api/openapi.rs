//! The OpenAPI documents, served by the API that each describes. They need no secret: they are the same everywhere.
//!
//! They are written by hand, and tests hold them against the routes and the replies.

use warp::Filter;
use warp::http::{Method, StatusCode};

use super::routes::{Route, json_bytes};

/// The client-facing API (OpenAPI 3.1).
pub const CLIENT: &str = include_str!("../../openapi/client.json");
/// The manager-facing API (OpenAPI 3.1).
pub const MANAGER: &str = include_str!("../../openapi/manager.json");

/// `GET /openapi.json`.
pub(super) fn route(document: &'static str) -> Route {
    let path = "openapi.json";
    let filter = warp::any().map(move || json_bytes(StatusCode::OK, document.into())).boxed();
    Route::new(Method::GET, path, filter)
}
