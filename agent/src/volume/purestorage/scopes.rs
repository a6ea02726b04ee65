//! Quota scopes on a FlashBlade: directories whose use is measured. No release of its REST API limits directories.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};

use crate::error::OpError;
use crate::tree::{Control, Interrupted};
use crate::volume::quota::Unlimited;
use crate::volume::{QuotaModel, ScopeUsage, Volume};

/// The use of a scope is unknown where measuring takes longer.
const LONGEST: Duration = Duration::from_secs(10);

/// The quota model. Making a scope takes a limit without effect, as the reference proxy does, since managers send one with
/// every first folder of a user; setting one is refused.
pub(super) struct Measured {
    pub(super) directories: Unlimited,
    pub(super) threads: usize,
}

#[async_trait]
impl QuotaModel for Measured {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        if let Some(limit) = limit {
            tracing::info!(volume = volume.name, %scope, limit, "FlashBlade has no limits of directories; none is set");
        }
        self.directories.create_scope(volume, scope, limit).await
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        self.directories.remove_scope(volume, scope).await
    }

    async fn describe(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        let (of, threads) = (*scope, self.threads);
        let measure = move |at: &Arc<Volume>| {
            let dir = at.holder(Some(&of))?;
            let control = Control::with_deadline(Instant::now() + LONGEST);
            match at.backend.trees.usage(&dir, &control, threads) {
                Ok(usage) => Ok(Some(usage.apparent_bytes)),
                Err(Interrupted::Deadline) => Ok(None),
                Err(error) => Err(OpError::from(error)),
            }
        };
        Ok(ScopeUsage { used_bytes: volume.run(measure).await?, limit_bytes: None })
    }

    async fn set_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId, _: u64) -> Result<(), OpError> {
        Err(OpError::Unsupported { backend: "purestorage", what: "limit of a quota scope" })
    }

    async fn unset_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId) -> Result<(), OpError> {
        Ok(())
    }

    async fn folder_limit(&self, volume: &Arc<Volume>, id: Option<&VfolderId>) -> Result<u64, OpError> {
        self.directories.folder_limit(volume, id).await
    }

    async fn set_folder_limit(
        &self,
        volume: &Arc<Volume>,
        id: &VfolderId,
        limit: u64,
    ) -> Result<(), OpError> {
        self.directories.set_folder_limit(volume, id, limit).await
    }
}
