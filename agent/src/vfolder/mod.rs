//! Operations on virtual folders and on what is in them.
//!
//! Each takes directory handles and relative paths, never absolute ones; the kernel keeps it inside. All of
//! it is synchronous and runs on the blocking pool.

pub mod archive;
pub mod clone;
pub mod create;
pub mod delete;
pub mod files;
pub mod listing;
pub mod measure;
mod relocate;
pub mod upload;
