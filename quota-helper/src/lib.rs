//! The two files in which XFS project quotas have their names: `/etc/projects` and `/etc/projid`.
//!
//! [`entry`] knows what a line of each file means, [`files`] reads a whole file within bounds, and [`audit`]
//! compares the two. Nothing here writes to them or needs a privilege.

#![forbid(unsafe_code)]

pub mod args;
pub mod audit;
pub mod entry;
pub mod files;
