//! Quota scopes as qtrees with a tree quota rule each: the layout of configurations from 23.03.5 on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};

use super::codes;
use super::ontap::{Ontap, Report};
use super::quotas::Quotas;
use crate::error::OpError;
use crate::fs::RelPath;
use crate::jobs::detached;
use crate::volume::array::{Kind, Sweep};
use crate::volume::{QuotaModel, ScopeUsage, Volume, scope_path};

/// How long a new qtree may take to show up on the mount: NFS clients remember for up to 30 s that a name is not there
/// (nfs(5), acdirmin).
const APPEARS: Duration = Duration::from_secs(35);
/// The first pause between two looks, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The quota model.
#[derive(Clone)]
pub(super) struct Scopes(Arc<Inner>);

struct Inner {
    ontap: Arc<Ontap>,
    quotas: Quotas,
    reports: Sweep<String, Report>,
}

impl Scopes {
    pub(super) fn new(ontap: Arc<Ontap>) -> Self {
        Scopes(Arc::new(Inner { quotas: Quotas::new(Arc::clone(&ontap)), ontap, reports: Sweep::default() }))
    }
}

#[async_trait]
impl QuotaModel for Scopes {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        let (inner, volume, scope) = (Arc::clone(&self.0), Arc::clone(volume), *scope);
        detached(async move { inner.create(&volume, &scope, limit).await }).await
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let (inner, volume, scope) = (Arc::clone(&self.0), Arc::clone(volume), *scope);
        detached(async move { inner.remove(&volume, &scope).await }).await
    }

    async fn describe(&self, _: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        let (name, ontap) = (scope.dir_name(), &self.0.ontap);
        let found = self.0.reports.get(&name, || ontap.report(&name), || ontap.all_reports()).await?;
        if let Some(report) = found {
            return Ok(ScopeUsage {
                used_bytes: report.used,
                limit_bytes: Some(report.limit.unwrap_or_default()),
            });
        }
        // Quotas are off, or the directory is no qtree.
        let rule = ontap.rule(&name).await?;
        let limit_bytes = rule.map(|rule| rule.limit.unwrap_or_default());
        Ok(ScopeUsage { used_bytes: None, limit_bytes })
    }

    async fn set_limit(&self, _: &Arc<Volume>, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError> {
        let (inner, name) = (Arc::clone(&self.0), scope.dir_name());
        detached(async move { inner.limit(&name, Some(limit).filter(|limit| *limit > 0), None).await }).await
    }

    async fn unset_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        self.set_limit(volume, scope, 0).await
    }

    async fn folder_limit(&self, _: &Arc<Volume>, _: Option<&VfolderId>) -> Result<u64, OpError> {
        Err(super::no_folder_quota())
    }

    async fn set_folder_limit(&self, _: &Arc<Volume>, _: &VfolderId, _: u64) -> Result<(), OpError> {
        Err(super::no_folder_quota())
    }
}

impl Inner {
    async fn create(
        self: Arc<Self>,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        let (name, coming) = (scope.dir_name(), limit.map(|_| self.quotas.announce()));
        let mut made = false;
        if self.ontap.qtree(&name).await?.is_none() {
            if on_disk(volume, scope).await? {
                tracing::warn!(volume = volume.name, %scope, "the scope is a directory but no qtree: it has no quota");
                return Ok(false);
            }
            made = self.make_qtree(&name).await?;
        }
        self.await_directory(volume, scope).await?;
        match limit {
            // An empty qtree without a rule is what an interrupted creation leaves.
            Some(_) if made || self.is_half_made(volume, scope).await? => {
                let limited = Arc::clone(&self).limit(&name, limit, coming).await;
                if limited.is_err() && made {
                    self.roll_back(volume, scope).await;
                }
                limited.map(|()| true)
            }
            Some(_) => Ok(false),
            None => {
                if made {
                    self.without_limit(&name).await?;
                }
                Ok(made)
            }
        }
    }

    /// Whether it was this call that made it.
    async fn make_qtree(&self, name: &str) -> Result<bool, OpError> {
        let Err(error) = self.ontap.make_qtree(name).await else { return Ok(true) };
        // The job or the connection may have failed after the work was done; another agent may have been faster.
        if self.ontap.qtree(name).await.is_ok_and(|found| found.is_some()) {
            return Ok(!error.has_code(codes::DUPLICATE));
        }
        if error.has_code(codes::NOT_MADE) {
            let problem = format!("{error}; a volume holds 4,994 qtrees at most, and so many quota scopes");
            return Err(self.ontap.client.error("make a qtree", Kind::Missing(problem)).into());
        }
        Err(error.into())
    }

