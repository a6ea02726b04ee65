//! The quota model: a project for each scope, and for each bare folder that has a limit of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};
use common::protocol::{Listed, Project, RefusalKind, Reply, Request, Subject, VolumeName};

use super::super::quota::{Drift, QuotaModel, ScopeUsage};
use super::super::{DIR_MODE, Volume, scope_path, vfolder_path};
use super::figures::{self, Figures};
use super::helper::{Helper, HelperError};
use super::{audit, tag};
use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath, Replace};
use crate::jobs::blocking;

/// How often the end of a project is asked for while the kernel still clears away what was in it, and after what pause.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The projects of one volume.
pub(super) struct Projects {
    /// The volume's name, or why the helper cannot know it.
    volume: Result<VolumeName, OpError>,
    helper: Arc<Helper>,
}

impl Projects {
    pub(super) fn new(volume: &str, helper: Arc<Helper>) -> Self {
        Projects { volume: volume_name(volume), helper }
    }

    fn volume(&self) -> Result<VolumeName, OpError> {
        match &self.volume {
            Ok(name) => Ok(name.clone()),
            Err(error) => Err(OpError::QuotaFailed(error.to_string())),
        }
    }

    /// Asks for something that ends in a project; nothing where there is none.
    async fn find(&self, request: Request) -> Result<Option<Project>, OpError> {
        match self.helper.ask(request).await {
            // Project 0 is that of all other files: whatever is done to it is done to them.
            Ok(Reply::Project(Project { id: 0, .. })) => {
                Err(OpError::QuotaFailed("the quota helper named project 0; look into its log".into()))
            }
            Ok(Reply::Project(project)) => Ok(Some(project)),
            Ok(_) => Err(OpError::QuotaFailed("the quota helper answered another question".into())),
            Err(error) if error.refusal() == Some(RefusalKind::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the subject a project with this limit, found or allocated.
    pub(super) async fn ensure(&self, subject: Subject, limit: u64) -> Result<Project, OpError> {
        let request = Request::Create { volume: self.volume()?, subject, limit };
        self.find(request)
            .await?
            .ok_or_else(|| OpError::QuotaFailed("the quota helper made no project".into()))
    }

    /// The subject's project, if it has one.
    pub(super) async fn describe(&self, subject: Subject) -> Result<Option<Project>, OpError> {
        self.find(Request::Describe { volume: self.volume()?, subject }).await
    }

    /// Sets the limit of a project on record.
    pub(super) async fn set(&self, subject: Subject, limit: u64) -> Result<(), OpError> {
        self.find(Request::SetLimit { volume: self.volume()?, subject, limit }).await.map(drop)
    }

    /// A page of the projects on record.
    pub(super) async fn list(&self, after: Option<Subject>) -> Result<(Vec<Listed>, bool), OpError> {
        match self.helper.ask(Request::List { volume: self.volume()?, after }).await? {
            Reply::List { entries, more } => Ok((entries, more)),
            _ => Err(OpError::QuotaFailed("the quota helper answered another question".into())),
        }
    }

    /// Ends the subject's project, if it has one. What was removed a moment ago is cleared away first.
    pub(super) async fn end(&self, subject: Subject) -> Result<(), OpError> {
        let request = Request::Remove { volume: self.volume()?, subject };
        for _ in 1..TRIES {
            match self.helper.ask(request.clone()).await {
                Err(error) if error.refusal() == Some(RefusalKind::InUse) => tokio::time::sleep(PAUSE).await,
                outcome => return ended(outcome),
            }
        }
        ended(self.helper.ask(request).await)
    }

    /// Gives a directory that exists the project with this limit. What is in it already is put into the project too.
    async fn limit(&self, volume: &Arc<Volume>, at: Place, limit: u64) -> Result<(), OpError> {
        let (subject, opened) = (at.subject(), Arc::clone(volume));
        let tagged = blocking(move || tag::of(&at.open(&opened)?)).await?;
        let request = Request::SetLimit { volume: self.volume()?, subject, limit };
        let project = match self.find(request).await? {
            Some(project) => project,
            None if tagged == 0 => self.ensure(subject, limit).await?,
            None => {
                return Err(OpError::QuotaFailed(format!(
                    "its directory is in project {tagged}, which the quota helper has no record of; as root, run \
                     quota-helper rebuild"
                )));
            }
        };
        if tagged == project.id {
            return Ok(());
        }
        if tagged != 0 {
            return Err(OpError::QuotaFailed(format!(
                "its directory is in project {tagged} instead of {}; run storage-agent quota audit --repair",
                project.id
            )));
        }
        let opened = Arc::clone(volume);
        let done = blocking(move || tag::tree(&at.open(&opened)?, project.id, true)).await?;
        if let Some(example) = done.example {
            tracing::warn!(
                project = project.id,
                count = done.failed,
                example,
                "entries do not count against the limit"
            );
        }
        Ok(())
    }
}

/// What can have a project.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// A quota scope.
    Scope(QuotaScopeId),
    /// A bare folder.
    Folder(VfolderId),
}

impl Place {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Place::Scope(scope) => Subject::Scope(scope.uuid()),
            Place::Folder(id) => Subject::Folder(id.folder()),
        }
    }

