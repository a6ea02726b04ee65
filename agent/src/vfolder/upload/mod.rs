//! Resumable uploads: what a tus server keeps of them, and how bytes get to disk.
//!
//! A session is a staging file in the vfolder's `.upload` directory. Its size is the offset, so there is no
//! database, and any process that serves the volume can go on with it. When all bytes are there it is moved
//! to its place by one rename. HTTP is not known here: `api::client::upload` speaks tus.

mod checksum;
mod error;
mod finish;
mod holder;
mod receive;
mod session;
mod staging;
mod sweep;
#[cfg(test)]
mod tests;
mod writing;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::id::VfolderId;

pub use self::checksum::{ALGORITHMS, Checksum, ChecksumError};
pub use self::error::UploadError;
pub use self::finish::target;
use self::holder::{Holders, Patience};
pub use self::session::{STAGING, SessionId};
use self::staging::{Found, Staging, absent};
use self::sweep::{Counts, Schedule};
pub use self::writing::Writing;
use crate::error::OpError;
use crate::fs::{Dir, RelPath};
use crate::metrics::{Metrics, UploadEnd};
use crate::token::unix_now;
use crate::volume::Volume;

/// When received bytes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// At the end of each PATCH, so that every offset that a client was told survives a power failure.
    EachPatch,
    /// Before the last reply only.
    Last,
    /// When the file system sees fit.
    Never,
}

/// The settings of uploads.
#[derive(Debug, Clone, Copy)]
pub struct UploadSettings {
    /// When received bytes are made durable.
    pub sync: SyncPolicy,
    /// After how much waiting for its client a request may lose its session to a new one.
    pub holder_idle: Duration,
    /// How long a new request waits for the old one to put its data away.
    pub lock_wait: Duration,
    /// How long a body may pause before its connection counts as broken.
    pub body_idle: Duration,
    /// Most unfinished sessions in one vfolder.
    pub sessions_per_folder: usize,
    /// How long a finished session is remembered, at most until its token ends.
    pub done_retention: Duration,
    /// How long an unfinished session is kept since something last arrived.
    pub stale_after: Duration,
}

impl UploadSettings {
    /// What the configuration says of uploads.
    pub fn of(config: &config::Config) -> Self {
        UploadSettings {
            sync: match config.upload.fsync {
                config::Fsync::EveryPatch => SyncPolicy::EachPatch,
                config::Fsync::LastPatch => SyncPolicy::Last,
                config::Fsync::Never => SyncPolicy::Never,
            },
            holder_idle: config.upload.holder_idle,
            lock_wait: config.upload.lock_wait,
            body_idle: config.limits.body_idle_timeout,
            sessions_per_folder: config.limits.uploads_per_vfolder,
            done_retention: config.upload.done_retention,
            stale_after: config.upload.stale_after,
        }
    }
}

/// One upload, as a token and a request describe it.
#[derive(Clone)]
pub struct Upload {
    /// The volume.
    pub volume: Arc<Volume>,
    /// The vfolder.
    pub vfid: VfolderId,
    /// The session.
    pub session: SessionId,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's place, from [`target`].
    pub target: RelPath,
    /// When the token ends, in seconds since 1970.
    pub expires: i64,
}

/// The uploads of this process.
pub struct Uploads {
    settings: UploadSettings,
    holders: Arc<Holders>,
    counts: Counts,
    schedule: Arc<Schedule>,
    metrics: Arc<Metrics>,
}

impl Uploads {
    /// No upload yet.
    pub fn new(settings: UploadSettings) -> Self {
        Uploads {
            settings,
            holders: Arc::default(),
            counts: Counts::default(),
            schedule: Arc::default(),
            metrics: Arc::default(),
        }
    }

