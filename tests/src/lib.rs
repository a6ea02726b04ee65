//! Harness of the end-to-end tests: it runs the real `storage-agent` and speaks HTTP to it byte by byte.
//!
//! Everything is built for hostile requests. The client writes whatever bytes a test hands it, tokens can be
//! forged, and a snapshot of the disk shows whether a refused request left a trace. Nothing here uses the
//! agent's own crates but the helper's protocol, so that a mistake in them can't hide from the tests.

pub mod agent;
pub mod archive;
pub mod certificate;
pub mod helper;
pub mod http;
pub mod jwt;
pub mod problem;
pub mod settings;
pub mod shape;
pub mod site;
pub mod snapshot;
pub mod table;
