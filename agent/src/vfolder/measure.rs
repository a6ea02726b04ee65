//! How much a vfolder holds.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::OpError;
use crate::fs::Dir;
use crate::tree::{Control, Interrupted, Usage};
use crate::volume::Trees;

/// Managers expect an answer, if only "unknown", after this time.
const LONGEST: Duration = Duration::from_secs(30);

/// What managers are told of a folder's content. Both are -1 where measuring takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FolderUsage {
    /// Every entry, directories included.
    pub file_count: i64,
    /// The sum of the entries' sizes.
    pub used_bytes: i64,
}

/// Counts the entries and their sizes.
pub fn folder_usage(trees: &dyn Trees, dir: &Dir, threads: usize) -> Result<FolderUsage, OpError> {
    match measure(trees, dir, threads)? {
        Some(usage) => {
            Ok(FolderUsage { file_count: figure(usage.entries), used_bytes: figure(usage.apparent_bytes) })
        }
        None => Ok(FolderUsage { file_count: -1, used_bytes: -1 }),
    }
}

/// Bytes allocated for the folder; -1 where measuring takes too long.
pub fn used_bytes(trees: &dyn Trees, dir: &Dir, threads: usize) -> Result<i64, OpError> {
    Ok(measure(trees, dir, threads)?.map_or(-1, |usage| figure(usage.allocated_bytes)))
}

fn measure(trees: &dyn Trees, dir: &Dir, threads: usize) -> Result<Option<Usage>, OpError> {
    match trees.usage(dir, &Control::with_deadline(Instant::now() + LONGEST), threads) {
        Ok(usage) => {
            if !usage.unread.is_empty() {
                tracing::warn!(count = usage.unread.count(), first = %usage.unread, "entries could not be measured");
            }
            Ok(Some(usage))
        }
        Err(Interrupted::Deadline) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn figure(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
