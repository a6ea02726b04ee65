//! File work through directory handles.
//!
//! A [`Dir`] is an open directory, and everything that happens below it happens relative to that handle, so the
//! kernel, not a string comparison, keeps a request inside its folder (`openat2(2)` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_MAGICLINKS`). Names and paths are bytes, checked once when they are made ([`Name`], [`RelPath`]).
//! No code outside this module and the tree engine opens, creates or removes anything on a volume.

pub(crate) mod cached;
mod dir;
mod entries;
mod error;
mod open;
mod path;
mod project;
mod replace;
mod stat;
mod stepwise;
#[cfg(test)]
mod tests;

pub(crate) use cached::{TMPFS_MAGIC, XFS_MAGIC};
pub use dir::{Capacity, Dir};
pub(crate) use entries::Batch;
pub use entries::{Entries, Entry};
pub use error::{FileError, is_escape, is_not_regular, is_reserved};
pub(crate) use open::kernel_resolves;
pub(crate) use path::Escaped;
pub use path::{MAX_NAME, MAX_PATH, Name, PathError, RelPath};
pub use project::{Project, project, set_project};
pub use replace::Replace;
pub(crate) use stat::set_mode_as_allowed;
pub use stat::{FileId, FileKind, MountedOn, Stat, Time};
pub use stepwise::link_target;
