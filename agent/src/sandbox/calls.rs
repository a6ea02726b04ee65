//! Which system calls the process may make, as a filter for seccomp(2).
//!
//! The list is that of systemd's `@system-service` without `@privileged` and `@resources`, and without what an agent has
//! no business with: io_uring, key rings, other processes' memory, namespaces, System V IPC. What is not on it fails like a
//! missing permission; numbers that came after the list was written, and `clone3`, whose flags a filter can't see, fail as
//! if the kernel were older, and the C library then does without.

use nix::libc::{self, c_long, sock_filter};

use crate::kernel::CACHESTAT;

/// Calls that are allowed whatever their arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = { use libc::*; &[
    // Bytes.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_lseek, SYS_close, SYS_close_range, SYS_dup, SYS_dup3, SYS_pipe2, SYS_copy_file_range, SYS_sendfile,
    SYS_splice, SYS_tee, SYS_vmsplice, SYS_readahead, SYS_fadvise64, SYS_fallocate, SYS_ftruncate, SYS_truncate,
    SYS_fsync, SYS_fdatasync, SYS_syncfs, SYS_sync, SYS_sync_file_range, SYS_msync, SYS_ioctl, SYS_fcntl, SYS_flock,
    SYS_memfd_create, CACHESTAT,
    // Names and attributes.
    SYS_openat2, SYS_getdents64, SYS_statx, SYS_fstat, SYS_newfstatat, SYS_statfs, SYS_fstatfs, SYS_faccessat,
    SYS_faccessat2, SYS_readlinkat, SYS_linkat, SYS_symlinkat, SYS_unlinkat, SYS_renameat2, SYS_utimensat, SYS_getcwd,
    SYS_chdir, SYS_fchdir, SYS_umask, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_setxattr, SYS_lsetxattr,
    SYS_fsetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
    SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
    // Sockets.
    SYS_accept, SYS_accept4, SYS_bind, SYS_connect, SYS_listen, SYS_socketpair, SYS_shutdown, SYS_getsockname,
    SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
    SYS_recvmmsg,
    // Waiting.
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_signalfd4, SYS_ppoll,
    SYS_pselect6, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_timer_create, SYS_timer_settime,
    SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_setitimer, SYS_getitimer, SYS_futex, SYS_futex_waitv,
    SYS_sched_yield, SYS_membarrier,
    // Memory.
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_brk, SYS_madvise, SYS_mlock, SYS_mlock2, SYS_munlock,
    SYS_get_mempolicy,
    // Threads, signals, children.
    SYS_exit, SYS_exit_group, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_gettid,
    SYS_getpid, SYS_getppid, SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid, SYS_getuid, SYS_geteuid, SYS_getgid,
    SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_capget, SYS_prctl, SYS_getcpu, SYS_getpriority,
    SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_getattr, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_rr_get_interval, SYS_ioprio_get, SYS_prlimit64, SYS_getrusage, SYS_times,
    SYS_sysinfo, SYS_uname, SYS_getrandom, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_sigaltstack,
    SYS_restart_syscall, SYS_kill, SYS_tkill, SYS_tgkill, SYS_wait4, SYS_waitid, SYS_pidfd_open, SYS_pidfd_send_signal,
] };

/// The older names of the same.
#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = { use libc::*; &[
    SYS_access, SYS_stat, SYS_lstat, SYS_readlink, SYS_link, SYS_symlink, SYS_unlink, SYS_rmdir, SYS_rename, SYS_renameat,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_getdents, SYS_dup2, SYS_pipe, SYS_poll, SYS_select, SYS_epoll_create,
    SYS_epoll_wait, SYS_eventfd, SYS_signalfd, SYS_inotify_init, SYS_alarm, SYS_pause, SYS_time, SYS_getpgrp,
    SYS_getrlimit, SYS_arch_prctl,
] };
#[cfg(target_arch = "aarch64")]
const OLDER: &[c_long] = &[libc::SYS_renameat];

