//! Files that the web server in front sends by itself: nginx's `X-Accel-Redirect`.
//!
//! The agent says who may have a file, and nginx, which can read the volumes, sends it. A request for that comes from a
//! trusted proxy and says `X-Sendfile-Type: X-Accel-Redirect`, so that nobody else learns where files lie. Only a file
//! that is reached without any link is given away: nginx follows none either, and the agent sends the others itself.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use warp::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::api::problem::Reply;
use crate::app::App;
use crate::fs::RelPath;
use crate::listener::Connection;
use crate::token::DownloadClaims;
use crate::volume::{Volume, vfolder_path};

const ASKS: HeaderName = HeaderName::from_static("x-sendfile-type");
const REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");

/// nginx decodes the value once.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The location to redirect into, for a request that may be redirected.
pub(super) fn location(app: &App, connection: Option<&Connection>, headers: &HeaderMap) -> Option<String> {
    let asks = headers.get(ASKS)?.as_bytes().eq_ignore_ascii_case(b"X-Accel-Redirect");
    let may = asks && connection.is_some_and(|connection| connection.from_trusted_proxy);
    may.then(|| app.config().download.accel_redirect.clone()).flatten()
}

/// The reply that has nginx send the file, if it may (`location`) and nothing on the way to the file is a link.
pub(super) async fn redirect(
    location: Option<String>,
    volume: Option<&Arc<Volume>>,
    claims: &DownloadClaims,
    path: &RelPath,
) -> Option<Reply> {
    let (location, volume) = (location?, volume?);
    let below = vfolder_path(&claims.vfid).ok()?.join(path).ok()?;
    let asked = below.clone();
    let straight = volume.run(move |volume| volume.root().map(|root| root.is_reached_without_links(&asked)));
    if !straight.await.unwrap_or(false) {
        return None;
    }
    let name = percent_encode(volume.name.as_bytes(), KEPT);
    let target = format!("{location}/{name}/{}", percent_encode(&below.to_bytes(), KEPT));
    let mut reply = Reply::default();
    reply.headers_mut().insert(REDIRECT, HeaderValue::try_from(target).ok()?);
    Some(reply)
}
