//! What a backend can say about a volume when the operator asks.

use std::sync::Arc;

use async_trait::async_trait;

use super::Volume;
use crate::finding::Finding;

/// The part of a backend that `storage-agent check` asks.
#[async_trait]
pub trait Examine: Send + Sync {
    /// Whether the volume has what this backend needs, each with a cure. With `online`, what is far away is asked too.
    async fn examine(&self, volume: &Arc<Volume>, online: bool) -> Vec<Finding>;
}

/// A backend that needs nothing but its directory, which is checked anyway.
pub(super) struct NothingMore;

#[async_trait]
impl Examine for NothingMore {
    async fn examine(&self, _: &Arc<Volume>, _: bool) -> Vec<Finding> {
        Vec::new()
    }
}
