//! Receiving the body of one PATCH into the staging file.
//!
//! Frames are gathered into batches; one batch is written on the blocking pool while the next is gathered,
//! so at most two are in memory. How the body ends is reported, what that means is decided elsewhere.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::checksum::Checksum;
use super::holder::Lease;

/// A batch is written when it has this many bytes.
const BATCH: usize = 1024 * 1024;
/// A batch that grows more slowly is written after this time.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// Most buffers in one pwritev(2) (`IOV_MAX`).
const BUFFERS: usize = 1024;

/// How a body ended.
#[derive(Debug)]
pub(super) enum End {
    /// By its own end.
    Complete,
    /// By an error of the connection, or because nothing came for too long.
    Broken,
    /// With more bytes than allowed.
    TooLong,
    /// Because another request is to have the session.
    TakenOver,
    /// Because a batch could not be written.
    Failed(io::Error),
}

/// Where bytes go.
pub(super) struct Sink {
    /// The staging file.
    pub(super) file: Arc<File>,
    /// Where the next byte goes; everything before it is written.
    pub(super) offset: u64,
    /// The sum to keep of the bytes.
    pub(super) checksum: Option<Checksum>,
}

/// The body's frames and the limits of receiving them.
pub(super) struct Source<'a, S> {
    pub(super) body: &'a mut S,
    /// How many bytes may still come.
    pub(super) room: u64,
    /// How long nothing may come.
    pub(super) idle: Duration,
    pub(super) lease: &'a Lease,
}

struct Batch {
    frames: Vec<Bytes>,
    end: Option<End>,
}

/// Stores the body until it ends one way or another. The sink is lost only if writing panicked.
pub(super) async fn receive<S, B, E>(mut source: Source<'_, S>, sink: Sink) -> (Option<Sink>, End)
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let mut writing: JoinHandle<(Sink, io::Result<()>)> = tokio::task::spawn_blocking(|| (sink, Ok(())));
    loop {
        let batch = source.batch().await;
        if batch.end.is_some() {
            source.lease.set_ending();
        }
        let sink = match writing.await {
            Ok((sink, Ok(()))) => sink,
            Ok((sink, Err(error))) => return (Some(sink), End::Failed(error)),
            Err(_) => return (None, End::Failed(io::Error::other("writing panicked"))),
        };
        match batch.end {
            Some(end) if batch.frames.is_empty() => return (Some(sink), end),
            Some(end) => {
                let last = tokio::task::spawn_blocking(|| sink.write(batch.frames)).await;
                return match last {
                    Ok((sink, Ok(()))) => (Some(sink), end),
                    Ok((sink, Err(error))) => (Some(sink), End::Failed(error)),
                    Err(_) => (None, End::Failed(io::Error::other("writing panicked"))),
                };
            }
            None => writing = tokio::task::spawn_blocking(|| sink.write(batch.frames)),
        }
    }
}

impl<S, B, E> Source<'_, S>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    /// Gathers frames until there are enough, they take too long, or the body ends.
    async fn batch(&mut self) -> Batch {
        let begin = Instant::now();
        let mut batch = Batch { frames: Vec::new(), end: None };
        let mut bytes = 0;
        while bytes < BATCH && batch.end.is_none() {
            let patience = match batch.frames.is_empty() {
                true => self.idle,
                false => BATCH_TIME.saturating_sub(begin.elapsed()),
            };
            match self.lease.wait_for_client(timeout(patience, pin!(self.body.next()))).await {
                None => batch.end = Some(End::TakenOver),
                Some(Err(_)) if !batch.frames.is_empty() => break,
                Some(Err(_)) | Some(Ok(Some(Err(_)))) => batch.end = Some(End::Broken),
                Some(Ok(None)) => batch.end = Some(End::Complete),
                Some(Ok(Some(Ok(mut frame)))) => {
                    let length = frame.remaining();
                    if length as u64 > self.room {
                        batch.end = Some(End::TooLong);
                        break;
                    }
                    self.room -= length as u64;
                    bytes += length;
                    if length > 0 {
                        batch.frames.push(frame.copy_to_bytes(length));
                    }
                }
            }
        }
        batch
    }
}

impl Sink {
    /// Writes a batch at the offset and moves the offset by what was written, also when that fails midway.
    fn write(mut self, frames: Vec<Bytes>) -> (Self, io::Result<()>) {
        let before = self.offset;
        let outcome = self.write_all(&frames);
        if let Some(checksum) = &mut self.checksum {
            let mut written = self.offset - before;
            for frame in &frames {
                let part = usize::try_from(written).unwrap_or(usize::MAX).min(frame.len());
                checksum.update(frame.get(..part).unwrap_or_default());
                written -= part as u64;
            }
        }
        (self, outcome)
    }

    fn write_all(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let some = rest.get(..BUFFERS).unwrap_or(rest);
            match rustix::io::pwritev(&self.file, some, self.offset) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    let written = written?;
                    self.offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
            }
        }
        Ok(())
    }
}
