//! The storage agent: a non-root daemon that serves Backend.AI's virtual folders over two HTTP APIs.
//!
//! Data flows one way: `listener` -> `api` -> `vfolder` operations -> `volume` -> file system.

pub mod api;
pub mod app;
pub mod audit;
pub mod check;
pub mod cli;
pub mod demo;
pub mod error;
pub mod events;
pub mod finding;
pub mod fs;
pub mod health;
pub mod identity;
pub mod jobs;
mod kernel;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod notify;
pub mod pid_file;
pub mod reload;
pub mod sandbox;
pub mod serve;
pub mod tasks;
pub mod token;
pub mod top;
pub mod tree;
pub mod vfolder;
pub mod volume;
