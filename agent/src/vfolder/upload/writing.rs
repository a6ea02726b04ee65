//! One PATCH: from the check of its offset to what its end means for the session.

use std::io;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;

use super::checksum::Checksum;
use super::error::UploadError;
use super::finish;
use super::holder::Lease;
use super::receive::{End, Outcome, Sink, Source, Storing, receive};
use super::staging::{Found, Mark, Staging};
use super::{SyncPolicy, Upload, Uploads, find};
use crate::error::OpError;
use crate::fs::Dir;
use crate::volume::{Allowance, Volume};

/// A session that is ready to receive a body.
pub struct Writing {
    uploads: Arc<Uploads>,
    upload: Upload,
    folder: Dir,
    /// Nothing if the session is finished already and the request repeats the last one without a body.
    staging: Option<Staging>,
    length: Option<u64>,
    checksum: Option<Checksum>,
    allowance: Option<Box<dyn Allowance>>,
    /// The mark before which the bytes count, if there is one, and whether it moves on.
    mark: Option<(Mark, bool)>,
    // Let go last.
    lease: Lease,
}

/// What came of looking for a session to write to.
pub(super) enum Opened {
    /// It is this request's.
    Ready(Box<Writing>),
    /// Another process holds it, at the offset that the request is for.
    Elsewhere(Lease),
}

impl Writing {
    /// Finds the session and checks the request against it. Blocks.
    pub(super) fn open(
        uploads: Arc<Uploads>,
        lease: Lease,
        upload: Upload,
        offset: u64,
        length: Option<u64>,
        checksum: Option<Checksum>,
    ) -> Result<Opened, UploadError> {
        let folder = upload.volume.vfolder(&upload.vfid)?;
        let found = find(&folder, &upload)?;
        let actual = found.offset(upload.size)?;
        if actual != offset {
            return Err(UploadError::OffsetMismatch { actual });
        }
        if length.is_some_and(|length| length > upload.size.saturating_sub(offset)) {
            return Err(UploadError::TooLong { offset, size: upload.size });
        }
        lease.set_durable(offset);
        let staging = match found {
            Found::Open(staging) => Some(staging),
            Found::Locked(_) => return Ok(Opened::Elsewhere(lease)),
            Found::Done | Found::Missing => None,
        };
        let mut mark = None;
        if let Some(staging) = &staging {
            finish::check(&folder, &upload.target)?;
            let moves = checksum.is_none();
            if !moves || uploads.marks(&upload.volume) {
                let begun =
                    staging.begin_unverified().map_err(|error| UploadError::storage(error, offset))?;
                mark = Some((begun, moves));
            }
        }
        let allowance = upload.volume.backend.quota.allowance(&upload.volume, &upload.vfid)?;
        let writing = Writing { uploads, upload, folder, staging, length, checksum, allowance, mark, lease };
        Ok(Opened::Ready(Box::new(writing)))
    }

    /// Stores the body and answers with the new offset. Bytes of a body that breaks off are kept, unless they
    /// were to be verified by a checksum.
    ///
    /// Runs to its end even if the connection is gone, so it must not be dropped halfway: spawn it.
    pub async fn receive<S, B, E>(self, body: &mut S) -> Result<u64, UploadError>
    where
        S: Stream<Item = Result<B, E>> + Unpin,
        B: Buf,
    {
        let Writing { uploads, upload, folder, staging, length, checksum, allowance, mark, lease } = self;
        let Some(staging) = staging else { return Ok(upload.size) };
        let begin = staging.offset;
        let file = Arc::clone(&staging.file);
        let room = upload.size.saturating_sub(begin);
        let volume = Arc::clone(&upload.volume);
        let watch = Arc::new(staging.watch().map_err(|error| UploadError::storage(error, begin))?);
        let source = Source {
            body,
            room,
            idle: uploads.settings().body_idle,
            yields_after: uploads.settings().holder_idle,
            watch: Arc::clone(&watch),
            volume: Arc::clone(&volume),
            lease: &lease,
        };
        let verify = checksum.is_some();
        let marked = mark.is_some();
        let mark = mark.and_then(|(mark, moves)| moves.then_some(mark));
        let size = upload.size;
        let sink = Sink { file, offset: begin, size, checksum, allowance, mark, durable: begin };
        let outcome = receive(source, sink, &volume).await;
        lease.set_ending();
        let settle = move |sink, end| {
            let leaves = matches!(end, End::TakenOver);
            let received = Received { verify, marked, sink, end, length };
            let outcome = received.settle(&uploads, &folder, staging, &upload);
            if leaves {
                watch.answer();
            }
            drop(lease);
            outcome
        };
        match outcome {
            Outcome::Ended(sink, end) => {
                let settling = volume.spawn(move || settle(sink, end)).await;
                volume.unless_hanging(settling).await?.unwrap_or(Err(OpError::Inside.into()))
            }
            Outcome::Hanging(storing, hanging) => {
                tokio::spawn(settle_late(storing, volume, settle));
                Err(hanging.into())
            }
        }
    }
}

