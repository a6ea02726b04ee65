//! The body of a request that may be refused before it was read.
//!
//! A client that is still sending when the connection closes may see a reset instead of the reply, and a
//! browser then reports a network failure. So the reply goes out while a bounded rest of the body is read
//! and thrown away, and only then does the connection close.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use warp::http::HeaderMap;
use warp::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue, TRANSFER_ENCODING};

use crate::api::problem::Reply;

/// How much of a refused body is read: more than one chunk of the common clients (15 and 16 MiB).
const DRAIN_BYTES: usize = 32 * 1024 * 1024;

/// How long a refused body is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A body, and what is known of how far it was read.
pub(super) struct Body<S> {
    stream: S,
    /// A client that waits for "100 Continue" sends nothing until somebody reads.
    waits: bool,
    ended: bool,
}

/// The connection cannot serve another request when this reply's request was not read to its end.
pub(super) fn close(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

impl<S> Body<S> {
    /// The body of a request with these headers.
    pub(super) fn new(stream: S, headers: &HeaderMap) -> Self {
        let empty =
            headers.get(CONTENT_LENGTH).map_or(!headers.contains_key(TRANSFER_ENCODING), |n| n == "0");
        Body { stream, waits: headers.contains_key(EXPECT), ended: empty }
    }
}

impl<S, B, E> Body<S>
where
    S: Stream<Item = Result<B, E>> + Send + Unpin + 'static,
    B: Buf + Send + 'static,
    E: Send + 'static,
{
    /// Prepares the reply to a request whose body may not have been read to its end.
    pub(super) fn leave(self, mut reply: Reply) -> Reply {
        if self.ended {
            return reply;
        }
        reply = close(reply);
        if !self.waits {
            tokio::spawn(tokio::time::timeout(DRAIN_TIME, self.drain()));
        }
        reply
    }

    async fn drain(mut self) {
        let mut bytes = 0;
        while let Some(Ok(frame)) = self.next().await {
            bytes += frame.remaining();
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    }
}

impl<S, B, E> Stream for Body<S>
where
    S: Stream<Item = Result<B, E>> + Unpin,
{
    type Item = Result<B, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits = false;
        let item = ready!(self.stream.poll_next_unpin(context));
        // After an error nothing more comes either.
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}
