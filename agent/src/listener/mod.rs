//! The listeners: accepted connections, limits and time limits, TLS, access log, and an orderly end.
//!
//! warp's own server has no header timeout, no connection limit and no TLS, and hides the socket. So the agent
//! accepts connections itself, drives hyper's HTTP/1 on each, and hands the requests to a warp filter as a service.
//! The socket stays ours, so that files can leave through [`transport`] without being copied.

mod access_log;
mod activation;
mod admission;
mod bind;
mod connection;
mod exchange;
mod ktls;
mod marker;
mod records;
mod request_id;
mod sendfile;
mod stop;
pub mod tls;
mod transport;
mod under_way;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

pub use self::access_log::TARGET as ACCESS_TARGET;
pub use self::activation::{Activation, ActivationError};
use self::admission::{Admission, Permit, Refusal};
pub use self::bind::{BindError, bind};
pub use self::exchange::REQUEST_ID;
pub use self::marker::{LONGEST as LONGEST_MARKER, ZeroCopy};
pub use self::stop::{Stage, Stop, Stopping};
pub use self::under_way::{Requests, UnderWay};
use crate::api::routes::Routes;
use crate::metrics::{Metrics, OpenConnection};

/// The reply to a connection that is too much.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: storage-agent\r\nRetry-After: 5\r\n\
Content-Type: application/problem+json; charset=utf-8\r\nContent-Length: 132\r\nConnection: close\r\n\r\n\
{\"type\":\"https://api.backend.ai/probs/storage/busy\",\"title\":\"Storage server is busy\",\
\"msg\":\"Too many connections; try again later\"}\n";
/// Refusals at a time that wait for their peers to read them; beyond that they are sent and nothing more.
const REFUSALS: usize = 64;
/// How often the same complaint is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request's head may take from its first byte, and a TLS handshake.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests.
    pub keep_alive_timeout: Duration,
    /// How long nothing of a request's body may arrive while it is waited for.
    pub body_timeout: Duration,
    /// How long a peer may take none of the bytes for it.
    pub write_timeout: Duration,
    /// Bytes of a request's URL.
    pub url_size: usize,
    /// Bytes of a request's header fields together.
    pub header_size: usize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// Bytes that a connection buffers while a body arrives; the larger, the fewer system calls.
    pub read_buffer: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one peer, trusted proxies excepted.
    pub connections_per_peer: usize,
}

/// What a handler may know of the connection that a request came on. It is in the request's extensions.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end of the connection; a proxy, where there is one.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether the peer's `X-Forwarded-*` headers can be believed.
    pub from_trusted_proxy: bool,
    /// The request's id, as in the access log and the reply.
    pub request_id: Arc<str>,
    /// How to send files without copying them; over TLS only where the kernel makes its records.
    pub zero_copy: Option<ZeroCopy>,
}

/// Says whether an address is that of a trusted proxy.
pub type TrustedProxies = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What all connections of a listener share.
struct Shared {
    api: &'static str,
    limits: Limits,
    trusted: TrustedProxies,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        (self.trusted)(peer.to_canonical())
    }
}

/// A listening socket with all that is needed to serve it.
pub struct Listener {
    socket: TcpListener,
    terms: Terms,
}

/// On what terms a listener takes new connections. A connection keeps those that it began with. Copies share them.
#[derive(Clone)]
pub struct Terms {
    present: Arc<RwLock<Present>>,
    admission: Arc<Admission>,
}

#[derive(Clone)]
struct Present {
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
}

impl Terms {
    /// Changes them for the connections to come.
    pub fn change(&self, tls: Option<Arc<ServerConfig>>, limits: Limits, trusted: TrustedProxies) {
        self.admission.resize(limits.connections, limits.connections_per_peer);
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        let Shared { api, metrics, .. } = &*present.shared;
        let shared = Shared { api, limits, trusted, metrics: Arc::clone(metrics) };
        *present = Present { tls: tls.map(TlsAcceptor::from), shared: Arc::new(shared) };
    }