    /// Opens its directory, which must be on the volume's own file system; no link is followed.
    pub(super) fn open(&self, volume: &Volume) -> Result<Dir, OpError> {
        let (path, missing) = match self {
            Place::Scope(scope) => (scope_path(scope)?, OpError::ScopeNotFound(*scope)),
            Place::Folder(id) => (vfolder_path(id)?, OpError::VfolderNotFound(*id)),
        };
        let root = volume.root()?;
        match root.open_dir_nofollow(&path) {
            Ok(dir) => same_file_system(&root, dir, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing),
            Err(error) if is_other(&error) => {
                let reason =
                    "a link or a file stands in the place of its directory, and has to be removed first"
                        .into();
                Err(OpError::Refused { reason, paths: vec![path.to_string()] })
            }
            Err(error) => Err(OpError::fs(error, &path)),
        }
    }
}

/// Whether opening a directory without following links found something else.
fn is_other(error: &io::Error) -> bool {
    [nix::libc::ENOTDIR, nix::libc::ELOOP].map(Some).contains(&error.raw_os_error())
}

fn same_file_system(root: &Dir, dir: Dir, path: &RelPath) -> Result<Dir, OpError> {
    let device = |dir: &Dir| dir.stat_self().map(|stat| stat.dev).map_err(|e| OpError::fs(e, path));
    if device(root)? == device(&dir)? {
        return Ok(dir);
    }
    let reason =
        "another file system is mounted at its place, so the volume's limits do not hold there".into();
    Err(OpError::Refused { reason, paths: vec![path.to_string()] })
}

#[async_trait]
impl QuotaModel for Projects {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        let (at, place) = (Arc::clone(volume), Place::Scope(*scope));
        let there = blocking(move || match place.open(&at) {
            Ok(dir) => Ok(Some(tag::of(&dir)? == 0 && is_empty(&dir)?)),
            Err(OpError::ScopeNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        });
        match there.await? {
            Some(false) => return Ok(false),
            // An administrator's mkdir.
            Some(true) => {
                self.limit(volume, place, limit.unwrap_or(0)).await?;
                return Ok(true);
            }
            None => {}
        }
        let project = self.ensure(place.subject(), limit.unwrap_or(0)).await?;
        let (at, scope) = (Arc::clone(volume), *scope);
        let made = blocking(move || make(&at, &scope, project.id)).await;
        if made.is_err()
            && project.created
            && let Err(error) = self.end(place.subject()).await
        {
            tracing::warn!(%scope, %error, "the project of a scope that could not be made stays until the next audit");
        }
        made
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let (at, scope) = (Arc::clone(volume), *scope);
        let removed = blocking(move || at.remove_scope_dir(&scope)).await;
        // Its directory counts against the project, so it goes first; a call that was refused after that goes on here.
        match &removed {
            Err(OpError::ScopeNotFound(_))
                if Projects::describe(self, Place::Scope(scope).subject()).await?.is_some() => {}
            _ => removed?,
        }
        self.end(Place::Scope(scope).subject()).await
    }

    async fn describe(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        let (at, place) = (Arc::clone(volume), Place::Scope(*scope));
        let (project, figures) = blocking(move || {
            let dir = place.open(&at)?;
            Ok((tag::of(&dir)?, figures::of(&at.root()?, &dir)?))
        })
        .await?;
        if project == 0 {
            return Ok(ScopeUsage { used_bytes: None, limit_bytes: Some(0) });
        }
        Ok(match figures {
            Figures::Known { limit, used } => ScopeUsage { used_bytes: Some(used), limit_bytes: Some(limit) },
            Figures::NotShown | Figures::Full { .. } => {
                match Projects::describe(self, place.subject()).await? {
                    Some(project) => {
                        ScopeUsage { used_bytes: Some(project.used), limit_bytes: Some(project.limit) }
                    }
                    None => ScopeUsage { used_bytes: None, limit_bytes: figures.limit() },
                }
            }
        })
    }