    /// Counts them there.
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Uploads { metrics, ..self }
    }

    /// Keeps cleaning staging directories; never returns.
    pub async fn sweep_forever(&self) {
        Arc::clone(&self.schedule).run(self.lifetime()).await;
    }

    /// Creates a session for a file of `size` bytes at `target`. Blocks.
    ///
    /// Clients send nothing at all for an empty file, so that one is made at once where there is nothing yet.
    pub fn create(
        &self,
        volume: &Arc<Volume>,
        id: &VfolderId,
        target: &RelPath,
        size: u64,
    ) -> Result<SessionId, OpError> {
        let folder = volume.vfolder(id)?;
        let session = self.new_session(&folder)?;
        if size == 0 {
            create_empty(&folder, target)?;
        }
        self.schedule.add(volume, *id, unix_now().saturating_add(self.lifetime()));
        self.metrics.upload_started();
        Ok(session)
    }

    fn new_session(&self, folder: &Dir) -> Result<SessionId, OpError> {
        let session = SessionId::random();
        let limit = self.settings.sessions_per_folder;
        let create = |area: &Dir| -> io::Result<bool> {
            if self.counts.with_new(area, self.lifetime(), limit)? > limit {
                return Ok(false);
            }
            area.create_new(&session::StagingName::Data(session).name()?, 0o644).map(|_| true)
        };
        let mut created = create(&staging::make_area(folder)?);
        // Another request may have removed the empty directory in between.
        if matches!(&created, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            created = create(&staging::make_area(folder)?);
        }
        match created {
            Ok(true) => Ok(session),
            Ok(false) => Err(OpError::Busy {
                what: "too many uploads are under way in this vfolder",
                key: "limits.uploads-per-vfolder",
            }),
            Err(error) => Err(in_staging(error)),
        }
    }

    /// The upload's offset. Finishes an upload that has all its bytes but was not moved to its place yet.
    pub async fn offset(self: &Arc<Self>, upload: Upload) -> Result<u64, UploadError> {
        if let Some(offset) = self.holders.durable_offset(upload.session, self.patience()) {
            return Ok(offset);
        }
        let lease = self.holders.acquire(upload.session, self.patience()).await.ok_or(UploadError::Held)?;
        let uploads = Arc::clone(self);
        blocking(move || {
            let outcome = uploads.offset_now(&upload);
            drop(lease);
            outcome
        })
        .await
    }

    fn offset_now(&self, upload: &Upload) -> Result<u64, UploadError> {
        let folder = upload.volume.vfolder(&upload.vfid)?;
        let found = find(&folder, upload)?;
        let offset = found.offset(upload.size)?;
        if let Found::Open(staging) = found {
            finish::check(&folder, &upload.target)?;
            if offset == upload.size {
                self.finish(&folder, staging, upload)?;
            }
        }
        Ok(offset)
    }

    fn finish(&self, folder: &Dir, staging: Staging, upload: &Upload) -> Result<(), UploadError> {
        let remembered = unix_now().saturating_add(seconds(self.settings.done_retention));
        let forget_at = upload.expires.min(remembered);
        finish::finish(folder, staging, &upload.target, forget_at, self.settings.sync)?;
        self.schedule.add(&upload.volume, upload.vfid, forget_at);
        if let Err(error) = sweep::remove_empty(folder) {
            tracing::warn!(%error, "an empty {STAGING} could not be removed");
        }
        Ok(())
    }

    /// Begins to write at `offset`, before anything of the body is read. `length` is what is known of the
    /// body's length.
    pub async fn begin(
        self: &Arc<Self>,
        upload: Upload,
        offset: u64,
        length: Option<u64>,
        checksum: Option<Checksum>,
    ) -> Result<Writing, UploadError> {
        let lease = self.holders.acquire(upload.session, self.patience()).await.ok_or(UploadError::Held)?;
        let uploads = Arc::clone(self);
        blocking(move || Writing::open(uploads, lease, upload, offset, length, checksum)).await
    }

    /// Ends an upload and removes what was stored of it, also while another request is writing.
    pub async fn terminate(self: &Arc<Self>, upload: Upload) -> Result<(), UploadError> {
        let lease = self.holders.seize(upload.session, self.patience()).await.ok_or(UploadError::Held)?;
        let outcome = blocking(move || {
            let outcome = terminate(&upload);
            drop(lease);
            outcome
        })
        .await;
        if outcome.is_ok() {
            self.metrics.upload_finished(UploadEnd::Terminated);
        }
        outcome
    }

    fn patience(&self) -> Patience {
        Patience { holder_idle: self.settings.holder_idle, lock_wait: self.settings.lock_wait }
    }

    /// How long an untouched session is kept, in seconds.
    fn lifetime(&self) -> i64 {
        seconds(self.settings.stale_after)
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn terminate(upload: &Upload) -> Result<(), UploadError> {
    let folder = upload.volume.vfolder(&upload.vfid)?;
    match find(&folder, upload)? {
        Found::Open(staging) => {
            staging.remove().map_err(in_staging)?;
            Ok(sweep::remove_empty(&folder).map_err(in_staging)?)
        }
        Found::Locked(_) => Err(UploadError::Held),
        // The file is the user's now; it is not for an upload token to remove it.
        Found::Done | Found::Missing => Err(UploadError::NoSession),
    }
}

fn find(folder: &Dir, upload: &Upload) -> Result<Found, UploadError> {
    Ok(Staging::find(folder, upload.session, upload.size).map_err(in_staging)?)
}

fn in_staging(source: io::Error) -> OpError {
    OpError::Fs { source, paths: vec![STAGING.into()] }
}

fn create_empty(folder: &Dir, target: &RelPath) -> Result<(), OpError> {
    let Some((parent, name)) = target.split_last() else { return Ok(()) };
    let parent = folder.mkdir_all(&parent, 0o755).map_err(|error| OpError::fs(error, target))?;
    if absent(parent.stat(name)).map_err(|error| OpError::fs(error, target))?.is_some() {
        return Ok(());
    }
    match parent.create_new(name, 0o644) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(OpError::fs(error, target)),
        _ => Ok(()),
    }
}

async fn blocking<T, F>(work: F) -> Result<T, UploadError>
where
    F: FnOnce() -> Result<T, UploadError> + Send + 'static,
    T: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(UploadError::Storage { offset: 0, source: io::Error::other("the upload failed inside") })
        }
    }
}
