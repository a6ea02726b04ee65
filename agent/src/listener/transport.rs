//! The byte stream below HTTP: plain TCP or TLS, with the time limits that HTTP itself does not know.
//!
//! All bytes of a connection pass through [`Transport`], and nothing else holds the socket. On a plain connection, and
//! where the kernel does TLS, a buffer that only names a file's bytes ([`super::marker`]) leaves by `sendfile(2)`; TLS
//! by rustls always copies.
//!
//! Three clocks run here. A request's head must be complete in a fixed time after its first byte (after the accept
//! for the first request); between requests a connection may rest for longer; and whoever does not take our bytes
//! loses the connection. How slowly a body may arrive is watched where it is read (`exchange`), because a pause
//! there can be ours.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::Limits;
use super::ktls::Kernel;
use super::sendfile::{Sending, poll_send, poll_turn};
use crate::vfolder::upload::share::{Portion, portion};

/// What the transport and the exchanges on it know of each other.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests begun so far.
    begun: AtomicU64,
    /// The number of the request that is under way, or 0 between requests.
    running: AtomicU64,
    head_late: AtomicBool,
    poisoned: AtomicBool,
    worn: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Activity {
    /// A request begins; its head has been read. The number is for [`Activity::end`].
    pub(super) fn begin(&self) -> u64 {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.running.store(number, Ordering::Release);
        number
    }

    /// The request of this number is over, its body and its reply included.
    pub(super) fn end(&self, number: u64) {
        // A body that is dropped late must not end the request after it.
        let _ = self.running.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    /// How many requests have begun.
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether the peer began a request and did not finish its head in time.
    pub(super) fn head_late(&self) -> bool {
        self.head_late.load(Ordering::Acquire)
    }

    /// Makes every later write fail, so that a reply which cannot be completed ends in a closed connection.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Whether nothing more is sent.
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// The connection should take no more requests.
    pub(super) fn wear(&self) {
        self.worn.store(true, Ordering::Release);
    }

    /// Whether the reply that is under way should be the connection's last.
    pub(super) fn is_worn(&self) -> bool {
        self.worn.load(Ordering::Acquire)
    }

    /// Bytes received and sent so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

/// The stream itself.
#[derive(Debug)]
pub(super) enum Io {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP, by rustls.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS over TCP, by the kernel.
    Kernel(Kernel),
}

impl Io {
    /// Whether it sends the bytes of a file that a marker stands for.
    pub(super) fn sends_files(&self) -> bool {
        !matches!(self, Io::Tls(_))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Kernel(kernel) => kernel.poll_read(cx, buf),
        }
    }
}

/// A connection's byte stream.
#[derive(Debug)]
pub(super) struct Transport {
    io: Io,
    activity: Arc<Activity>,
    header_timeout: Duration,
    keep_alive_timeout: Duration,
    write_timeout: Duration,
    /// The requests begun when the clock below was set.
    seen: u64,
    /// When the head that is arriving must be complete.
    head_due: Option<Instant>,
    /// When an idle connection is given up.
    idle_due: Option<Instant>,
    read_clock: Clock,
    write_clock: Clock,
    sending: Sending,
}

impl Transport {
    /// Wraps a stream that was just accepted.
    pub(super) fn new(io: Io, activity: Arc<Activity>, limits: &Limits) -> Self {
        Transport {
            io,
            activity,
            header_timeout: limits.header_timeout,
            keep_alive_timeout: limits.keep_alive_timeout,
            write_timeout: limits.write_timeout,
            seen: 0,
            head_due: Some(Instant::now() + limits.header_timeout),
            idle_due: None,
            read_clock: Clock::default(),
            write_clock: Clock::default(),
            sending: Sending::default(),
        }
    }

    /// Waits until what was sent is on its way for sure, as long as the peer takes some of it. Before a shutdown.
    pub(super) async fn settle(&self) {
        if let Io::Kernel(kernel) = &self.io
            && !self.activity.is_poisoned()
        {
            // Whatever fails here fails for a peer that is gone.
            let _ = kernel.settle(self.write_timeout).await;
        }
    }

    /// Reads and throws away what still comes, until the peer ends the connection too.
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        // Not on the stack: it would be a part of every connection's task from the beginning.
        let mut scrap = vec![0; 4096];
        while self.read(&mut scrap).await? > 0 {}
        Ok(())
    }

    /// Nothing can be read. Returns when the wait for it is over.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let now = Instant::now();
            if !self.activity.is_idle() {
                // No limit here, only a reminder to look again, since a request may end without a read.
                self.idle_due = None;
                ready!(self.read_clock.poll_at(now + self.keep_alive_timeout, cx));
                continue;
            }
            self.forget_finished();
            match self.head_due {
                Some(due) => {
                    ready!(self.read_clock.poll_at(due, cx));
                    self.activity.head_late.store(true, Ordering::Release);
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "request head too slow",
                    )));
                }
                None => {
                    let due = *self.idle_due.get_or_insert(now + self.keep_alive_timeout);
                    ready!(self.read_clock.poll_at(due, cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn forget_finished(&mut self) {
        let begun = self.activity.begun();
        if begun != self.seen {
            self.seen = begun;
            self.head_due = None;
            self.idle_due = None;
        }
    }

    fn note_received(&mut self, count: usize) {
        self.read_clock.stop();
        self.activity.received.fetch_add(count as u64, Ordering::Relaxed);
        if count > 0 && self.activity.is_idle() {
            self.forget_finished();
            self.head_due.get_or_insert_with(|| Instant::now() + self.header_timeout);
        }
    }

    /// Lets a write go on unless it has been stuck for too long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_clock.stop();
            return outcome;
        }
        let due = self.write_clock.due().unwrap_or_else(|| Instant::now() + self.write_timeout);
        ready!(self.write_clock.poll_at(due, cx));
        self.activity.poison();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no data")))
    }

    fn check_poison(&self) -> io::Result<()> {
        if self.activity.is_poisoned() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the reply cannot be completed"));
        }
        Ok(())
    }

    fn note_sent(&mut self, outcome: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(count)) = outcome else { return };
        self.activity.sent.fetch_add(*count as u64, Ordering::Relaxed);
        if let Io::Kernel(kernel) = &mut self.io {
            kernel.note_sent(*count, &self.activity);
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = match portion() {
            Portion::Full => this.io.poll_read(cx, buf),
            Portion::Bytes(most) => {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(most.min(buf.remaining())));
                let outcome = this.io.poll_read(cx, &mut part);
                let count = part.filled().len();
                buf.advance(count);
                outcome
            }
        };
        match outcome {
            Poll::Pending => this.poll_waiting(cx),
            Poll::Ready(outcome) => {
                this.note_received(buf.filled().len().saturating_sub(before));
                Poll::Ready(outcome)
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_poison()?;
        ready!(poll_turn(&mut this.sending, cx));
        let outcome = match &mut this.io {
            Io::Plain(stream) => poll_send(stream, cx, bufs, &this.activity, &mut this.sending),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Kernel(kernel) => poll_send(&mut kernel.stream, cx, bufs, &this.activity, &mut this.sending),
        };
        this.note_sent(&outcome);
        this.watch_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = match &mut this.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Kernel(kernel) => Pin::new(&mut kernel.stream).poll_flush(cx),
        };
        this.watch_write(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = match &mut this.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Kernel(kernel) => kernel.poll_shutdown(cx),
        };
        this.watch_write(cx, outcome)
    }
}

/// A timer that is set rarely and stopped often.
#[derive(Debug, Default)]
struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Clock {
    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn stop(&mut self) {
        self.due = None;
    }

    /// Ready at `due`. The clock is stopped then.
    fn poll_at(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if self.due != Some(due) {
            self.due = Some(due);
            sleep.as_mut().reset(due);
        }
        ready!(sleep.as_mut().poll(cx));
        self.due = None;
        Poll::Ready(())
    }
}