    async fn set_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError> {
        self.limit(volume, Place::Scope(*scope), limit).await
    }

    async fn unset_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        self.limit(volume, Place::Scope(*scope), 0).await
    }

    async fn folder_limit(&self, volume: &Arc<Volume>, id: Option<&VfolderId>) -> Result<u64, OpError> {
        let Some(id) = id else {
            return Err(OpError::Unsupported { backend: "xfs", what: "quota of the whole volume" });
        };
        let (at, place) = (Arc::clone(volume), Place::Folder(*id));
        let (project, figures) = blocking(move || {
            let dir = place.open(&at)?;
            Ok((tag::of(&dir)?, figures::of(&at.root()?, &dir)?))
        })
        .await?;
        match (project, figures.limit()) {
            (0, _) => Ok(0),
            (_, Some(limit)) if limit > 0 => Ok(limit),
            _ => Ok(Projects::describe(self, place.subject()).await?.map_or(0, |project| project.limit)),
        }
    }

    async fn set_folder_limit(
        &self,
        volume: &Arc<Volume>,
        id: &VfolderId,
        limit: u64,
    ) -> Result<(), OpError> {
        self.limit(volume, Place::Folder(*id), limit).await
    }

    async fn folder_purged(&self, _: &Arc<Volume>, id: &VfolderId) -> Result<(), OpError> {
        if id.is_bare() { self.end(Place::Folder(*id).subject()).await } else { Ok(()) }
    }

    async fn audit(
        &self,
        volume: &Arc<Volume>,
        deep: bool,
        repair: bool,
    ) -> Result<Option<Vec<Drift>>, OpError> {
        audit::run(self, volume, deep, repair).await.map(Some)
    }
}

/// Makes the scope's directory under another name, puts it into its project, and gives it its name last. An attempt
/// that was interrupted goes on with what is there. Whether the scope was missing until then.
fn make(volume: &Volume, scope: &QuotaScopeId, project: u32) -> Result<bool, OpError> {
    let path = scope_path(scope)?;
    let failed = |error| OpError::fs(error, &path);
    let root = volume.root()?;
    let Some((_, name)) = path.split_last() else { return Ok(false) };
    let draft = draft(scope)?;
    match root.mkdir(&draft, DIR_MODE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let tagged = root
        .open_dir_nofollow(&RelPath::from(draft.clone()))
        .map_err(failed)
        .and_then(|dir| tag::directory(&same_file_system(&root, dir, &path)?, project));
    let named = tagged.and_then(|()| root.rename(&draft, &root, name, Replace::No).map_err(failed));
    match named {
        Ok(()) => root.sync().map(|()| true).map_err(failed),
        Err(error) => {
            // Another request made the same scope at the same time: then its work counts.
            let there = volume.holder(Some(scope)).is_ok();
            drop(root.rmdir(&draft));
            if there { Ok(false) } else { Err(error) }
        }
    }
}

fn draft(scope: &QuotaScopeId) -> Result<Name, OpError> {
    let text = format!(".new-{}", scope.dir_name());
    Name::new(text.as_bytes()).map_err(|e| OpError::path(text.as_bytes(), &e))
}

fn is_empty(dir: &Dir) -> Result<bool, OpError> {
    Ok(dir.entries().map_err(|e| OpError::fs(e, &RelPath::root()))?.next().is_none())
}

fn volume_name(name: &str) -> Result<VolumeName, OpError> {
    name.parse().map_err(|reason| {
        OpError::QuotaFailed(format!("the quota helper cannot know a volume named {name:?}: {reason}"))
    })
}

fn ended(outcome: Result<Reply, HelperError>) -> Result<(), OpError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.refusal() == Some(RefusalKind::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl From<HelperError> for OpError {
    fn from(error: HelperError) -> Self {
        match error.refusal() {
            Some(RefusalKind::InvalidLimit) => OpError::QuotaConfig,
            _ => OpError::QuotaFailed(error.to_string()),
        }
    }
}
