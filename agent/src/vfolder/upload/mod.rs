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
pub(crate) mod share;
mod staging;
mod survey;
mod sweep;
#[cfg(test)]
mod tests;
mod writing;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use common::id::VfolderId;

pub use self::checksum::{ALGORITHMS, Checksum, ChecksumError};
pub use self::error::UploadError;
pub use self::finish::target;
use self::holder::{Holders, Lease, Patience};
pub use self::session::{STAGING, SessionId};
use self::staging::{Found, Staging, Wanted, absent};
use self::sweep::{Counts, Schedule, Sweeper};
use self::writing::Opened;
pub use self::writing::Writing;
use crate::error::OpError;
use crate::events::{LEASE_OVER, Leases};
use crate::fs::{Dir, RelPath};
use crate::metrics::{Metrics, UploadEnd};
use crate::token::unix_now;
use crate::volume::{Volume, Volumes};

/// How often a session that another process holds is looked at.
const LOOK: Duration = Duration::from_millis(100);

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
    settings: RwLock<UploadSettings>,
    holders: Arc<Holders>,
    counts: Counts,
    schedule: Arc<Schedule>,
    metrics: Arc<Metrics>,
    leases: Option<Arc<Leases>>,
}

impl Uploads {
    /// No upload yet.
    pub fn new(settings: UploadSettings) -> Self {
        Uploads {
            settings: RwLock::new(settings),
            holders: Arc::default(),
            counts: Counts::default(),
            schedule: Arc::default(),
            metrics: Arc::default(),
            leases: None,
        }
    }

    /// Changes the settings, for requests that begin from now on.
    pub fn reconfigure(&self, settings: UploadSettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> UploadSettings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has them agreed on with other processes through these leases, where they are on.
    pub fn with_leases(self, leases: Arc<Leases>) -> Self {
        Uploads { leases: Some(leases), ..self }
    }

    async fn share(&self, lease: &mut Lease) -> bool {
        match &self.leases {
            Some(leases) => lease.share(leases).await,
            None => true,
        }
    }

    /// Counts them there.
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Uploads { metrics, ..self }
    }

