//! What the process shuts itself out of before it answers anyone: files by Landlock, system calls by seccomp.
//!
//! The packaged unit does much of the same from outside; this holds without systemd too, is tighter, as the agent knows
//! its own configuration, and can't be forgotten in a drop-in. Neither can be undone, so what a reload may read and write
//! is settled at the start. Both are process-wide, hence one state for the process.

mod calls;
mod places;

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use config::Config;
use nix::sys::prctl;
use thiserror::Error;

use self::places::{OLDEST, Places};
use crate::identity;
use crate::kernel;
use crate::volume;

/// Why the process can't shut itself in.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The rules about files were refused.
    #[error("agent.landlock: files cannot be restricted: {0}; set agent.landlock = false to serve without")]
    Landlock(#[source] io::Error),
    /// The filter was refused.
    #[error(
        "agent.seccomp: system calls cannot be filtered: {0}; set agent.seccomp = false to serve without"
    )]
    Seccomp(#[source] io::Error),
    /// It would hold for one thread only.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
}

/// Whether a part of the sandbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It holds.
    On,
    /// The configuration switched it off.
    Off,
    /// The kernel has none, or one that is too old.
    Missing,
}

impl Guard {
    /// As `/status` says it.
    pub fn word(self) -> &'static str {
        match self {
            Guard::On => "on",
            Guard::Off => "off",
            Guard::Missing => "unsupported",
        }
    }
}

/// What holds for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// Files: volumes, configuration, logs.
    pub landlock: Guard,
    /// System calls.
    pub seccomp: Guard,
    /// Whether programs may be started, for the tools of vendors.
    pub programs: bool,
}

static STATE: OnceLock<Sandbox> = OnceLock::new();

/// What the process is shut out of; everything is off before [`enter`].
pub fn state() -> Sandbox {
    let off = Sandbox { landlock: Guard::Off, seccomp: Guard::Off, programs: true };
    STATE.get().copied().unwrap_or(off)
}

/// What would hold with this configuration on this kernel.
pub fn intended(config: &Config) -> Sandbox {
    let landlock = match kernel::landlock_version() {
        _ if !config.agent.landlock => Guard::Off,
        Some(version) if version >= OLDEST => Guard::On,
        _ => Guard::Missing,
    };
    let seccomp = match prctl::get_no_new_privs() {
        _ if !config.agent.seccomp => Guard::Off,
        // A kernel without filters has no such field (proc_pid_status(5)).
        Ok(_) if has_filters() => Guard::On,
        _ => Guard::Missing,
    };
    Sandbox { landlock, seccomp, programs: volume::runs_programs(config) }
}

/// The volumes that would be shut out after they were unmounted and mounted again.
pub fn fixed_volumes(config: &Config) -> Vec<String> {
    places(config, &[], false).fixed
}

/// Shuts the process in. `files` are those that belong to the configuration. Privileges are gone by then, sockets and logs
/// are open, and there is one thread.
pub fn enter(config: &Config, files: &[PathBuf]) -> Result<Sandbox, SandboxError> {
    identity::require_one_thread()?;
    let sandbox = intended(config);
    if sandbox.landlock == Guard::On {
        let version = kernel::landlock_version().unwrap_or(OLDEST);
        let places = places(config, files, sandbox.programs);
        places.enforce(version).map_err(SandboxError::Landlock)?;
        for volume in &places.fixed {
            tracing::info!(
                volume,
                "mounted directly below /: after it was mounted anew, the agent must be restarted"
            );
        }
    }
    if sandbox.seccomp == Guard::On {
        let mut filter = calls::filter(sandbox.programs);
        kernel::filter_system_calls(&mut filter).map_err(SandboxError::Seccomp)?;
    }
    Ok(*STATE.get_or_init(|| sandbox))
}

fn places(config: &Config, files: &[PathBuf], programs: bool) -> Places {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Places::of(config, files, &mounts, programs)
}

fn has_filters() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nSeccomp:"))
}
