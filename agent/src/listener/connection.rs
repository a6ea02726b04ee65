//! The life of one connection: handshake, requests, and an end that the peer can understand.
//!
//! hyper drives the requests; this task decides when that is over. A connection is closed in the way of RFC 9112
//! section 9.6: our side first, then what the peer still sends is read and thrown away for a moment. Otherwise the
//! kernel answers those bytes with a reset, and a reply that was sent before (413, 401) is lost with it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::exchange::Exchanges;
use super::ktls::{self, Kernel};
use super::records::shake_hands;
use super::stop::{Stage, Stopping};
use super::transport::{Activity, Io, Transport};
use super::{Held, Limits, Shared};
use crate::api::routes::Routes;

/// How long a peer may go on sending what nobody will read.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection that was let in before the service ended may take to say something.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// Method, version and separators of a request line.
const REQUEST_LINE: usize = 64;

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nServer: storage-agent\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// When a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The service goes on.
    NotYet,
    /// When its first request is served, or does not come.
    AfterFirstWord,
    /// When the request under way is served.
    AfterRequest,
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    routes: Arc<Routes>,
    shared: Arc<Shared>,
    mut stopping: Stopping,
    _held: Held,
) {
    let secure = tls.is_some();
    // Who was let in before the end began gets an answer to the first request.
    let io = tokio::select! {
        biased;
        io = handshake(stream, tls, shared.limits.header_timeout) => io,
        () = stopping.reached(Stage::Aborting) => return,
    };
    let io = match io {
        Ok(io) => io,
        Err(error) => {
            tracing::debug!(api = shared.api, %peer, %error, "TLS handshake failed");
            shared.metrics.handshake_failed(shared.api);
            return;
        }
    };
    let activity = Arc::new(Activity::default());
    let zero_copy = io.sends_files();
    let transport = Transport::new(io, Arc::clone(&activity), &shared.limits);
    let (shared_too, activity_too) = (Arc::clone(&shared), Arc::clone(&activity));
    let service = Exchanges { shared: shared_too, activity: activity_too, peer, secure, zero_copy, routes };
    let mut connection = protocol(&shared.limits).serve_connection(TokioIo::new(transport), service);

    let mut end = End::NotYet;
    let outcome = loop {
        let next = if end == End::NotYet { Stage::Draining } else { Stage::Aborting };
        let first_word = sleep(FIRST_WORD);
        tokio::select! {
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break Some(outcome),
            () = stopping.reached(next) => match end {
                // hyper would close a connection on which nothing was said yet, though a request may be on its way.
                End::NotYet if activity.bytes().0 == 0 => end = End::AfterFirstWord,
                End::NotYet => end = End::AfterRequest,
                _ => break None,
            },
            () = first_word, if end == End::AfterFirstWord => end = End::AfterRequest,
        }
        if end == End::AfterRequest {
            Pin::new(&mut connection).graceful_shutdown();
        }
    };
    if let Some(Err(error)) = &outcome {
        tracing::debug!(api = shared.api, %peer, %error, "connection ended by an error");
    }
    if outcome.is_some() {
        finish(connection.into_parts().io.into_inner(), &activity).await;
    }
    let (received, sent) = activity.bytes();
    shared.metrics.connection_done(shared.api, received, sent);
}

fn protocol(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The transport watches the time for heads, so that a connection may rest longer between requests.
        .header_read_timeout(None)
        .max_headers(limits.header_fields)
        .max_header_size(limits.header_size + limits.url_size + REQUEST_LINE)
        .max_buf_size(limits.read_buffer)
        // A peer that has shut down its sending side after a request still gets its reply.
        .half_close(true);
    builder
}

async fn handshake(stream: TcpStream, tls: Option<TlsAcceptor>, limit: Duration) -> io::Result<Io> {
    let Some(tls) = tls else { return Ok(Io::Plain(stream)) };
    if !tls.config().enable_secret_extraction {
        let stream = timeout(limit, tls.accept(stream)).await??;
        return Ok(Io::Tls(Box::new(stream)));
    }
    let mut session = timeout(limit, shake_hands(&stream, tls.config())).await??;
    if ktls::can_have(&stream, &mut session) {
        return Ok(Io::Kernel(Kernel::new(stream, session)?));
    }
    // The handshake is over; this only puts stream and session together.
    Ok(Io::Tls(Box::new(tls.accept_with(stream, |fresh| *fresh = session).await?)))
}

/// Ends a connection on our side, then waits a moment for the peer to do the same.
async fn finish(mut transport: Transport, activity: &Activity) {
    transport.settle().await;
    let ended = timeout(LINGER, async {
        if activity.head_late() {
            transport.write_all(TOO_SLOW).await?;
        }
        transport.shutdown().await?;
        transport.drain().await
    });
    // Whatever fails here fails for a peer that is gone.
    let _ = ended.await;
}

/// Answers a connection that cannot be served, without reading a request.
pub(super) async fn refuse(mut stream: TcpStream, reply: &[u8]) {
    let refused = timeout(LINGER, async {
        stream.write_all(reply).await?;
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    });
    // Whatever fails here fails for a peer that is gone.
    let _ = refused.await;
}

/// The same without waiting for anything: a peer that has sent a request already may see a reset instead.
pub(super) fn refuse_at_once(stream: TcpStream, reply: &[u8]) {
    use std::io::Write as _;
    // The buffer of a new connection has room for it. Whatever fails here fails for a peer that is gone.
    let _ = stream.into_std().and_then(|mut stream| stream.write(reply));
}
