//! The system interfaces that no crate in this process wraps: landlock(7), seccomp(2), descriptors handed over by
//! systemd, the project ids of files (ioctl_xfs_fsgetxattr(2)), what of a file is cached (cachestat), and records of TLS
//! in the kernel (Documentation/networking/tls.rst). All `unsafe` of the agent is here; what the values mean is decided by
//! those who call.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc::{self, c_int, c_long, c_uint, sock_filter, sock_fprog};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FsXattr {
    /// Flags of the file, of which one says that a directory hands its project on.
    pub(crate) xflags: u32,
    extent_size: u32,
    extents: u32,
    /// The project's id.
    pub(crate) project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const GET: Opcode = opcode::read::<FsXattr>(b'X', 31);
const SET: Opcode = opcode::write::<FsXattr>(b'X', 32);

/// The attributes of an open file (`FS_IOC_FSGETXATTR`).
pub(crate) fn attributes(file: impl AsFd) -> io::Result<FsXattr> {
    // SAFETY: the opcode is that of FS_IOC_FSGETXATTR, which writes one `struct fsxattr`, `FsXattr` is laid out like
    // it, and every bit pattern is a value of it.
    Ok(unsafe { ioctl(file, Getter::<GET, FsXattr>::new()) }?)
}

/// Sets the attributes of an open file (`FS_IOC_FSSETXATTR`).
pub(crate) fn set_attributes(file: impl AsFd, attributes: FsXattr) -> io::Result<()> {
    // SAFETY: the opcode is that of FS_IOC_FSSETXATTR, which reads one `struct fsxattr`, and `FsXattr` is laid out
    // like it.
    Ok(unsafe { ioctl(file, Setter::<SET, FsXattr>::new(attributes)) }?)
}

/// The number of cachestat, which the C library's headers do not have yet; it is the same on all architectures.
pub(crate) const CACHESTAT: c_long = 451;

