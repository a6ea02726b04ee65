//! The three system interfaces that no crate in this process wraps: seccomp(2), landlock(7) and the project id of a
//! directory (FS_IOC_FSGETXATTR, ioctl_xfs_fsgetxattr(2)). All `unsafe` of the program is here.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// Landlock's rights, from linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_AND_MAKE: u64 = 0x1ff << 4;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Closes every descriptor above standard error when a program is run.
pub(crate) fn close_on_exec() -> io::Result<()> {
    call(libc::SYS_close_range, [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0]).map(drop)
}

/// From now on this process and those it runs are killed at any system call that isn't listed (at most 250).
pub(crate) fn allow_system_calls(numbers: &[c_long]) -> io::Result<()> {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let compare = |value| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    let skip_if = |value: u32, skip: usize| sock_filter { jt: skip as u8, ..compare(value) };
    let give = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    // struct seccomp_data: the call's number at 0, the architecture at 4.
    let mut program = vec![load(4), skip_if(ARCHITECTURE, 1), give(libc::SECCOMP_RET_KILL_PROCESS), load(0)];
    let checks = numbers.iter().enumerate().map(|(at, number)| skip_if(*number as u32, numbers.len() - at));
    program.extend(checks);
    program.extend([give(libc::SECCOMP_RET_KILL_PROCESS), give(libc::SECCOMP_RET_ALLOW)]);
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let filter: *const sock_fprog = &filter;
    call(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER as usize, 0, filter as usize, 0]).map(drop)
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// From now on this process and those it runs write to files of `writable`, or below it where it is a directory, and
/// execute only `programs`. `false`: the kernel has no Landlock.
pub(crate) fn restrict_files(writable: &[&Path], programs: &[&Path]) -> io::Result<bool> {
    let Ok(version) = call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0]) else { return Ok(false) };
    let since = |first: c_long, right: u64| if version >= first { right } else { 0 };
    let write = WRITE_FILE | since(3, TRUNCATE);
    let handled: u64 = EXECUTE | write | REMOVE_AND_MAKE | since(2, REFER);
    let attributes: *const u64 = &handled;
    let create = [attributes as usize, size_of::<u64>(), 0, 0];
    let ruleset = call(libc::SYS_landlock_create_ruleset, create)? as usize;
    let allow = |path: &Path, right: u64| {
        let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
        let place = place.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        // struct landlock_path_beneath_attr, which is packed: 8 bytes of rights and 4 of a descriptor.
        let mut rule = [0u8; 12];
        rule[..8].copy_from_slice(&right.to_ne_bytes());
        rule[8..].copy_from_slice(&place.as_raw_fd().to_ne_bytes());
        call(libc::SYS_landlock_add_rule, [ruleset, 1, rule.as_ptr() as usize, 0]).map(drop)
    };
    let below = |path: &Path| if path.is_dir() { write | REMOVE_AND_MAKE } else { write };
    writable.iter().try_for_each(|path| allow(path, below(path)))?;
    programs.iter().try_for_each(|path| allow(path, EXECUTE))?;
    call(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0])?;
    Ok(true)
}

/// The project that a directory belongs to. A link is none.
pub(crate) fn project_of(path: &Path) -> io::Result<u32> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // struct fsxattr of linux/fs.h: 28 bytes, the project id in the fourth number.
    let mut attributes = [0u32; 7];
    nix::ioctl_read!(fs_ioc_fsgetxattr, b'X', 31, [u32; 7]);
    // SAFETY: the descriptor is open for the whole call, and the kernel writes the 28 bytes that the request's number
    // states to the array, which is as long, writable and may hold any bytes.
    unsafe { fs_ioc_fsgetxattr(directory.as_raw_fd(), &mut attributes) }?;
    Ok(attributes[3])
}

/// A system call that gives a number or fails.
fn call(number: c_long, arguments: [usize; 4]) -> io::Result<c_long> {
    let [a, b, c, d] = arguments;
    // SAFETY: only the functions above call this. Their arguments are numbers, or addresses of values that they own
    // until it returns and that have the layout which the call of this number documents; none of these calls keeps an
    // address or writes to one.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