    fn present(&self) -> Present {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener {
    /// Prepares to serve a socket that [`bind`] opened. `api` names it in logs and metrics.
    pub fn new(
        api: &'static str,
        socket: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        limits: Limits,
        trusted: TrustedProxies,
        metrics: Arc<Metrics>,
    ) -> Self {
        let admission = Admission::new(limits.connections, limits.connections_per_peer);
        let shared = Arc::new(Shared { api, limits, trusted, metrics });
        let present = Present { tls: tls.map(TlsAcceptor::from), shared };
        Listener { socket, terms: Terms { present: Arc::new(RwLock::new(present)), admission } }
    }

    /// The terms, to change them while it serves.
    pub fn terms(&self) -> Terms {
        self.terms.clone()
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether connections are TLS.
    pub fn is_tls(&self) -> bool {
        self.terms.present().tls.is_some()
    }

    /// For TLS, whether the kernel makes the records, and why not.
    pub fn kernel_tls(&self) -> Option<String> {
        self.terms.present().tls.map(|tls| tls::kernel(tls.config()))
    }

    /// Accepts and serves connections until `stopping` says otherwise. Returns when the last connection has
    /// ended. Must run inside the runtime; fails only if the socket cannot be handed to it.
    pub async fn serve(self, routes: Routes, mut stopping: Stopping) -> io::Result<()> {
        let Listener { socket, terms } = self;
        let routes = Arc::new(routes);
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let mut complaints = Complaints::default();
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        // Each connection holds a sender, so that the receiver hears when the last one is gone.
        let (alive, mut ended) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = stopping.reached(Stage::Draining) => break,
            };
            let Present { tls, shared } = terms.present();
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    back_off(&error, &shared, &mut complaints).await;
                    continue;
                }
            };
            let exempt = shared.is_trusted_proxy(peer.ip().to_canonical());
            match terms.admission.admit(peer.ip(), exempt) {
                Ok(permit) => {
                    let _ = stream.set_nodelay(true);
                    let open = shared.metrics.connection_opened(shared.api);
                    tokio::spawn(connection::serve(
                        stream,
                        peer,
                        tls,
                        Arc::clone(&routes),
                        Arc::clone(&shared),
                        stopping.clone(),
                        Held { _open: open, _permit: permit, _alive: alive.clone() },
                    ));
                }
                Err(refusal) => {
                    shared.metrics.connection_refused(shared.api);
                    complaints.refused(&shared, peer.ip(), refusal);
                    // A TLS peer would take a plain reply for a broken handshake; it is just closed.
                    if tls.is_some() {
                        continue;
                    }
                    match Arc::clone(&refusals).try_acquire_owned() {
                        Ok(turn) => drop(tokio::spawn(async move {
                            connection::refuse(stream, BUSY).await;
                            drop(turn);
                        })),
                        Err(_) => connection::refuse_at_once(stream, BUSY),
                    }
                }
            }
        }
        drop((socket, alive));
        let _ = ended.recv().await;
        Ok(())
    }
}

/// What a connection has as long as it lives.
struct Held {
    _open: OpenConnection,
    _permit: Permit,
    _alive: mpsc::Sender<()>,
}

/// Waits before the next accept where trying again at once would only burn time.
async fn back_off(error: &io::Error, shared: &Shared, complaints: &mut Complaints) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    complaints.accept_failed(shared, error);
    // No descriptor or no memory left: existing connections must end first.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Keeps the log readable when the same thing goes wrong a thousand times a second.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// How many complaints there were since the last one that was said; none if it is too early to say one.
    fn due(&mut self) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }

    fn refused(&mut self, shared: &Shared, peer: IpAddr, refusal: Refusal) {
        let Some(refused) = self.due() else { return };
        let (limit, key) = match refusal {
            Refusal::Full => (shared.limits.connections, "limits.connections"),
            Refusal::PeerFull => (shared.limits.connections_per_peer, "limits.connections-per-peer"),
        };
        tracing::warn!(api = shared.api, %peer, refused, limit, key, "connections refused: a limit is reached");
    }

    fn accept_failed(&mut self, shared: &Shared, error: &io::Error) {
        let Some(times) = self.due() else { return };
        tracing::error!(
            api = shared.api, %error, times,
            "connections cannot be accepted; where descriptors have run out, raise LimitNOFILE of the unit",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_reply_is_whole() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn the_same_complaint_is_said_once_a_minute() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.due(), Some(1));
        assert_eq!(complaints.due(), None);
        assert_eq!(complaints.due(), None);
        complaints.last = complaints.last.and_then(|last| last.checked_sub(COMPLAIN_EVERY));
        assert_eq!(complaints.due(), Some(3));
    }
}