/// How many pages of these bytes of a file are in memory, be they still on their way from the disk. Does not wait. Since
/// Linux 6.5; fails for files that the process neither owns nor may write.
pub(crate) fn cached_pages(file: impl AsFd, start: u64, length: u64) -> io::Result<u64> {
    // struct cachestat_range and struct cachestat of linux/mman.h.
    let range = [start, length];
    let mut pages = [0u64; 5];
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the call reads two and writes five 64-bit numbers at addresses that are valid until it returns, and keeps
    // neither.
    match unsafe { libc::syscall(CACHESTAT, file, range.as_ptr(), pages.as_mut_ptr(), 0) } {
        0 => Ok(pages[0]),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a set of Landlock rules takes away unless a rule gives it back: `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Handled {
    /// Rights on files and directories.
    pub(crate) files: u64,
    /// Rights on TCP ports; since version 4.
    pub(crate) ports: u64,
    /// What is kept within the process and its children; since version 6.
    pub(crate) scoped: u64,
}

/// A set of Landlock rules that is not in force yet.
#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

/// The version of the kernel's Landlock; `None` where it has none, or it is switched off.
pub(crate) fn landlock_version() -> Option<u32> {
    const VERSION: usize = 1;
    let version = call(libc::SYS_landlock_create_ruleset, [0, 0, VERSION, 0, 0]).ok()?;
    u32::try_from(version).ok()
}

impl Ruleset {
    /// Begins a set. The kernel takes fields that it doesn't know as long as they are zero.
    pub(crate) fn new(handled: &Handled) -> io::Result<Self> {
        let attributes: *const Handled = handled;
        let arguments = [attributes as usize, size_of::<Handled>(), 0, 0, 0];
        let fd = call(libc::SYS_landlock_create_ruleset, arguments)?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
        Ok(Ruleset(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Gives back these rights on the file, or on the directory and all that is below it.
    pub(crate) fn allow(&self, place: impl AsFd, rights: u64) -> io::Result<()> {
        const PATH_BENEATH: usize = 1;
        // struct landlock_path_beneath_attr, which is packed: 8 bytes of rights and 4 of a descriptor.
        let mut rule = [0u8; 12];
        let (first, second) = rule.split_at_mut(8);
        first.copy_from_slice(&rights.to_ne_bytes());
        second.copy_from_slice(&place.as_fd().as_raw_fd().to_ne_bytes());
        let set = self.0.as_raw_fd() as usize;
        call(libc::SYS_landlock_add_rule, [set, PATH_BENEATH, rule.as_ptr() as usize, 0, 0]).map(drop)
    }

    /// Puts the set in force for this thread and all that it starts, for ever.
    pub(crate) fn enforce(self) -> io::Result<()> {
        call(libc::SYS_landlock_restrict_self, [self.0.as_raw_fd() as usize, 0, 0, 0, 0]).map(drop)
    }
}

/// Puts a filter of system calls in force for this thread and all that it starts, for ever. Needs `no_new_privs`.
pub(crate) fn filter_system_calls(program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = sock_fprog { len: length, filter: program.as_mut_ptr() };
    let filter: *const sock_fprog = &filter;
    call(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER as usize, 0, filter as usize, 0, 0]).map(drop)
}

/// Takes over a descriptor that the process was started with. At most once for each number.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of the descriptor table and touches nothing else, whatever the number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and sd_listen_fds(3) says that it is this process's to use and to close. Only
    // `listener::activation` calls this, once for each, before anything else could have got that number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has the C library's allocator keep up to so many bytes of freed memory for each of its pools, and take blocks of up to
/// that size from them (mallopt(3)). Other C libraries are left as they are.
pub(crate) fn keep_freed_memory(bytes: c_int) {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: the call sets a number within the allocator, which has a lock for that.
        unsafe { libc::mallopt(parameter, bytes) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Sets an option of a socket (setsockopt(2)).
pub(crate) fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd() as usize;
    let (level, name) = (level as usize, name as usize);
    call(libc::SYS_setsockopt, [socket, level, name, value.as_ptr() as usize, value.len()]).map(drop)
}

const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;

/// Bytes that TCP has to send, or has sent and not seen acknowledged (`SIOCOUTQ`, tcp(7)).
pub(crate) fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: SIOCOUTQ writes one int, of which every bit pattern is a value.
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// `struct user_msghdr` of linux/socket.h, with one part and one piece of ancillary data.
#[repr(C)]
struct Message {
    name: usize,
    name_length: c_int,
    parts: usize,
    part_count: usize,
    ancillary: usize,
    ancillary_length: usize,
    flags: c_uint,
}

/// `struct cmsghdr` with one byte in it, the type of a TLS record (RFC 8446 section 5.1).
#[repr(C)]
struct RecordType {
    length: usize,
    level: c_int,
    what: c_int,
    record: u8,
    padding: [u8; 7],
}

impl RecordType {
    /// Header and byte, without what aligns the next one.
    const LENGTH: usize = size_of::<Self>() - 7;

    fn new(what: c_int, record: u8) -> Self {
        RecordType { length: Self::LENGTH, level: libc::SOL_TLS, what, record, padding: [0; 7] }
    }
}

/// Sends one TLS record of this type by a socket that has the keys for it. Never waits.
pub(crate) fn send_record(socket: impl AsFd, record: u8, content: &[u8]) -> io::Result<usize> {
    let mut kind = RecordType::new(libc::TLS_SET_RECORD_TYPE, record);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    transfer(libc::SYS_sendmsg, socket, content.as_ptr() as usize, content.len(), &mut kind, flags)
}

/// Receives from one TLS record, or from several of data, of whatever type is next: that type and the number of bytes.
/// Without a type nothing was received: the peer's TCP has ended. Never waits.
pub(crate) fn receive_record(socket: impl AsFd, content: &mut [u8]) -> io::Result<(Option<u8>, usize)> {
    let mut kind = RecordType::new(0, 0);
    let address = content.as_mut_ptr() as usize;
    let received =
        transfer(libc::SYS_recvmsg, socket, address, content.len(), &mut kind, libc::MSG_DONTWAIT)?;
    Ok(((kind.what == libc::TLS_GET_RECORD_TYPE).then_some(kind.record), received))
}

/// Both ways: `length` bytes at `content`, which the caller has borrowed for it.
fn transfer(
    number: c_long,
    socket: impl AsFd,
    content: usize,
    length: usize,
    kind: &mut RecordType,
    flags: c_int,
) -> io::Result<usize> {
    // One struct iovec.
    let part = [content, length];
    let kind: *mut RecordType = kind;
    let mut message = Message {
        name: 0,
        name_length: 0,
        parts: part.as_ptr() as usize,
        part_count: 1,
        ancillary: kind as usize,
        ancillary_length: size_of::<RecordType>(),
        flags: 0,
    };
    let message: *mut Message = &mut message;
    let socket = socket.as_fd().as_raw_fd() as usize;
    let count = call(number, [socket, message as usize, flags as usize, 0, 0])?;
    usize::try_from(count).map_err(io::Error::other)
}

/// A system call that gives a number or fails.
fn call(number: c_long, arguments: [usize; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: only the functions above call this. Their arguments are numbers, or addresses of values that they own or
    // have borrowed until it returns and that have the layout which the call of this number documents; none of these
    // calls keeps an address, and recvmsg alone writes to some, of values that are borrowed for that.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_and_the_numbers_are_the_kernels() {
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!((GET, SET), (0x801c_581f, 0x401c_5820));
        assert_eq!(size_of::<Handled>(), 24);
        assert_eq!((size_of::<Message>(), size_of::<RecordType>(), RecordType::LENGTH), (56, 24, 17));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_not_taken_over() {
        assert_eq!(inherited(9_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
