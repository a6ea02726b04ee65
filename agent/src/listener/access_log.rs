//! The access log: one line per request, written when its reply's body has ended or was given up.
//!
//! What a stranger sent is bounded and escaped here, and nothing of it is kept that can carry a secret: of the
//! address only the path, of the headers only `User-Agent` and, from a trusted proxy, `X-Forwarded-For`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::header::{HeaderMap, HeaderName, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::under_way::UnderWay;
use crate::metrics::Metrics;

/// The log target of access lines.
pub const TARGET: &str = "access";

const LONGEST_PATH: usize = 512;
const LONGEST_HEADER: usize = 128;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What is known of a request when it begins.
pub(super) struct Entry {
    pub(super) api: &'static str,
    pub(super) peer: SocketAddr,
    pub(super) request_id: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
    method: Method,
    path: String,
    user_agent: Option<String>,
    forwarded_for: Option<String>,
    begun: Instant,
    received: AtomicU64,
}

impl Entry {
    /// Takes what the log needs from a request's head.
    pub(super) fn new(
        api: &'static str,
        peer: SocketAddr,
        from_proxy: bool,
        request_id: Arc<str>,
        head: &Parts,
        metrics: Arc<Metrics>,
    ) -> Self {
        Entry {
            api,
            peer,
            request_id,
            metrics,
            method: head.method.clone(),
            path: printable(head.uri.path().as_bytes(), LONGEST_PATH),
            user_agent: header(&head.headers, &USER_AGENT),
            forwarded_for: from_proxy.then(|| header(&head.headers, &FORWARDED_FOR)).flatten(),
            begun: Instant::now(),
            received: AtomicU64::new(0),
        }
    }

    /// The request's method.
    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The path as it may be shown.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Counts bytes of the request's body.
    pub(super) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How the request is at the moment; `sent` is what left for it.
    pub(super) fn under_way(&self, sent: u64) -> UnderWay {
        UnderWay {
            api: self.api,
            peer: self.peer,
            method: self.method.to_string(),
            path: self.path.clone(),
            request_id: Arc::clone(&self.request_id),
            age: self.begun.elapsed(),
            received: self.received.load(Ordering::Relaxed),
            sent,
        }
    }

    /// Writes the line and counts the request. No status: the connection ended before there was a reply.
    pub(super) fn finish(&self, status: Option<StatusCode>, sent: u64, complete: bool) {
        let elapsed = self.begun.elapsed();
        let received = self.received.load(Ordering::Relaxed);
        self.metrics.request_done(self.api, &self.method, status, elapsed, received, sent);
        tracing::info!(
            target: TARGET,
            api = self.api,
            peer = %self.peer,
            forwarded_for = self.forwarded_for.as_deref(),
            method = %self.method,
            path = self.path.as_str(),
            status = status.map_or(0, |status| status.as_u16()),
            bytes_in = received,
            bytes_out = sent,
            ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            request_id = &*self.request_id,
            agent = self.user_agent.as_deref(),
            aborted = (!complete).then_some(true),
        );
    }
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| printable(value.as_bytes(), LONGEST_HEADER))
}

/// At most `longest` characters of what was sent. Whatever is not plain ASCII text is written as `\xNN`, so that
/// no byte can move a terminal's cursor, start a new line, or imitate another entry.
pub(super) fn printable(bytes: &[u8], longest: usize) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if text.len() >= longest {
            text.push_str("...");
            break;
        }
        match byte {
            b'\\' | b'"' => text.push_str(&format!("\\x{byte:02x}")),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_peer_sends_can_start_a_line_or_steer_a_terminal() {
        assert_eq!(
            printable(b"a\r\nb\x1b[2Jc\x7f\xe2\x80\xae\"\\", 100),
            r#"a\x0d\x0ab\x1b[2Jc\x7f\xe2\x80\xae\x22\x5c"#
        );
    }

    #[test]
    fn what_is_logged_of_a_header_is_bounded() {
        let text = printable(&vec![b'x'; 100_000], LONGEST_HEADER);
        assert_eq!(text.len(), LONGEST_HEADER + 3);
    }
}
