//! The two HTTP APIs: they parse and validate, call one operation, and render one reply.
//!
//! Nothing here touches the file system; that is `vfolder` and `volume`, run on the blocking pool.

pub mod body;
pub mod client;
pub mod manager;
pub mod openapi;
pub mod params;
pub mod problem;
pub mod routes;
pub mod status;
pub mod text;
