//! One request and its reply on a connection: everything that is the same for all routes.
//!
//! An exchange gives the request its id, hands it to the routes, ends it with 408 when its body stops arriving,
//! turns a panic into a 500 that concerns nobody else, and sees to it that the access log gets its line at the
//! moment the reply is over.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SERVER};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, Sleep, sleep_until};

use super::access_log::Entry;
use super::marker::ZeroCopy;
use super::request_id;
use super::transport::Activity;
use super::under_way::{Told, UnderWay};
use super::{Connection, Limits, Shared};
use crate::api::problem::{Problem, Reply};
use crate::api::routes::Routes;
use crate::logging::said;

/// The header that carries a request's id in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const SERVER_NAME: HeaderValue = HeaderValue::from_static("storage-agent");

type BoxError = Box<dyn StdError + Send + Sync>;
type ReplyFuture = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;
type ByteBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// The service of one connection.
pub(super) struct Exchanges {
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<Activity>,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    /// Whether the connection sends files by itself.
    pub(super) zero_copy: bool,
    pub(super) routes: Arc<Routes>,
}

impl Service<Request<Incoming>> for Exchanges {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = ReplyFuture;

    fn call(&self, request: Request<Incoming>) -> ReplyFuture {
        let (mut head, body) = request.into_parts();
        let request_id = request_id::of(&head.headers);
        let from_proxy = self.shared.is_trusted_proxy(self.peer.ip());
        let metrics = Arc::clone(&self.shared.metrics);
        let entry =
            Entry::new(self.shared.api, self.peer, from_proxy, Arc::clone(&request_id), &head, metrics);
        head.extensions.insert(Connection {
            peer: self.peer,
            secure: self.secure,
            from_trusted_proxy: from_proxy,
            request_id,
            zero_copy: self.zero_copy.then(|| ZeroCopy::of(&self.activity)),
        });
        let exchange = Exchange::listed(entry, Arc::clone(&self.activity));
        if let Some(problem) = too_large(&head, &self.shared.limits) {
            return Box::pin(run(exchange, AssertUnwindSafe(std::future::ready(Ok(problem.reply())))));
        }
        let body = RequestBody::new(body, Arc::clone(&exchange), self.shared.limits.body_timeout);
        let routes = Arc::clone(&self.routes);
        // The route is chosen inside the future, so that a panic there is caught as well.
        let reply = async move {
            let route = routes.find(&head.method, head.uri.path());
            TowerToHyperService::new(warp::service(route)).call(Request::from_parts(head, body)).await
        };
        Box::pin(run(exchange, AssertUnwindSafe(reply)))
    }
}

/// Runs the routes and dresses what they say.
async fn run<F>(
    exchange: Arc<Exchange>,
    routes: AssertUnwindSafe<F>,
) -> Result<Response<ReplyBody>, Infallible>
where
    F: Future<Output = Result<Reply, Infallible>>,
{
    let unanswered = Unanswered(&exchange);
    let outcome = routes.catch_unwind().await;
    std::mem::forget(unanswered);
    let mut reply = match outcome {
        Ok(Ok(reply)) => reply,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            exchange.log_panic(panic.as_ref());
            Problem::internal("the storage agent failed to answer this request; see its log").reply()
        }
    };
    if exchange.body_late.load(Ordering::Acquire) {
        reply = body_too_slow();
    }
    let headers = reply.headers_mut();
    headers.insert(SERVER, SERVER_NAME);
    if let Ok(id) = HeaderValue::from_str(&exchange.entry.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if exchange.activity.is_worn() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.replied.store(true, Ordering::Release);
    Ok(ReplyBody::dress(reply, exchange))
}

/// hyper bounds a head as a whole; the parts have limits of their own.
fn too_large(head: &Parts, limits: &Limits) -> Option<Problem> {
    let url = head.uri.path_and_query().map_or(0, |url| url.as_str().len());
    if url > limits.url_size {
        return Some(
            Problem::new(StatusCode::URI_TOO_LONG, "storage/malformed-request", "URI Too Long").msg(format!(
                "the URL has {url} bytes, more than {} (limit limits.url-size)",
                limits.url_size
            )),
        );
    }
    // A colon, a blank and a line end belong to every field.
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (fields > limits.header_size).then(|| {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Problem::new(status, "storage/malformed-request", "Request Header Fields Too Large").msg(format!(
            "the header fields have {fields} bytes, more than {} (limit limits.header-size)",
            limits.header_size
        ))
    })
}