/// Calls that start a program, or a process that will.
#[cfg(target_arch = "x86_64")]
const PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_fork, libc::SYS_vfork];
#[cfg(target_arch = "aarch64")]
const PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// Calls that get the mode of a file: in which argument, and which bits are refused there. A directory's setgid bit is how
/// sites share a group, and set through an open directory; a filter can't tell that from an open file.
#[cfg(target_arch = "x86_64")]
const MODES: &[(c_long, u32, u32)] = &[
    (libc::SYS_fchmod, 1, SET_UID),
    (libc::SYS_fchmodat, 2, SET_ID),
    (FCHMODAT2, 2, SET_ID),
    (libc::SYS_mkdirat, 2, SET_ID),
    (libc::SYS_mknodat, 2, SET_ID),
    (libc::SYS_chmod, 1, SET_ID),
    (libc::SYS_mkdir, 1, SET_ID),
    (libc::SYS_mknod, 1, SET_ID),
    (libc::SYS_creat, 1, SET_ID),
];
#[cfg(target_arch = "aarch64")]
const MODES: &[(c_long, u32, u32)] = &[
    (libc::SYS_fchmod, 1, SET_UID),
    (libc::SYS_fchmodat, 2, SET_ID),
    (FCHMODAT2, 2, SET_ID),
    (libc::SYS_mkdirat, 2, SET_ID),
    (libc::SYS_mknodat, 2, SET_ID),
];

/// Calls that get a mode only with certain flags: the arguments of flags and mode.
#[cfg(target_arch = "x86_64")]
const OPENS: &[(c_long, u32, u32)] = &[(libc::SYS_openat, 2, 3), (libc::SYS_open, 1, 2)];
#[cfg(target_arch = "aarch64")]
const OPENS: &[(c_long, u32, u32)] = &[(libc::SYS_openat, 2, 3)];

/// Since Linux 6.6; the same number everywhere.
const FCHMODAT2: c_long = 452;
/// The newest call that was judged for the list: `mseal`.
const NEWEST: u32 = 462;
const SET_UID: u32 = 0o4000;
/// Set user id and set group id.
const SET_ID: u32 = 0o6000;
/// `O_CREAT`, and the bit that makes `O_TMPFILE` what it is (linux/fcntl.h).
const MAKES_FILE: u32 = libc::O_CREAT as u32 | 0o20_000_000;
/// New namespaces (clone(2)). `CLONE_NEWTIME` is none of them: clone3 alone takes it.
const NAMESPACES: u32 = 0x7e02_0000;
/// IP for clients, arrays and servers, Unix sockets for systemd and the helper, netlink for the resolver.
const FAMILIES: [u32; 4] =
    [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];

/// From linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`: the number, the architecture, the low half of an argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The filter; `programs` lets other programs be started.
pub(super) fn filter(programs: bool) -> Vec<sock_filter> {
    let foreign = give(libc::SECCOMP_RET_KILL_PROCESS);
    let mut filter = vec![load(ARCH), when(libc::BPF_JEQ, ARCHITECTURE, 1), foreign, load(NUMBER)];
    let programs = if programs { PROGRAMS } else { &[] };
    for call in [ALLOWED, OLDER, programs].concat() {
        filter.extend([unless(libc::BPF_JEQ, number(call), 1), give(ALLOW)]);
    }
    for (call, mode, refused) in MODES {
        let body = [load(argument(*mode)), unless(libc::BPF_JSET, *refused, 1), give(DENY), give(ALLOW)];
        only_for(*call, &body, &mut filter);
    }
    for (call, flags, mode) in OPENS {
        let body = [
            load(argument(*flags)),
            unless(libc::BPF_JSET, MAKES_FILE, 3),
            load(argument(*mode)),
            unless(libc::BPF_JSET, SET_ID, 1),
            give(DENY),
            give(ALLOW),
        ];
        only_for(*call, &body, &mut filter);
    }
    let clone = [load(argument(0)), unless(libc::BPF_JSET, NAMESPACES, 1), give(DENY), give(ALLOW)];
    only_for(libc::SYS_clone, &clone, &mut filter);
    let mut socket = vec![load(argument(0))];
    for family in FAMILIES {
        socket.extend([unless(libc::BPF_JEQ, family, 1), give(ALLOW)]);
    }
    socket.push(give(DENY));
    only_for(libc::SYS_socket, &socket, &mut filter);
    filter.extend([unless(libc::BPF_JEQ, number(libc::SYS_clone3), 1), give(UNKNOWN)]);
    filter.extend([unless(libc::BPF_JGT, NEWEST, 1), give(UNKNOWN), give(DENY)]);
    filter
}

