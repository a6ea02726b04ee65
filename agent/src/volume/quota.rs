//! How a backend limits the space of a quota scope or a bare folder.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};
use serde::Serialize;

use super::Volume;
use crate::error::OpError;
use crate::fs::{Dir, RelPath};

/// What is used of a scope and how much may be, in bytes; nothing where the backend cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ScopeUsage {
    /// Bytes in use.
    pub used_bytes: Option<u64>,
    /// The limit; 0 means none.
    pub limit_bytes: Option<u64>,
}

/// Entries of a scope: files, directories, links, whatever has a name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EntryUsage {
    /// How many there are.
    pub used_files: u64,
    /// How many may be.
    pub limit_files: u64,
}

/// How much a writer may write now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This many bytes; none when a limit is reached.
    For(u64),
    /// That is not known yet: the writer should make durable what it has, and ask again soon.
    Uncertain,
}

/// What tells a writer how much it may write, where the file system itself only does so when it is too late.
pub trait Allowance: Send {
    /// Asks for room for the next `bytes`, of `rest` that are still to come. Blocks.
    fn claim(&mut self, bytes: u64, rest: u64) -> io::Result<Room>;
}

/// The quota part of a backend. A limit of 0 bytes means none everywhere.
#[async_trait]
pub trait QuotaModel: Send + Sync {
    /// Makes a scope that is missing, with its limit, and finishes one that an interrupted call left half-made. Whether
    /// it was missing; the limit of one that was there stays.
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError>;

    /// Removes a scope in which there is nothing any more.
    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError>;

    /// Use and limit of a scope that exists.
    async fn describe(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError>;

    /// Sets the limit of a scope that exists, in bytes.
    async fn set_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError>;

    /// Lifts the limit of a scope that exists.
    async fn unset_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError>;

    /// The entries of a scope that exists, where their number is limited.
    async fn entry_usage(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
    ) -> Result<Option<EntryUsage>, OpError> {
        let _ = (volume, scope);
        Ok(None)
    }

    /// Sets how many entries a scope that exists may hold; 0 lifts the limit.
    async fn set_entry_limit(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: u64,
    ) -> Result<(), OpError> {
        let _ = (scope, limit);
        Err(OpError::Unsupported { backend: volume.backend.name, what: "limit on the number of files" })
    }

    /// The limit of a bare folder, or of the volume, in bytes (managers of 22.03 and 22.09).
    async fn folder_limit(&self, volume: &Arc<Volume>, id: Option<&VfolderId>) -> Result<u64, OpError>;

    /// Sets the limit of a bare folder that exists, in bytes.
    async fn set_folder_limit(&self, volume: &Arc<Volume>, id: &VfolderId, limit: u64)
    -> Result<(), OpError>;

    /// The limit in bytes that leaves the folder less room than the volume has, where the file system itself shows it. Many
    /// show a quota as their own size in `statfs(2)`. Blocks.
    fn limit_above(&self, volume: &Volume, id: &VfolderId) -> Result<Option<u64>, OpError> {
        let figures = |dir: &Dir| dir.statfs().map_err(|e| OpError::fs(e, &RelPath::root()));
        let (own, whole) = (figures(&volume.vfolder(id)?)?, figures(&volume.root()?)?);
        Ok((own.total < whole.total && own.available < whole.available).then_some(own.total))
    }

    /// What a writer to the folder must ask before each write; nothing where the file system stops it in time. Blocks.
    fn allowance(&self, volume: &Volume, id: &VfolderId) -> Result<Option<Box<dyn Allowance>>, OpError> {
        let _ = (volume, id);
        Ok(None)
    }

    /// Sets the limit of the whole volume, in bytes, where that is one to be set (capability `vfhost-quota`).
    async fn set_volume_limit(&self, volume: &Arc<Volume>, limit: u64) -> Result<(), OpError> {
        let _ = limit;
        Err(OpError::Unsupported { backend: volume.backend.name, what: "quota of the whole volume" })
    }

    /// Forgets what was kept for a folder that has been purged.
    async fn folder_purged(&self, volume: &Arc<Volume>, id: &VfolderId) -> Result<(), OpError> {
        let _ = (volume, id);
        Ok(())
    }

    /// Looks for limits that do not hold. With `deep`, each file is looked at; with `repair`, what can be put right is.
    /// Nothing where the backend keeps no books of its own that could differ.
    async fn audit(
        &self,
        volume: &Arc<Volume>,
        deep: bool,
        repair: bool,
    ) -> Result<Option<Vec<Drift>>, OpError> {
        let _ = (volume, deep, repair);
        Ok(None)
    }
}

/// Something about the limit of a scope or folder that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Which scope or folder.
    pub subject: String,
    /// What kind of trouble.
    pub kind: DriftKind,
    /// What exactly, and what to do where only a person can.
    pub detail: String,
    /// Whether it has been put right.
    pub repaired: bool,
}

/// The kinds of trouble with limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    /// A directory that nothing counts against.
    Untagged,
    /// A directory that counts against something that nobody knows.
    Unrecorded,
    /// A directory that counts against another's limit.
    OtherProject,
    /// Another limit than was asked for.
    OtherLimit,
    /// Two directories with one limit.
    SharedProject,
    /// A limit without a directory.
    Abandoned,
    /// Files that do not count against the limit of the directory they are in.
    Strays,
}

impl DriftKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Untagged,
        Self::Unrecorded,
        Self::OtherProject,
        Self::OtherLimit,
        Self::SharedProject,
        Self::Abandoned,
        Self::Strays,
    ];

    /// The word for metrics and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Untagged => "untagged",
            Self::Unrecorded => "unrecorded",
            Self::OtherProject => "other-project",
            Self::OtherLimit => "other-limit",
            Self::SharedProject => "shared-project",
            Self::Abandoned => "abandoned",
            Self::Strays => "strays",
        }
    }
}

/// A file system without limits: scopes are directories, their use and limit are unknown, and setting a
/// limit succeeds without effect, as managers expect of a plain volume.
pub(super) struct Unlimited {
    /// The backend's name, for errors.
    pub(super) backend: &'static str,
}

#[async_trait]
impl QuotaModel for Unlimited {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        _: Option<u64>,
    ) -> Result<bool, OpError> {
        let scope = *scope;
        volume.run(move |volume| volume.make_scope_dir(&scope)).await
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let scope = *scope;
        volume.run(move |volume| volume.remove_scope_dir(&scope)).await
    }

    async fn describe(&self, _: &Arc<Volume>, _: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        Ok(ScopeUsage::default())
    }

    async fn set_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId, _: u64) -> Result<(), OpError> {
        Ok(())
    }

    async fn unset_limit(&self, _: &Arc<Volume>, _: &QuotaScopeId) -> Result<(), OpError> {
        Ok(())
    }

    async fn folder_limit(&self, _: &Arc<Volume>, _: Option<&VfolderId>) -> Result<u64, OpError> {
        Err(OpError::Unsupported { backend: self.backend, what: "quota of a single folder" })
    }

    async fn set_folder_limit(&self, _: &Arc<Volume>, _: &VfolderId, _: u64) -> Result<(), OpError> {
        Err(OpError::Unsupported { backend: self.backend, what: "quota of a single folder" })
    }
}
