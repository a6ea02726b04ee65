//! Writing to a TCP socket when there may be markers among the buffers. Where the kernel does TLS, the same calls send
//! records.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_cork;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::marker::{self, Found};
use super::transport::Activity;

/// Bytes that one connection may send without a pause, so that one whose peer is never slower than the page cache
/// lets others have the thread.
const TURN: usize = 16 << 20;

/// What one call queues at once, so that no acknowledgement comes in between.
const FEW_PACKETS: u64 = 64 << 10;

/// How far a connection is with sending.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Bytes sent since it last waited for anything.
    turn: usize,
    /// Whether only full packets are sent at the moment (TCP_CORK, tcp(7)). Else each acknowledgement that comes in
    /// while the next part of a file is being queued sends off what there is of it, as packets of any size.
    corked: bool,
}

/// Sends buffers up to and including the first marker. Without one this is a plain vectored write.
pub(super) fn poll_send(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
    connection: &Arc<Activity>,
    sending: &mut Sending,
) -> Poll<io::Result<usize>> {
    let Some((before, marker)) = marker::find(bufs) else {
        sending.cork(stream, false)?;
        return Pin::new(stream).poll_write_vectored(cx, bufs);
    };
    if marker.left() > FEW_PACKETS {
        sending.cork(stream, true)?;
    }
    let head = bufs.get(..before).unwrap_or_default();
    loop {
        let Poll::Ready(ready) = stream.poll_write_ready(cx) else {
            sending.turn = 0;
            return Poll::Pending;
        };
        ready?;
        match stream.try_io(Interest::WRITABLE, || send(stream, head, marker, connection)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sending.turn = 0,
            outcome => {
                sending.turn += outcome.as_ref().map_or(0, |sent| *sent);
                if marker.left() == 0 {
                    sending.cork(stream, false)?;
                }
                return Poll::Ready(outcome);
            }
        }
    }
}

impl Sending {
    fn cork(&mut self, stream: &TcpStream, wanted: bool) -> io::Result<()> {
        if self.corked != wanted {
            set_tcp_cork(stream, wanted)?;
            self.corked = wanted;
        }
        Ok(())
    }
}

/// Whether this connection should let others go first. It is woken at once.
pub(super) fn poll_turn(sending: &mut Sending, cx: &mut Context<'_>) -> Poll<()> {
    if sending.turn < TURN {
        return Poll::Ready(());
    }
    sending.turn = 0;
    cx.waker().wake_by_ref();
    Poll::Pending
}

fn send(
    stream: &TcpStream,
    head: &[IoSlice<'_>],
    marker: Found,
    connection: &Arc<Activity>,
) -> io::Result<usize> {
    let length: usize = head.iter().map(|buf| buf.len()).sum();
    let sent = if length > 0 { send_head(stream, head)? } else { 0 };
    if sent < length {
        return Ok(sent);
    }
    match marker.send(stream, connection) {
        // What went wrong is still wrong the next time; first the head counts.
        Err(_) if sent > 0 => Ok(sent),
        outcome => outcome.map(|more| sent + more),
    }
}

/// Sends what comes before a file's bytes, so that both share their first packet.
fn send_head(stream: &TcpStream, head: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        match sendmsg(stream, head, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}
