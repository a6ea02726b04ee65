//! The tree engine on real files: what it keeps, what it never touches, and what it costs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

mod copy;
mod deep;
mod list;
mod race;
mod remove;
mod support;
mod usage;
mod walk;