    /// Keeps cleaning staging directories, also those that other processes left on these volumes; never returns.
    pub async fn sweep_forever(self: &Arc<Self>, volumes: &Volumes) {
        let uploads = Arc::clone(self);
        let sweeper = Sweeper {
            schedule: Arc::clone(&self.schedule),
            metrics: Arc::clone(&self.metrics),
            lifetime: Box::new(move || uploads.lifetime()),
        };
        sweeper.run(volumes).await;
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
        folder.allows(target).map_err(|error| OpError::fs(error, target))?;
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
        let limit = self.settings().sessions_per_folder;
        let create = |area: &Dir| -> io::Result<bool> {
            let (sessions, expired) = self.counts.with_new(area, self.lifetime(), limit)?;
            self.metrics.uploads_finished(UploadEnd::Expired, expired);
            if sessions > limit {
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
        let begin = Instant::now();
        let mut lease = loop {
            if let Some(offset) = self.holders.durable_offset(upload.session, self.patience()) {
                return Ok(offset);
            }
            // In small steps: a holder that has only just begun tells its offset in a moment.
            let acquiring = self.holders.acquire(upload.session, self.patience());
            match tokio::time::timeout(LOOK, acquiring).await {
                Ok(lease) => break lease.ok_or(UploadError::Held)?,
                Err(_) if begin.elapsed() >= self.settings().holder_idle + self.settings().lock_wait => {
                    return Err(UploadError::Held);
                }
                Err(_) => {}
            }
        };
        let begin = Instant::now();
        loop {
            let (uploads, at, ours) = (Arc::clone(self), upload.clone(), self.share(&mut lease).await);
            // Kept until the work is done, also when the volume hangs.
            let work = move |_: &Arc<Volume>| Ok((uploads.offset_now(&at, ours), lease));
            let (outcome, kept) = upload.volume.run::<_, UploadError, _>(work).await?;
            match outcome? {
                Some(offset) => return Ok(offset),
                None if begin.elapsed() >= self.elsewhere(self.settings().lock_wait) => {
                    return Err(UploadError::Held);
                }
                None => tokio::time::sleep(LOOK).await,
            }
            lease = kept;
        }
    }

    /// Nothing while another process puts away the last bytes: only when the file is at its place may a client be told
    /// that all is done.
    fn offset_now(&self, upload: &Upload, ours: bool) -> Result<Option<u64>, UploadError> {
        let folder = upload.volume.vfolder(&upload.vfid)?;
        let found = match ours {
            true => find(&folder, upload)?,
            false => Staging::look(&folder, upload.session).map_err(in_staging)?,
        };
        let offset = found.offset(upload.size)?;
        if matches!(found, Found::Locked(_)) && offset == upload.size {
            return Ok(None);
        }
        if let Found::Open(staging) = found {
            finish::check(&folder, &upload.target)?;
            if offset == upload.size {
                self.finish(&folder, staging, upload)?;
            }
        }
        Ok(Some(offset))
    }

    fn finish(&self, folder: &Dir, staging: Staging, upload: &Upload) -> Result<(), UploadError> {
        let remembered = unix_now().saturating_add(seconds(self.settings().done_retention));
        let forget_at = upload.expires.min(remembered);
        finish::finish(folder, staging, &upload.target, forget_at, self.settings().sync)?;
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
        let mut lease =
            self.holders.acquire(upload.session, self.patience()).await.ok_or(UploadError::Held)?;
        // A holder in another process that hears nothing of its client leaves within this time.
        let patience = self.elsewhere(self.settings().holder_idle + self.settings().lock_wait);
        let (begin, mut wanted) = (Instant::now(), None);
        let outcome = loop {
            if self.share(&mut lease).await {
                let (uploads, at, checksum) = (Arc::clone(self), upload.clone(), checksum.clone());
                let opening =
                    move |_: &Arc<Volume>| Writing::open(uploads, lease, at, offset, length, checksum);
                match upload.volume.run(opening).await {
                    Ok(Opened::Ready(writing)) => break Ok(*writing),
                    Ok(Opened::Elsewhere(kept)) => lease = kept,
                    Err(error) => break Err(error),
                }
            }
            if begin.elapsed() >= patience {
                break Err(UploadError::Held);
            }
            if wanted.is_none() {
                wanted = Some(want(&upload).await?);
            }
            tokio::time::sleep(LOOK).await;
        };
        if let Some(wanted) = wanted {
            drop(upload.volume.spawn(move || wanted.withdraw()).await);
        }
        outcome
    }

    /// How long to wait for another process: at least until the lease of a dead one is over.
    fn elsewhere(&self, patience: Duration) -> Duration {
        let leases = self.leases.as_ref().is_some_and(|leases| leases.are_on());
        if leases { patience.max(LEASE_OVER) } else { patience }
    }

    /// Ends an upload and removes what was stored of it, also while another request is writing.
    pub async fn terminate(self: &Arc<Self>, upload: Upload) -> Result<(), UploadError> {
        let mut lease = self.holders.seize(upload.session, self.patience()).await.ok_or(UploadError::Held)?;
        if !self.share(&mut lease).await {
            return Err(UploadError::Held);
        }
        let volume = Arc::clone(&upload.volume);
        let work = move |_: &Arc<Volume>| {
            let outcome = terminate(&upload);
            drop(lease);
            outcome
        };
        let outcome = volume.run(work).await;
        if outcome.is_ok() {
            self.metrics.upload_finished(UploadEnd::Terminated);
        }
        outcome
    }

    /// Whether bytes only count when they are durable, and are to be durable at all.
    fn marks(&self, volume: &Volume) -> bool {
        volume.backend.trees.sizes_outrun_data() && self.settings().sync != SyncPolicy::Never
    }

    fn patience(&self) -> Patience {
        Patience { holder_idle: self.settings().holder_idle, lock_wait: self.settings().lock_wait }
    }

    /// How long an untouched session is kept, in seconds.
    fn lifetime(&self) -> i64 {
        seconds(self.settings().stale_after)
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

async fn want(upload: &Upload) -> Result<Wanted, UploadError> {
    let (vfid, session) = (upload.vfid, upload.session);
    let post = move |volume: &Arc<Volume>| {
        Wanted::post(&volume.vfolder(&vfid)?, session).map_err(|error| UploadError::from(in_staging(error)))
    };
    upload.volume.run(post).await
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
