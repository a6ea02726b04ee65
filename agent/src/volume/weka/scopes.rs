//! Quota scopes as directories with a directory quota each.
//!
//! The quota is set while the directory is empty, also where there is no limit: then use is counted from the start, and
//! every later change is one of an existing quota, which needs no service that counts what is there already.

use std::sync::Arc;

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};

use super::cluster::{Cluster, Quota};
use crate::error::OpError;
use crate::jobs::detached;
use crate::volume::array::Sweep;
use crate::volume::{QuotaModel, ScopeUsage, Volume, scope_path};

/// The quota model.
#[derive(Clone)]
pub(super) struct Scopes(Arc<Inner>);

struct Inner {
    cluster: Arc<Cluster>,
    quotas: Sweep<u64, Quota>,
}

/// A scope's directory.
struct Place {
    inode: u64,
    empty: bool,
    path: String,
}

impl Scopes {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Scopes(Arc::new(Inner { cluster, quotas: Sweep::default() }))
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

    async fn describe(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        let (inode, cluster) = (place(volume, scope).await?.inode, &self.0.cluster);
        let quota = self.0.quotas.get(&inode, || cluster.quota(inode), || cluster.quotas()).await?;
        Ok(quota.map_or_else(ScopeUsage::default, |quota| ScopeUsage {
            used_bytes: quota.used,
            limit_bytes: Some(quota.limit.unwrap_or(0)),
        }))
    }

    async fn set_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError> {
        let (inner, volume, scope) = (Arc::clone(&self.0), Arc::clone(volume), *scope);
        let limit = Some(limit).filter(|limit| *limit > 0);
        detached(async move { inner.set(&place(&volume, &scope).await?, limit).await }).await
    }

    async fn unset_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let place = place(volume, scope).await?;
        if self.0.cluster.by_rpc {
            return self.0.set(&place, None).await;
        }
        // A directory without a quota has no limit to lift.
        self.0.cluster.change(place.inode, None).await?;
        self.0.quotas.forget(&place.inode).await;
        Ok(())
    }

    async fn folder_limit(&self, _: &Arc<Volume>, _: Option<&VfolderId>) -> Result<u64, OpError> {
        Err(NO_FOLDER_QUOTA)
    }

    async fn set_folder_limit(&self, _: &Arc<Volume>, _: &VfolderId, _: u64) -> Result<(), OpError> {
        Err(NO_FOLDER_QUOTA)
    }
}

const NO_FOLDER_QUOTA: OpError = OpError::Unsupported { backend: "weka", what: "quota of a single folder" };

impl Inner {
    async fn create(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        let of = *scope;
        let made = volume.run(move |at| at.make_scope_dir(&of)).await?;
        let place = place(volume, scope).await?;
        if !made {
            // An empty directory without a quota is what an interrupted creation leaves.
            let half_made =
                limit.is_some() && place.empty && self.cluster.quota(place.inode).await?.is_none();
            if !half_made {
                return Ok(false);
            }
        }
        let set = self.set(&place, limit).await;
        if set.is_err() && made {
            let of = *scope;
            if let Err(error) = volume.run(move |at| at.remove_scope_dir(&of)).await {
                tracing::warn!(volume = volume.name, %scope, %error, "a scope that got no quota stays");
            }
        }
        set.map(|()| true)
    }

    async fn set(&self, place: &Place, limit: Option<u64>) -> Result<(), OpError> {
        let set = self.cluster.set(place.inode, &place.path, limit).await;
        self.quotas.forget(&place.inode).await;
        Ok(set?)
    }

    /// The quota goes first, while the inode is known; it is put back if the directory stays after all.
    async fn remove(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let place = place(volume, scope).await?;
        if !place.empty {
            return Err(OpError::ScopeNotEmpty(*scope));
        }
        let before = self.cluster.quota(place.inode).await?;
        self.cluster.remove(place.inode).await?;
        self.quotas.forget(&place.inode).await;
        let of = *scope;
        let removed = volume.run(move |at| at.remove_scope_dir(&of)).await;
        if let (Err(error), Some(before)) = (&removed, before)
            && !error.is_not_found()
        {
            self.set(&place, before.limit).await?;
        }
        removed
    }
}

async fn place(volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<Place, OpError> {
    let of = *scope;
    volume
        .run(move |at| {
            let path = scope_path(&of)?;
            let dir = at.holder(Some(&of))?;
            let failed = |error| OpError::fs(error, &path);
            let inode = dir.stat_self().map_err(failed)?.ino;
            let empty = dir.entries().map_err(failed)?.next().is_none();
            Ok(Place { inode, empty, path: format!("/{path}") })
        })
        .await
}
