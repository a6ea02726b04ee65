//! What the process gives up before it answers anyone.
//!
//! CAP_SYS_ADMIN is all that it keeps and all that it passes on, as uid 0 or under a uid of its own. What it can do
//! with that is narrowed by a list of system calls and, where the kernel has Landlock, of files. Anything that cannot
//! be given up, or is found again afterwards, ends the start.

use std::error::Error;
use std::io;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc::{self, c_long};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

use crate::config::Config;
use crate::sys;

/// Programs that the kernel starts to load another one.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// The calls that the helper and `xfs_quota` need, at most 60. Each is used in the tests' runs under this list.
#[rustfmt::skip]
const SYSTEM_CALLS: &[c_long] = { use libc::*; &[
    // Files, and quotas of theirs.
    SYS_openat, SYS_close, SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_fstat, SYS_newfstatat,
    SYS_statx, SYS_statfs, SYS_fcntl, SYS_flock, SYS_ftruncate, SYS_fsync, SYS_ioctl, SYS_pipe2, SYS_quotactl,
    // The socket.
    SYS_accept4, SYS_recvmsg, SYS_sendto, SYS_getsockopt, SYS_setsockopt,
    // Memory.
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_brk,
    // Processes.
    SYS_clone, SYS_clone3, SYS_execve, SYS_wait4, SYS_kill, SYS_setpgid, SYS_chdir, SYS_exit_group,
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_set_tid_address,
    SYS_set_robust_list, SYS_rseq, SYS_gettid, SYS_prlimit64, SYS_sched_getaffinity, SYS_restart_syscall, SYS_futex,
    SYS_getrandom, SYS_clock_nanosleep, SYS_clock_gettime,
] };

/// The older and the newer names of the same.
#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
const MORE_SYSTEM_CALLS: &[c_long] = { use libc::*; &[
    SYS_access, SYS_readlink, SYS_rename, SYS_unlink, SYS_dup2, SYS_poll, SYS_arch_prctl, SYS_time,
] };
#[rustfmt::skip]
#[cfg(target_arch = "aarch64")]
const MORE_SYSTEM_CALLS: &[c_long] = { use libc::*; &[
    SYS_faccessat, SYS_readlinkat, SYS_renameat, SYS_unlinkat, SYS_dup3, SYS_ppoll,
] };

/// Gives everything up. The socket is open by then.
pub fn enter(config: &Config) -> Result<(), Box<dyn Error>> {
    sys::close_on_exec()?;
    // Each file is made with a mode of its own.
    umask(Mode::empty());
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64)?;
    setrlimit(Resource::RLIMIT_NPROC, 4, 4)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    let cure = "start as root, or with CapabilityBoundingSet= and AmbientCapabilities=CAP_SYS_ADMIN";
    reduce_capabilities().map_err(|error| format!("cannot keep CAP_SYS_ADMIN alone: {error}; {cure}"))?;
    restrict_files(config).map_err(|error| format!("cannot restrict files: {error}"))?;
    let allowed = sys::allow_system_calls(&[SYSTEM_CALLS, MORE_SYSTEM_CALLS].concat());
    allowed.map_err(|error| format!("cannot filter system calls: {error}").into())
}

/// Leaves CAP_SYS_ADMIN in every set, and nothing else.
fn reduce_capabilities() -> Result<(), Box<dyn Error>> {
    let only = CapsHashSet::from([Capability::CAP_SYS_ADMIN]);
    for capability in caps::read(None, CapSet::Bounding)?.difference(&only) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    // Inheritable and ambient, so that xfs_quota has it too when the uid is not 0.
    let sets = [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted, CapSet::Ambient];
    sets.iter().try_for_each(|set| caps::set(None, *set, &only))?;
    for set in sets.into_iter().chain([CapSet::Bounding]) {
        let held = caps::read(None, set)?;
        if held != only {
            return Err(format!("the {set:?} set is {held:?}").into());
        }
    }
    Ok(())
}

fn restrict_files(config: &Config) -> io::Result<()> {
    let mut writable = vec![config.state.as_path(), &config.projects, &config.projid];
    writable.extend(config.lock.as_deref().and_then(Path::parent));
    let mut programs = vec![config.xfs_quota.as_path()];
    programs.extend(LOADERS.iter().map(Path::new).filter(|loader| loader.exists()));
    if !sys::restrict_files(&writable, &programs)? {
        crate::log("this kernel has no Landlock: files are not restricted by it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stdout)]
    fn the_list_of_system_calls_is_short_and_has_none_that_gives_power() {
        let all = [SYSTEM_CALLS, MORE_SYSTEM_CALLS].concat();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        println!("{} system calls are allowed", all.len());
        assert_eq!(different.len(), all.len());
        assert!(all.len() <= 60, "{}", all.len());
        for forbidden in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_bpf,
            libc::SYS_ptrace,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_setgid,
            libc::SYS_capset,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_fchmod,
            libc::SYS_fchown,
            libc::SYS_execveat,
        ] {
            assert!(!all.contains(&forbidden), "{forbidden}");
        }
    }
}
