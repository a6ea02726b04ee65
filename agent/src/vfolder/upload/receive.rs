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
use super::share::{self, Share};
use super::staging::{Mark, Watch};
use crate::error::OpError;
use crate::volume::{Allowance, Room, Volume};

/// A batch that grows more slowly is written after this time.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// How long to wait before room is asked for again that is uncertain.
const UNCERTAIN: Duration = Duration::from_millis(250);
/// Bytes that may be lost by a crash where only durable ones count.
const AT_STAKE: u64 = 64 * 1024 * 1024;
/// What is written at once to a disk that is nearly full, in bytes.
const STEP: usize = 4096;
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
    /// The file's size when all bytes are there.
    pub(super) size: u64,
    /// The sum to keep of the bytes.
    pub(super) checksum: Option<Checksum>,
    /// What to ask for room, if it must be asked.
    pub(super) allowance: Option<Box<dyn Allowance>>,
    /// The mark to move on, on file systems where only durable bytes count.
    pub(super) mark: Option<Mark>,
    /// Up to where the bytes are durable.
    pub(super) durable: u64,
}

/// What came of a body.
pub(super) enum Outcome {
    /// It ended. The sink is lost only if writing panicked.
    Ended(Option<Sink>, End),
    /// The volume hangs; its last batch may still be written some time.
    Hanging(Storing, OpError),
}

/// A batch that is being written, and what comes of it. The sink is lost only if writing panicked.
pub(super) type Storing = JoinHandle<(Option<Sink>, io::Result<()>)>;

/// What came of an attempt to write a batch.
enum Stored {
    All,
    Failed(io::Error),
    /// Whether there is room is not known yet for these, the last of the batch.
    Waiting(Vec<Bytes>),
}

/// The body's frames and the limits of receiving them.
pub(super) struct Source<'a, S> {
    pub(super) body: &'a mut S,
    /// How many bytes may still come.
    pub(super) room: u64,
    /// How long nothing may come.
    pub(super) idle: Duration,
    /// After how long without anything the session goes to whoever wants it in another process.
    pub(super) yields_after: Duration,
    pub(super) watch: Arc<Watch>,
    pub(super) volume: Arc<Volume>,
    pub(super) lease: &'a Lease,
}

/// What waiting for the client brought.
enum Heard<T> {
    Something(T),
    /// Nothing for as long as may be.
    Nothing,
    /// Nothing, and another process wants the session.
    Wanted,
}

/// How often a silent client's session is looked at for another process that wants it.
const LOOK: Duration = Duration::from_secs(1);

struct Batch {
    frames: Vec<Bytes>,
    end: Option<End>,
}

/// Stores the body until it ends one way or another, or the volume hangs.
pub(super) async fn receive<S, B, E>(mut source: Source<'_, S>, sink: Sink, volume: &Arc<Volume>) -> Outcome
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let _share = Share::take();
    let store = |sink, frames| tokio::spawn(store(Arc::clone(volume), sink, frames));
    let mut storing: Storing = store(sink, Vec::new());
    loop {
        let batch = source.batch().await;
        if batch.end.is_some() {
            source.lease.set_ending();
        }
        let sink = match stored(storing, volume).await {
            Ok(sink) => sink,
            Err(outcome) => return outcome,
        };
        storing = store(sink, batch.frames);
        if let Some(end) = batch.end {
            return match stored(storing, volume).await {
                Ok(sink) => Outcome::Ended(Some(sink), end),
                Err(outcome) => outcome,
            };
        }
    }
}

/// Waits for a batch; the outcome of the whole body if this was the last.
async fn stored(mut storing: Storing, volume: &Arc<Volume>) -> Result<Sink, Outcome> {
    match volume.unless_hanging(&mut storing).await {
        Ok(Ok((Some(sink), Ok(())))) => Ok(sink),
        Ok(Ok((sink, Err(error)))) => Err(Outcome::Ended(sink, End::Failed(error))),
        Ok(_) => Err(Outcome::Ended(None, End::Failed(io::Error::other("writing panicked")))),
        Err(hanging) => Err(Outcome::Hanging(storing, hanging)),
    }
}

