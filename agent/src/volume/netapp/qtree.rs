//! One existing qtree as the whole volume: the layout of configurations of 22.03 and 22.09.
//!
//! The qtree's quota is that of the volume. Scopes are plain directories in it, without limits of their own.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};

use super::ontap::Ontap;
use super::quotas::Quotas;
use crate::error::OpError;
use crate::jobs::detached;
use crate::volume::quota::Unlimited;
use crate::volume::{QuotaModel, ScopeUsage, Volume};

/// The quota model.
pub(super) struct QtreeQuota {
    ontap: Arc<Ontap>,
    qtree: String,
    quotas: Arc<Quotas>,
    scopes: Unlimited,
}

impl QtreeQuota {
    pub(super) fn new(ontap: Arc<Ontap>, qtree: String) -> Self {
        let quotas = Arc::new(Quotas::new(Arc::clone(&ontap)));
        QtreeQuota { ontap, qtree, quotas, scopes: Unlimited { backend: "netapp" } }
    }
}

/// The directory that holds the folders: the qtree below the mounted volume, or the mount itself where the qtree is what
/// is mounted.
pub(super) fn data_path(mounted: &Path, qtree: &str) -> PathBuf {
    let child = mounted.join(qtree);
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
    let is_mount_point = match (device(mounted), mounted.parent().map(device)) {
        (Ok(own), Some(Ok(above))) => own != above,
        _ => false,
    };
    if is_mount_point && !child.is_dir() { mounted.to_owned() } else { child }
}

#[async_trait]
impl QuotaModel for QtreeQuota {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        self.scopes.create_scope(volume, scope, limit).await
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        self.scopes.remove_scope(volume, scope).await
    }

    async fn describe(&self, _: &Arc<Volume>, _: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        Ok(ScopeUsage::default())
    }

    async fn set_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId, _: u64) -> Result<(), OpError> {
        Err(OpError::Unsupported {
            backend: "netapp",
            what: "limit of a single quota scope where one qtree is the volume; limit the volume instead",
        })
    }

    async fn unset_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId) -> Result<(), OpError> {
        Ok(())
    }

    async fn folder_limit(&self, _: &Arc<Volume>, id: Option<&VfolderId>) -> Result<u64, OpError> {
        match id {
            Some(_) => Err(super::no_folder_quota()),
            None => Ok(self.ontap.rule(&self.qtree).await?.and_then(|rule| rule.limit).unwrap_or(0)),
        }
    }

    async fn set_folder_limit(&self, _: &Arc<Volume>, _: &VfolderId, _: u64) -> Result<(), OpError> {
        Err(super::no_folder_quota())
    }

    async fn set_volume_limit(&self, _: &Arc<Volume>, limit: u64) -> Result<(), OpError> {
        let (quotas, qtree) = (Arc::clone(&self.quotas), self.qtree.clone());
        let limit = Some(limit).filter(|limit| *limit > 0);
        detached(async move { Ok(quotas.set(&qtree, limit, None).await?) }).await
    }
}
