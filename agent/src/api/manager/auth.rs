//! The shared secret that every manager sends.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reject::Reject;
use warp::{Filter, Rejection};

use super::super::problem::Problem;
use crate::app::App;

const HEADER: &str = "x-backendai-storage-auth-token";

/// Why a request may not pass.
#[derive(Debug)]
enum Refused {
    Missing,
    Wrong,
}

impl Reject for Refused {}

/// Passes requests with the right secret. The comparison takes the same time for every wrong value.
pub(super) fn required(app: &Arc<App>) -> BoxedFilter<()> {
    let app = Arc::clone(app);
    warp::filters::header::headers_cloned()
        .and_then(move |headers: warp::http::HeaderMap| {
            let config = app.config();
            let secret = config.api.manager.secret.expose().as_bytes();
            let verdict = match headers.get(HEADER).map(|value| value.as_bytes()) {
                None | Some(b"") => Err(warp::reject::custom(Refused::Missing)),
                Some(value) if bool::from(value.ct_eq(secret)) => Ok(()),
                Some(_) => Err(warp::reject::custom(Refused::Wrong)),
            };
            std::future::ready(verdict)
        })
        .untuple_one()
        .boxed()
}

/// The reply to a request that did not pass.
pub(super) fn refusal(rejection: &Rejection) -> Option<Problem> {
    let title = match rejection.find::<Refused>()? {
        Refused::Missing => "Forbidden (missing auth token)",
        Refused::Wrong => "Forbidden (invalid auth token)",
    };
    Some(Problem::new(StatusCode::FORBIDDEN, "storage/forbidden", title))
}