    /// Waits until the array's qtree is a directory of the mount.
    async fn await_directory(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let deadline = Instant::now() + APPEARS;
        let (mut pause, longest) = PAUSE;
        while !on_disk(volume, scope).await? {
            if Instant::now() >= deadline {
                let problem = format!(
                    "the qtree {} is there, but no such directory appeared in {} within {} s; is the ONTAP volume {:?} mounted there?",
                    scope.dir_name(),
                    volume.path.display(),
                    APPEARS.as_secs(),
                    self.ontap.name
                );
                return Err(self.ontap.client.error("make a qtree", Kind::Missing(problem)).into());
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(longest);
        }
        Ok(())
    }

    async fn is_half_made(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<bool, OpError> {
        Ok(self.is_empty(volume, scope).await? && self.ontap.rule(&scope.dir_name()).await?.is_none())
    }

    async fn limit(
        self: Arc<Self>,
        name: &str,
        limit: Option<u64>,
        coming: Option<super::gate::Coming>,
    ) -> Result<(), OpError> {
        let outcome = self.quotas.set(name, limit, coming).await;
        self.reports.forget(&name.to_owned()).await;
        outcome.map_err(
            |error| if error.has_code(codes::BAD_LIMIT) { OpError::QuotaConfig } else { error.into() },
        )
    }

    /// A new scope without a limit: a rule that an older scope of this name left must not apply, and its use can be told
    /// only when quotas are on.
    async fn without_limit(self: &Arc<Self>, name: &str) -> Result<(), OpError> {
        if let Some(rule) = self.ontap.rule(name).await? {
            self.ontap.change_rule(&rule, None).await?;
        }
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = inner.quotas.ready().await {
                tracing::warn!(%error, "the use of quota scopes cannot be told before quotas are on");
            }
        });
        Ok(())
    }

    async fn roll_back(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) {
        if let Err(error) = self.remove(volume, scope).await {
            tracing::warn!(volume = volume.name, %scope, %error, "a scope that got no limit stays; creating it again repairs it");
        }
    }

    /// The directory goes last but one, so that a removal that fails can be asked for again: without a directory there is no
    /// scope.
    async fn remove(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let name = scope.dir_name();
        if !self.is_empty(volume, scope).await? {
            return Err(OpError::ScopeNotEmpty(*scope));
        }
        let rule = self.ontap.rule(&name).await?;
        if let Some(rule) = &rule {
            self.ontap.remove_rule(rule).await?;
        }
        self.reports.forget(&name).await;
        let of = *scope;
        match volume.run(move |at| at.remove_scope_dir(&of)).await {
            Ok(()) | Err(OpError::ScopeNotFound(_)) => {}
            // Some releases keep NFS clients from removing a qtree's root; the array's own way removes what is in it too,
            // so it is only for one that is empty.
            Err(OpError::Fs { source, .. })
                if is_refusal(&source) && self.is_empty(volume, scope).await? => {}
            Err(error) => {
                if let Some(limit) = rule.and_then(|rule| rule.limit) {
                    self.quotas.set(&name, Some(limit), None).await?;
                }
                return Err(error);
            }
        }
        match self.ontap.qtree(&name).await? {
            Some(number) => Ok(self.ontap.remove_qtree(number).await?),
            None => Ok(()),
        }
    }

    async fn is_empty(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<bool, OpError> {
        let of = *scope;
        volume
            .run(move |at| {
                let path = scope_path(&of)?;
                let mut entries = at.holder(Some(&of))?.entries().map_err(|e| OpError::fs(e, &path))?;
                Ok(entries.next().is_none())
            })
            .await
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy | io::ErrorKind::Unsupported
    )
}

/// Whether the scope's directory is there. On a miss the mount point is listed, which makes an NFS client ask the server.
async fn on_disk(volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<bool, OpError> {
    let of = *scope;
    volume
        .run(move |at| match at.holder(Some(&of)) {
            Ok(_) => Ok(true),
            Err(OpError::ScopeNotFound(_)) => {
                let root = RelPath::root();
                for entry in at.root()?.entries().map_err(|e| OpError::fs(e, &root))? {
                    entry.map_err(|e| OpError::fs(e, &root))?;
                }
                match at.holder(Some(&of)) {
                    Err(OpError::ScopeNotFound(_)) => Ok(false),
                    held => held.map(|_| true),
                }
            }
            Err(error) => Err(error),
        })
        .await
}
