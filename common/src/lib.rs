//! The vocabulary that the agent, its configuration and the quota helper share: identifiers, sizes and
//! the protocol between the two processes.
//!
//! Everything here is linked into the one privileged process too, so it has few dependencies, does no I/O
//! and holds values that are valid by construction: a [`id::VfolderId`] that exists names a possible folder.

#![forbid(unsafe_code)]

pub mod id;
pub mod projects;
pub mod protocol;
pub mod size;
pub mod uuid;