/// What is done when the number is that of `call`. The body ends in an answer.
fn only_for(call: c_long, body: &[sock_filter], filter: &mut Vec<sock_filter>) {
    let over = u8::try_from(body.len()).unwrap_or(u8::MAX);
    filter.push(unless(libc::BPF_JEQ, number(call), over));
    filter.extend_from_slice(body);
}

/// Numbers of calls are small.
fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Leaps over so many statements unless the comparison with `k` holds.
fn unless(comparison: u32, k: u32, over: u8) -> sock_filter {
    sock_filter { jf: over, ..statement(libc::BPF_JMP | comparison | libc::BPF_K, k) }
}

/// Leaps over so many statements when the comparison with `k` holds.
fn when(comparison: u32, k: u32, over: u8) -> sock_filter {
    sock_filter { jt: over, ..statement(libc::BPF_JMP | comparison | libc::BPF_K, k) }
}

fn give(answer: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call, by running it as the kernel would.
    fn judged(filter: &[sock_filter], call: c_long, arguments: [u32; 4]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            let code = u32::from(step.code);
            match code & 0x07 {
                libc::BPF_LD => {
                    value = match step.k {
                        NUMBER => number(call),
                        ARCH => ARCHITECTURE,
                        offset => arguments[(offset as usize - 16) / 8],
                    }
                }
                libc::BPF_RET => return step.k,
                _ => {
                    let holds = match code & 0xf0 {
                        libc::BPF_JEQ => value == step.k,
                        libc::BPF_JGT => value > step.k,
                        libc::BPF_JSET => value & step.k != 0,
                        other => panic!("comparison {other:#x}"),
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    #[test]
    fn what_gives_power_is_refused() {
        let filter = filter(false);
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_bpf,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_setgid,
            libc::SYS_capset,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_quotactl,
            libc::SYS_setpriority,
            libc::SYS_sched_setaffinity,
            libc::SYS_personality,
        ] {
            assert_eq!(judged(&filter, call, [0; 4]), DENY, "{call}");
        }
        assert_eq!(judged(&filter, libc::SYS_clone3, [0; 4]), UNKNOWN);
        assert_eq!(judged(&filter, 9_999, [0; 4]), UNKNOWN);
    }

    #[test]
    fn programs_are_started_only_where_that_is_wanted() {
        assert_eq!(judged(&filter(true), libc::SYS_execve, [0; 4]), ALLOW);
        assert_eq!(judged(&filter(true), libc::SYS_mount, [0; 4]), DENY);
    }

    #[test]
    fn set_id_bits_are_refused_where_a_mode_counts() {
        let filter = filter(false);
        let created = libc::O_CREAT as u32;
        for (mode, verdict) in
            [(0o755, ALLOW), (0o1777, ALLOW), (0o4755, DENY), (0o2755, DENY), (0o6000, DENY)]
        {
            let opened = if mode == 0o2755 { ALLOW } else { verdict };
            assert_eq!(judged(&filter, libc::SYS_fchmod, [3, mode, 0, 0]), opened, "{mode:o}");
            assert_eq!(judged(&filter, libc::SYS_fchmodat, [3, 0, mode, 0]), verdict, "{mode:o}");
            assert_eq!(judged(&filter, FCHMODAT2, [3, 0, mode, 0]), verdict, "{mode:o}");
            assert_eq!(judged(&filter, libc::SYS_mkdirat, [3, 0, mode, 0]), verdict, "{mode:o}");
            assert_eq!(judged(&filter, libc::SYS_openat, [3, 0, created, mode]), verdict, "{mode:o}");
            assert_eq!(judged(&filter, libc::SYS_openat, [3, 0, libc::O_TMPFILE as u32, mode]), verdict);
            assert_eq!(judged(&filter, libc::SYS_openat, [3, 0, libc::O_DIRECTORY as u32, mode]), ALLOW);
        }
    }

    #[test]
    fn threads_and_ip_are_allowed_and_namespaces_and_raw_links_are_not() {
        let filter = filter(false);
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u32;
        assert_eq!(judged(&filter, libc::SYS_clone, [thread, 0, 0, 0]), ALLOW);
        for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            assert_eq!(judged(&filter, libc::SYS_clone, [namespace as u32, 0, 0, 0]), DENY);
        }
        assert_eq!(judged(&filter, libc::SYS_socket, [libc::AF_INET as u32, 0, 0, 0]), ALLOW);
        assert_eq!(judged(&filter, libc::SYS_socket, [libc::AF_PACKET as u32, 0, 0, 0]), DENY);
    }
}
