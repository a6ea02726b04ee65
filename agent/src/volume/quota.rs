//! How a backend limits the space of a quota scope or a bare folder.

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};
use serde::Serialize;

use super::Volume;
use crate::error::OpError;

/// What is used of a scope and how much may be, in bytes; nothing where the backend cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ScopeUsage {
    /// Bytes in use.
    pub used_bytes: Option<u64>,
    /// The limit; 0 means none.
    pub limit_bytes: Option<u64>,
}

/// The quota part of a backend. Scope directories exist already when a method other than `prepare` is called.
#[async_trait]
pub trait QuotaModel: Send + Sync {
    /// Makes a new scope's directory count as a scope and sets its limit. The directory exists and is empty.
    async fn prepare(&self, volume: &Volume, scope: &QuotaScopeId, limit: Option<u64>)
    -> Result<(), OpError>;

    /// Use and limit of a scope.
    async fn describe(&self, volume: &Volume, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError>;

    /// Sets the limit of a scope in bytes.
    async fn set_limit(&self, volume: &Volume, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError>;

    /// Lifts the limit of a scope.
    async fn unset_limit(&self, volume: &Volume, scope: &QuotaScopeId) -> Result<(), OpError>;

    /// The limit of a bare folder in bytes (managers of 22.03 and 22.09).
    async fn folder_limit(&self, volume: &Volume, id: Option<&VfolderId>) -> Result<u64, OpError>;

    /// Sets the limit of a bare folder in bytes.
    async fn set_folder_limit(&self, volume: &Volume, id: &VfolderId, limit: u64) -> Result<(), OpError>;
}

/// A file system without limits: scopes are directories, their use and limit are unknown, and setting a
/// limit succeeds without effect, as managers expect of a plain volume.
pub(super) struct Unlimited {
    /// The backend's name, for errors.
    pub(super) backend: &'static str,
}

#[async_trait]
impl QuotaModel for Unlimited {
    async fn prepare(&self, _: &Volume, _: &QuotaScopeId, _: Option<u64>) -> Result<(), OpError> {
        Ok(())
    }

    async fn describe(&self, _: &Volume, _: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        Ok(ScopeUsage::default())
    }

    async fn set_limit(&self, _: &Volume, _: &QuotaScopeId, _: u64) -> Result<(), OpError> {
        Ok(())
    }

    async fn unset_limit(&self, _: &Volume, _: &QuotaScopeId) -> Result<(), OpError> {
        Ok(())
    }

    async fn folder_limit(&self, _: &Volume, _: Option<&VfolderId>) -> Result<u64, OpError> {
        Err(OpError::Unsupported { backend: self.backend, what: "quota of a single folder" })
    }

    async fn set_folder_limit(&self, _: &Volume, _: &VfolderId, _: u64) -> Result<(), OpError> {
        Err(OpError::Unsupported { backend: self.backend, what: "quota of a single folder" })
    }
}
