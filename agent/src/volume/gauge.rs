//! The figures of a volume: capacity, health of the hardware, performance.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::Volume;
use crate::error::OpError;
use crate::fs::RelPath;

/// Size of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// All of it.
    pub capacity_bytes: u64,
    /// What is not available to an unprivileged user.
    pub used_bytes: u64,
}

/// Health of a volume. Managers check all three keys strictly and refuse any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// `healthy`, `degraded`, `offline` or `unavailable`.
    pub status: &'static str,
    /// A sentence, where there is something to say.
    pub status_info: Option<String>,
    /// Facts about the hardware.
    pub metadata: BTreeMap<String, String>,
}

/// Performance of a file system at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct FsPerfMetric {
    /// Read operations per second.
    pub iops_read: u64,
    /// Write operations per second.
    pub iops_write: u64,
    /// Bytes read per second.
    pub io_bytes_read: u64,
    /// Bytes written per second.
    pub io_bytes_write: u64,
    /// Microseconds per read operation.
    pub io_usec_read: f64,
    /// Microseconds per write operation.
    pub io_usec_write: f64,
}

/// The measuring part of a backend.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// How much the volume holds: the kernel's figures of its file system, unless the backend knows better.
    async fn capacity(&self, volume: &Arc<Volume>) -> Result<Capacity, OpError> {
        let statfs =
            |volume: &Arc<Volume>| volume.root()?.statfs().map_err(|e| OpError::fs(e, &RelPath::root()));
        let figures = volume.run(statfs).await?;
        Ok(Capacity { capacity_bytes: figures.total, used_bytes: figures.used() })
    }

    /// Health of the volume.
    async fn hardware(&self, volume: &Arc<Volume>) -> Result<Hardware, OpError>;

    /// Performance of the file system.
    async fn performance(&self, volume: &Arc<Volume>) -> Result<FsPerfMetric, OpError>;

    /// Takes leave of the storage at the end of the service, within a few seconds.
    async fn close(&self) {}
}

/// A mounted file system of which only the kernel's figures are known.
pub(super) struct Mounted {
    /// The backend's name, for errors.
    pub(super) backend: &'static str,
}

#[async_trait]
impl Gauge for Mounted {
    async fn hardware(&self, _: &Arc<Volume>) -> Result<Hardware, OpError> {
        Ok(Hardware { status: "healthy", status_info: None, metadata: BTreeMap::new() })
    }

    async fn performance(&self, _: &Arc<Volume>) -> Result<FsPerfMetric, OpError> {
        Err(OpError::Unsupported { backend: self.backend, what: "performance metric" })
    }
}
