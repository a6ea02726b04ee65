//! The listener against real sockets: what happens to peers that are slow, many, rude, or in the middle of something
//! when the service ends.

// clippy's exceptions for tests do not reach helpers of integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod limits;
mod log;
mod replies;
mod shutdown;
mod tls;
mod zero_copy;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rustls::ServerConfig;
use storage_agent::api::problem::Reply;
use storage_agent::api::routes::Routes;
use storage_agent::listener::{Connection, Limits, Listener, Stop, TrustedProxies, bind};
use storage_agent::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::{Buf, Filter, Reply as _};

/// Nothing in these tests may take longer.
const LONG: Duration = Duration::from_secs(5);

struct Server {
    address: SocketAddr,
    stop: Stop,
    metrics: Arc<Metrics>,
    task: JoinHandle<std::io::Result<()>>,
}

fn limits() -> Limits {
    Limits {
        header_timeout: LONG,
        keep_alive_timeout: LONG,
        body_timeout: LONG,
        write_timeout: LONG,
        url_size: 4 << 10,
        header_size: 16 << 10,
        header_fields: 100,
        read_buffer: 64 << 10,
        connections: 100,
        connections_per_peer: 100,
    }
}

fn start(limits: Limits) -> Server {
    start_with(limits, None, Arc::new(|_| false))
}

fn start_with(limits: Limits, tls: Option<Arc<ServerConfig>>, trusted: TrustedProxies) -> Server {
    start_routes(limits, tls, trusted, routes())
}

fn start_routes(
    limits: Limits,
    tls: Option<Arc<ServerConfig>>,
    trusted: TrustedProxies,
    routes: BoxedFilter<(Reply,)>,
) -> Server {
    let socket = bind("api.client.service-addr", "127.0.0.1", 0).unwrap();
    let metrics = Arc::new(Metrics::default());
    let listener = Listener::new("client", socket, tls, limits, trusted, Arc::clone(&metrics));
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = Stop::new();
    let task = tokio::spawn(listener.serve(Routes::only(routes), stopping));
    Server { address, stop, metrics, task }
}

/// Replies of the kinds that matter to a listener.
fn routes() -> BoxedFilter<(Reply,)> {
    let hello = warp::path("hello").map(|| Reply::new("hello".into()));
    let peer = warp::path("peer")
        .and(warp::ext::get::<Connection>())
        .map(|c: Connection| Reply::new(format!("{} {} {}", c.peer, c.secure, c.request_id).into()));
    let fall = warp::path("panic").map(|| -> Reply { panic!("on purpose") });
    let echo = warp::path("echo").and(warp::body::stream()).then(echo);
    let early = warp::path("early").map(|| {
        let mut reply = Reply::new("no".into());
        *reply.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        reply
    });
    let slow = warp::path("slow").map(|| streamed(20, Duration::from_millis(30)));
    let broken = warp::path("broken").map(broken);
    let large = warp::path("large").map(|| streamed(100_000, Duration::ZERO));
    let mirror = warp::path("mirror").and(warp::body::stream()).map(mirror);
    hello
        .or(peer)
        .unify()
        .or(fall)
        .unify()
        .or(echo)
        .unify()
        .or(early)
        .unify()
        .or(slow)
        .unify()
        .or(broken)
        .unify()
        .or(large)
        .unify()
        .or(mirror)
        .unify()
        .boxed()
}

/// Reads the body to its end and says how long it was.
async fn echo(mut body: impl futures_util::Stream<Item = Result<impl Buf, warp::Error>> + Unpin) -> Reply {
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes += chunk.remaining(),
            Err(_) => {
                let mut reply = Reply::new("the body ended".into());
                *reply.status_mut() = StatusCode::BAD_REQUEST;
                return reply;
            }
        }
    }
    Reply::new(format!("{bytes} bytes").into())
}

/// Sends back what arrives while it arrives.
fn mirror(
    body: impl futures_util::Stream<Item = Result<impl Buf + 'static, warp::Error>> + Send + Sync + 'static,
) -> Reply {
    warp::reply::stream(body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining()))))
        .into_response()
}

/// So many pieces of 4 KiB with a pause before each.
fn streamed(pieces: usize, pause: Duration) -> Reply {
    let pieces = futures_util::stream::iter(0..pieces).then(move |_| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 4096]))
    });
    warp::reply::stream(pieces).into_response()
}

/// A reply that panics after its first piece.
fn broken() -> Reply {
    let pieces = futures_util::stream::iter(0..2).map(|piece| {
        assert_eq!(piece, 0, "on purpose");
        Ok::<_, Infallible>(Bytes::from_static(b"begun"))
    });
    warp::reply::stream(pieces).into_response()
}

struct Peer(TcpStream);

impl Peer {
    async fn connect(server: &Server) -> Peer {
        Peer(TcpStream::connect(server.address).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a request and reads its reply's head and, by its Content-Length, its body.
    async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.reply().await
    }

    async fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Some(length) = length(head)
                && body.len() >= length
            {
                return text;
            }
            let mut piece = [0; 4096];
            let read = timeout(LONG, self.0.read(&mut piece)).await.unwrap().unwrap();
            assert!(read > 0, "connection ended after {text:?}");
            text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
    }

    /// Reads one piece of whatever comes.
    async fn rest_or_reply(&mut self) -> String {
        let mut piece = [0; 4096];
        let read = timeout(LONG, self.0.read(&mut piece)).await.unwrap().unwrap();
        String::from_utf8_lossy(&piece[..read]).into_owned()
    }

    /// Reads to the end of the connection. Fails if it ends by a reset.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        timeout(LONG, self.0.read_to_end(&mut rest)).await.expect("the connection did not end").unwrap();
        String::from_utf8(rest).unwrap()
    }
}

fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}
