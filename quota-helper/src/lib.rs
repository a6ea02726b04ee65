//! The privileged side of XFS project quotas: requests from the agent, `/etc/projects`, `/etc/projid` and
//! `xfs_quota(8)`.
//!
//! ```text
//! server   who may ask, how much and how fast          sandbox  what the process gives up before that
//!   |                                                    sys    its unsafe part
//! service  one function for each request
//!   |-- book    what the record and the files say together, which are lines of common::projects
//!   |-- files   the files, locked, and changed so that it survives crashes
//!   |-- mounts  where a volume is mounted                rebuild  ids that directories are tagged with
//!   '-- tool    xfs_quota
//! ```

/// A refusal: `refusal!(Kind: "message with {values}")`.
macro_rules! refusal {
    ($kind:ident: $($text:tt)+) => {
        common::protocol::Refusal::new(common::protocol::RefusalKind::$kind, format!($($text)+))
    };
}

pub mod book;
pub mod config;
pub mod files;
pub mod mounts;
pub mod rebuild;
pub mod sandbox;
pub mod server;
pub mod service;
mod sys;
pub mod tool;

/// Writes a line for the journal, in which nobody can hide another one.
pub fn log(text: &str) {
    use std::io::Write;
    // Without standard error there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{}", text.replace(char::is_control, "?"));
}