fn body_too_slow() -> Reply {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "storage/request-timeout", "Request Timeout")
        .msg("the request's body stopped arriving; send it again or go on where it ended")
        .header(CONNECTION, HeaderValue::from_static("close"))
        .reply()
}

/// Logs a request whose connection ended while the routes were still at work.
struct Unanswered<'a>(&'a Exchange);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.entry.finish(None, 0, false);
    }
}

/// What the request's body, its reply's body and the connection share. Gone when both bodies are.
struct Exchange {
    entry: Entry,
    activity: Arc<Activity>,
    number: u64,
    /// The request's body stopped arriving.
    body_late: AtomicBool,
    /// The reply's head has been given to the connection.
    replied: AtomicBool,
    /// What the connection had sent before.
    sent_before: u64,
    /// The place among the requests under way.
    listed: OnceLock<u64>,
}

impl Exchange {
    fn listed(entry: Entry, activity: Arc<Activity>) -> Arc<Self> {
        let (number, sent_before) = (activity.begin(), activity.bytes().1);
        let exchange = Arc::new(Exchange {
            entry,
            activity,
            number,
            body_late: AtomicBool::new(false),
            replied: AtomicBool::new(false),
            sent_before,
            listed: OnceLock::new(),
        });
        let weak: Weak<Exchange> = Arc::downgrade(&exchange);
        let place = exchange.entry.metrics.under_way.add(weak);
        exchange.listed.get_or_init(|| place);
        exchange
    }

    fn log_panic(&self, panic: &(dyn Any + Send)) {
        tracing::error!(
            request_id = &*self.entry.request_id,
            api = self.entry.api,
            method = %self.entry.method(),
            path = self.entry.path(),
            panic = said(panic),
            "a request made the storage agent panic; this is a defect, please report it",
        );
        self.entry.metrics.panics.inc();
    }
}

impl Told for Exchange {
    fn tell(&self) -> UnderWay {
        self.entry.under_way(self.activity.bytes().1.saturating_sub(self.sent_before))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(place) = self.listed.get() {
            self.entry.metrics.under_way.remove(*place);
        }
        self.activity.end(self.number);
    }
}

/// A request's body that fails when nothing arrives for too long while somebody waits for it.
struct RequestBody {
    body: Incoming,
    exchange: Arc<Exchange>,
    timeout: Duration,
    clock: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl RequestBody {
    fn new(body: Incoming, exchange: Arc<Exchange>, timeout: Duration) -> Self {
        RequestBody { body, exchange, timeout, clock: None, waiting: false }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = Instant::now() + self.timeout;
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if !self.waiting {
            clock.as_mut().reset(due);
            self.waiting = true;
        }
        clock.as_mut().poll(cx)
    }

    fn give_up(&self) -> BoxError {
        self.exchange.body_late.store(true, Ordering::Release);
        if self.exchange.replied.load(Ordering::Acquire) {
            // The status is out already: only an end of the connection can say that something went wrong.
            self.exchange.activity.poison();
        }
        "the request's body stopped arriving".into()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.exchange.body_late.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(this.give_up())));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = false;
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    this.exchange.entry.add_received(data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => match this.poll_clock(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(this.give_up()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body that knows when it is over.
pub(super) struct ReplyBody {
    body: ByteBody,
    exchange: Arc<Exchange>,
    status: StatusCode,
    sent: u64,
    /// The bytes that make it complete, where that is known.
    length: Option<u64>,
    ended: bool,
}

impl ReplyBody {
    fn dress(reply: Reply, exchange: Arc<Exchange>) -> Response<ReplyBody> {
        let (head, body) = reply.into_parts();
        let bodiless = exchange.entry.method() == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = if bodiless { Some(0) } else { declared.or_else(|| body.size_hint().exact()) };
        let body: ByteBody =
            Box::pin(http_body_util::BodyExt::map_err(body, |error| Box::new(error) as BoxError));
        let status = head.status;
        Response::from_parts(head, ReplyBody { body, exchange, status, sent: 0, length, ended: false })
    }

    fn is_complete(&self) -> bool {
        self.ended || self.length == Some(self.sent) || self.body.is_end_stream()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = match catch_unwind(AssertUnwindSafe(|| this.body.as_mut().poll_frame(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                this.exchange.log_panic(panic.as_ref());
                Poll::Ready(Some(Err("the reply failed midway".into())))
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => this.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(None) => this.ended = true,
            Poll::Ready(Some(Err(error))) => tracing::warn!(
                request_id = &*this.exchange.entry.request_id,
                %error,
                "a reply was broken off"
            ),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.exchange.entry.finish(Some(self.status), self.sent, self.is_complete());
    }
}
