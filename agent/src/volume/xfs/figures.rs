//! What `statfs(2)` tells of a project: inside a directory of a project with a limit it shows the limit as the size
//! and what is left of it as free (xfs_fs_statfs in the kernel). All of it blocks.

use crate::error::OpError;
use crate::fs::{Dir, RelPath};

/// Limit and use of a directory's project in bytes, as far as the kernel shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figures {
    /// Both are known.
    Known {
        /// The limit, never 0.
        limit: u64,
        /// What is used of it.
        used: u64,
    },
    /// There is no limit, or one that the whole file system is smaller than.
    NotShown,
    /// The limit is used up, by how much is not shown.
    Full {
        /// The limit, never 0.
        limit: u64,
    },
}

impl Figures {
    /// The limit, where it is shown.
    pub(super) fn limit(self) -> Option<u64> {
        match self {
            Figures::Known { limit, .. } | Figures::Full { limit } => Some(limit),
            Figures::NotShown => None,
        }
    }
}

/// The figures of `dir`, which lies on the file system of `root` and belongs to a project.
pub(super) fn of(root: &Dir, dir: &Dir) -> Result<Figures, OpError> {
    let figures = |dir: &Dir| dir.statfs().map_err(|e| OpError::fs(e, &RelPath::root()));
    let (whole, own) = (figures(root)?, figures(dir)?);
    Ok(if own.total >= whole.total {
        Figures::NotShown
    } else if own.available == 0 {
        Figures::Full { limit: own.total }
    } else {
        Figures::Known { limit: own.total, used: own.used() }
    })
}
