//! Cross-origin rules (Fetch standard) for `/`, `/download` and `/download-archive`.
//!
//! Tokens travel in the URL and there are no cookies, so any origin may read the replies; the origin is
//! echoed, as the reference proxy does. `/upload` has rules of its own.

use warp::http::StatusCode;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::api::problem::{Problem, Reply};
use crate::api::routes::empty_reply;

/// What a page needs to read of a download, whether or not a reply has it.
const ALWAYS_EXPOSED: [&str; 6] =
    ["content-disposition", "content-length", "content-range", "accept-ranges", "last-modified", "etag"];

/// Lets a page of the request's origin read the reply.
pub(super) fn readable(request: &HeaderMap, mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(ORIGIN) else { return reply };
    let mut exposed: Vec<&str> = ALWAYS_EXPOSED.to_vec();
    exposed.extend(headers.keys().map(|name| name.as_str()).filter(|name| !ALWAYS_EXPOSED.contains(name)));
    let exposed = HeaderValue::from_str(&exposed.join(", ")).ok();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if let Some(exposed) = exposed {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    reply
}

/// The reply to a preflight request: `GET` and `HEAD` with any headers.
pub(super) fn preflight(request: &HeaderMap) -> Result<Reply, Problem> {
    let method = request.get(ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes);
    let origin = match (request.get(ORIGIN), method) {
        (Some(origin), Some(b"GET" | b"HEAD")) => origin.clone(),
        _ => {
            return Err(Problem::new(StatusCode::FORBIDDEN, "storage/cors", "CORS preflight refused")
                .msg("a preflight names an Origin, and GET or HEAD as Access-Control-Request-Method"));
        }
    };
    let mut reply = empty_reply(StatusCode::OK);
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    if let Some(allowed) = wanted.and_then(|names| HeaderValue::from_str(&names.to_uppercase()).ok()) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    Ok(reply)
}