/// Keeps what a volume that hung has stored when it answers again; until then nobody else gets the session.
async fn settle_late(
    storing: Storing,
    volume: Arc<Volume>,
    settle: impl FnOnce(Option<Sink>, End) -> Result<u64, UploadError> + Send + 'static,
) {
    let sink = storing.await.ok().and_then(|(sink, _)| sink);
    let settling = volume.spawn(move || settle(sink, End::Broken)).await;
    if let Ok(Err(error)) = settling.await
        && !matches!(error, UploadError::Broken { .. })
    {
        tracing::warn!(volume = volume.name, %error, "what was received before the volume hung is lost");
    }
}

/// What came of a body.
struct Received {
    verify: bool,
    marked: bool,
    sink: Option<Sink>,
    end: End,
    length: Option<u64>,
}

impl Received {
    /// Makes the session's state durable, finishes the upload if it is complete, and says the new offset.
    fn settle(
        self,
        uploads: &Uploads,
        folder: &Dir,
        mut staging: Staging,
        upload: &Upload,
    ) -> Result<u64, UploadError> {
        let begin = staging.offset;
        let marked = self.marked;
        let (outcome, end) = self.judge(begin, upload.size);
        keep(uploads, &mut staging, end, marked)?;
        outcome?;
        if staging.offset == upload.size {
            uploads.finish(folder, staging, upload)?;
        }
        Ok(end)
    }

    /// The reply, and up to where the stored bytes count.
    fn judge(self, begin: u64, size: u64) -> (Result<(), UploadError>, u64) {
        let Some(sink) = self.sink else {
            let source = io::Error::other("writing failed inside");
            return (Err(UploadError::Storage { offset: begin, source }), begin);
        };
        let reached = if self.verify { begin } else { sink.offset };
        let short = self.length.is_some_and(|length| sink.offset - begin < length);
        match self.end {
            End::Complete if short => (Err(UploadError::Broken { offset: reached }), reached),
            End::Complete => match sink.checksum.map(Checksum::matches) {
                Some(false) => (Err(UploadError::Checksum { offset: begin }), begin),
                _ => (Ok(()), sink.offset),
            },
            End::Broken => (Err(UploadError::Broken { offset: reached }), reached),
            End::TakenOver => (Err(UploadError::TakenOver { offset: reached }), reached),
            End::TooLong => (Err(UploadError::TooLong { offset: begin, size }), begin),
            End::Failed(error) => (Err(UploadError::storage(error, reached)), reached),
        }
    }
}

/// Cuts the file off at `end` and makes it durable as the settings want it.
///
/// When that fails nothing is known of the new bytes, so the session goes back to where it was.
fn keep(uploads: &Uploads, staging: &mut Staging, end: u64, marked: bool) -> Result<(), UploadError> {
    let begin = staging.offset;
    let outcome = (|| {
        if staging.file.metadata()?.len() != end {
            staging.file.set_len(end)?;
        }
        let durable = match uploads.settings().sync {
            SyncPolicy::EachPatch => true,
            SyncPolicy::Last => marked,
            SyncPolicy::Never => false,
        };
        if durable && end > begin {
            staging.file.sync_data()?;
        }
        if marked { staging.forget_unverified() } else { Ok(()) }
    })();
    match outcome {
        Ok(()) => {
            staging.offset = end;
            Ok(())
        }
        Err(error) => {
            if let Err(error) = staging.truncate(begin) {
                tracing::error!(session = %staging.session, %error, "a staging file could not be cut off");
            }
            Err(UploadError::storage(error, begin))
        }
    }
}
