//! CephFS: a file system that knows the size of every directory and can limit it, without root.
//!
//! A limit is an attribute of the directory, and so are the statistics of everything below it. The volume is a mount by
//! the kernel or by ceph-fuse, whose key needs the flag `p` to set limits; no other mount should have it, since whoever
//! may write a directory through such a mount may also lift its limit. Enforcing is up to the clients and lags behind
//! what is written; uploads are stopped in time all the same.

mod attributes;
mod client;
mod examine;
mod ledger;
mod quota;
mod trees;

use std::sync::Arc;

use config::Config;

use self::attributes::{Attributes, Real};
use self::examine::Mount;
use self::ledger::Ledger;
use self::quota::Directories;
use self::trees::Recursive;
use super::backend::Backend;
use super::gauge::Mounted;

const NAME: &str = "cephfs";

/// The parts of a CephFS volume; there is nothing to configure.
pub(super) fn backend(_: &config::Volume, _: &Config) -> Backend {
    with(Arc::new(Real))
}

fn with(attributes: Arc<dyn Attributes>) -> Backend {
    Backend {
        name: NAME,
        capabilities: &["vfolder", "quota", "fast-size"],
        quota: Box::new(Directories {
            ledger: Ledger::new(Arc::clone(&attributes)),
            attributes: Arc::clone(&attributes),
        }),
        trees: Arc::new(Recursive::new(Arc::clone(&attributes))),
        gauge: Box::new(Mounted { backend: NAME }),
        examine: Box::new(Mount { attributes }),
    }
}

#[cfg(test)]
mod tests;
