//! Writing to a TCP socket when there may be markers among the buffers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::marker::{self, Found};
use super::transport::Activity;

/// Bytes that one connection may send without a pause, so that one whose peer is never slower than the page cache
/// lets others have the thread.
const TURN: usize = 8 << 20;

/// How much a connection has sent since it last waited for anything.
#[derive(Debug, Default)]
pub(super) struct Turn(usize);

/// Sends buffers up to and including the first marker. Without one this is a plain vectored write.
pub(super) fn poll_send(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
    connection: &Arc<Activity>,
    turn: &mut Turn,
) -> Poll<io::Result<usize>> {
    let Some((before, marker)) = marker::find(bufs) else {
        return Pin::new(stream).poll_write_vectored(cx, bufs);
    };
    let head = bufs.get(..before).unwrap_or_default();
    loop {
        let Poll::Ready(ready) = stream.poll_write_ready(cx) else {
            turn.0 = 0;
            return Poll::Pending;
        };
        ready?;
        match stream.try_io(Interest::WRITABLE, || send(stream, head, marker, connection)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => turn.0 = 0,
            outcome => {
                turn.0 += outcome.as_ref().map_or(0, |sent| *sent);
                return Poll::Ready(outcome);
            }
        }
    }
}

/// Whether this connection should let others go first. It is woken at once.
pub(super) fn poll_turn(turn: &mut Turn, cx: &mut Context<'_>) -> Poll<()> {
    if turn.0 < TURN {
        return Poll::Ready(());
    }
    turn.0 = 0;
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