/// Writes a batch, waiting without a thread where room is uncertain. The sink is lost only if writing panicked.
async fn store(
    volume: Arc<Volume>,
    mut sink: Sink,
    mut frames: Vec<Bytes>,
) -> (Option<Sink>, io::Result<()>) {
    loop {
        let Ok((returned, stored)) = volume.spawn(|| sink.write(frames)).await.await else {
            return (None, Ok(()));
        };
        match stored {
            Stored::All => return (Some(returned), Ok(())),
            Stored::Failed(error) => return (Some(returned), Err(error)),
            Stored::Waiting(rest) => (sink, frames) = (returned, rest),
        }
        tokio::time::sleep(UNCERTAIN).await;
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
        let (mut bytes, enough) = (0, share::batch());
        while bytes < enough && batch.end.is_none() {
            let patience = match batch.frames.is_empty() {
                true => self.idle,
                false => BATCH_TIME.saturating_sub(begin.elapsed()),
            };
            let (yields_after, volume) = (self.yields_after, &self.volume);
            let listening = listen(self.body.next(), patience, yields_after, &self.watch, volume);
            match self.lease.wait_for_client(listening).await {
                None | Some(Heard::Wanted) => batch.end = Some(End::TakenOver),
                Some(Heard::Nothing) if !batch.frames.is_empty() => break,
                Some(Heard::Nothing | Heard::Something(Some(Err(_)))) => batch.end = Some(End::Broken),
                Some(Heard::Something(None)) => batch.end = Some(End::Complete),
                Some(Heard::Something(Some(Ok(mut frame)))) => {
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

/// Waits for the client at most for `patience`; from `yields_after` on only as long as nobody wants the session.
async fn listen<T>(
    event: impl Future<Output = T>,
    patience: Duration,
    yields_after: Duration,
    watch: &Arc<Watch>,
    volume: &Volume,
) -> Heard<T> {
    let begin = Instant::now();
    let mut event = pin!(event);
    let mut step = yields_after;
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        match timeout(step.min(left), &mut event).await {
            Ok(heard) => return Heard::Something(heard),
            Err(_) if begin.elapsed() >= patience => return Heard::Nothing,
            Err(_) => {}
        }
        let watch = Arc::clone(watch);
        let looking = async { volume.spawn(move || watch.is_wanted()).await.await };
        // On a volume that hangs the look hangs, too.
        match timeout(LOOK, looking).await {
            Ok(Ok(true)) => return Heard::Wanted,
            _ => step = LOOK,
        }
    }
}

impl Sink {
    /// Writes a batch, or what there is room for.
    fn write(mut self, mut frames: Vec<Bytes>) -> (Self, Stored) {
        while !frames.is_empty() {
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
            let room = match self.room(bytes) {
                Ok(Room::For(0)) => return (self, Stored::Failed(io::ErrorKind::QuotaExceeded.into())),
                Ok(Room::For(room)) => room,
                Ok(Room::Uncertain) => {
                    // What is counted decides, and only what is durable is counted soon.
                    let synced = self.file.sync_data();
                    return (self, synced.map_or_else(Stored::Failed, |()| Stored::Waiting(frames)));
                }
                Err(error) => return (self, Stored::Failed(error)),
            };
            let rest = split_off(&mut frames, room);
            if let Err(error) = self.append(&frames) {
                return (self, Stored::Failed(error));
            }
            frames = rest;
        }
        match self.move_mark() {
            Ok(()) => (self, Stored::All),
            Err(error) => (self, Stored::Failed(error)),
        }
    }

    fn move_mark(&mut self) -> io::Result<()> {
        let Some(mark) = &self.mark else { return Ok(()) };
        if self.offset - self.durable >= AT_STAKE {
            self.file.sync_data()?;
            mark.advance(self.offset)?;
            self.durable = self.offset;
        }
        Ok(())
    }

    fn room(&mut self, bytes: u64) -> io::Result<Room> {
        let rest = self.size.saturating_sub(self.offset);
        self.allowance
            .as_mut()
            .map_or(Ok(Room::For(bytes)), |allowance| allowance.claim(bytes, rest.max(bytes)))
    }

    /// Writes frames at the offset and moves the offset by what was written, also when that fails midway.
    fn append(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let before = self.offset;
        let outcome = self.write_all(frames);
        if let Some(checksum) = &mut self.checksum {
            let mut written = self.offset - before;
            for frame in frames {
                let part = usize::try_from(written).unwrap_or(usize::MAX).min(frame.len());
                checksum.update(frame.get(..part).unwrap_or_default());
                written -= part as u64;
            }
        }
        outcome
    }

    fn write_all(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let some = rest.get(..BUFFERS).unwrap_or(rest);
            match rustix::io::pwritev(&self.file, some, self.offset) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    return self.write_what_fits(rest);
                }
                written => {
                    let written = written?;
                    self.offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
            }
        }
        Ok(())
    }

    /// Goes on in small steps until there is no room even for the next. The kernel takes or refuses memory in pieces of up
    /// to some megabytes, of which the disk may have had room for a part.
    fn write_what_fits(&mut self, rest: &[IoSlice<'_>]) -> io::Result<()> {
        for mut bytes in rest.iter().map(|slice| &**slice) {
            while !bytes.is_empty() {
                let step = bytes.get(..STEP).unwrap_or(bytes);
                match rustix::io::pwrite(&self.file, step, self.offset) {
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    written => {
                        let written = written?;
                        self.offset += written as u64;
                        bytes = bytes.get(written..).unwrap_or_default();
                    }
                }
            }
        }
        Ok(())
    }
}

/// Leaves `room` bytes in `frames` and gives back the rest.
fn split_off(frames: &mut Vec<Bytes>, room: u64) -> Vec<Bytes> {
    let (mut kept, mut left) = (0, room);
    for frame in frames.iter() {
        let length = frame.len() as u64;
        if length > left {
            break;
        }
        (kept, left) = (kept + 1, left - length);
    }
    let mut rest = frames.split_off(kept);
    if let (Some(first), Ok(left @ 1..)) = (rest.first_mut(), usize::try_from(left)) {
        frames.push(first.split_to(left));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_at_the_very_byte() {
        let frames = || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de"), Bytes::from_static(b"f")];
        for (room, kept) in
            [(0, ""), (2, "ab"), (3, "abc"), (4, "abcd"), (5, "abcde"), (6, "abcdef"), (99, "abcdef")]
        {
            let mut first = frames();
            let rest = split_off(&mut first, room);
            assert_eq!(first.concat(), kept.as_bytes());
            assert_eq!([first, rest].concat().concat(), b"abcdef");
        }
    }
}
