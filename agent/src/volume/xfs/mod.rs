//! XFS with project quotas: the kernel enforces the limits, a helper with the one needed privilege sets them.
//!
//! The helper gives each scope or bare folder a project and a limit; the agent, which owns the directories, puts
//! them into the project, which needs no privilege. A new scope's directory gets its project before it gets its
//! name, so no scope is ever seen without its limit. Limits and use are read from `statfs(2)`, which tells those of
//! the project to anyone; the helper is asked only where that cannot tell.

mod audit;
mod examine;
mod figures;
mod helper;
mod model;
mod tag;

use std::sync::Arc;

use config::Config;

use self::helper::Helper;
use self::model::Projects;
use super::backend::Backend;
use super::gauge::Mounted;
use super::trees::Common;

/// The parts of an XFS volume.
pub(super) fn backend(volume: &config::Volume, config: &Config) -> Backend {
    let helper = Arc::new(Helper::new(&config.agent.quota_helper));
    Backend {
        name: "xfs",
        capabilities: &["vfolder", "quota"],
        quota: Box::new(Projects::new(&volume.name, Arc::clone(&helper))),
        trees: Arc::new(Common),
        gauge: Box::new(Mounted { backend: "xfs" }),
        examine: Box::new(examine::Xfs { helper }),
    }
}
