//! The virtual attributes by which CephFS tells statistics of a directory and takes its limits.
//!
//! Values are decimal text; the names never appear in listxattr(2). Facts: "Quotas" and "CephFS dynamic subtree
//! statistics" in the Ceph documentation, and what clients of 16.2 really answer. A trait, because no other file
//! system takes these names and the rules around them deserve tests without a cluster.

use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use crate::fs::Dir;

/// More than any value has: two numbers with their names.
const LONGEST: usize = 128;

/// The attributes of directories.
pub(super) trait Attributes: Send + Sync {
    /// Reads one.
    fn get(&self, dir: &Dir, name: &str) -> io::Result<Vec<u8>>;
    /// Writes one.
    fn set(&self, dir: &Dir, name: &str, value: &str) -> io::Result<()>;
}

/// What a directory can be limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The sum of the sizes of all files below.
    Bytes,
    /// The number of all entries below and of the directory itself.
    Entries,
}

/// What is below a directory. Lags behind by seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Sum of the sizes of files, holes included, and of the lengths of links.
    pub(super) bytes: u64,
    /// Everything below, without the directory itself.
    pub(super) entries: u64,
    /// Everything below that is no directory.
    pub(super) files: u64,
}

/// The attributes as the kernel or ceph-fuse has them.
pub(super) struct Real;

impl Attributes for Real {
    fn get(&self, dir: &Dir, name: &str) -> io::Result<Vec<u8>> {
        let mut value = vec![0; LONGEST];
        let length = fgetxattr(dir, name, value.as_mut_slice())?;
        value.truncate(length);
        Ok(value)
    }

    fn set(&self, dir: &Dir, name: &str, value: &str) -> io::Result<()> {
        Ok(fsetxattr(dir, name, value.as_bytes(), XattrFlags::empty())?)
    }
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::Bytes => "ceph.quota.max_bytes",
            Limit::Entries => "ceph.quota.max_files",
        }
    }
}

impl dyn Attributes + '_ {
    /// What is below `dir`. The servers are asked, whatever this host has cached.
    pub(super) fn statistics(&self, dir: &Dir) -> io::Result<Statistics> {
        Ok(Statistics {
            bytes: self.bytes(dir)?,
            // The directory itself is one of them.
            entries: self.number(dir, "ceph.dir.rentries")?.saturating_sub(1),
            files: self.number(dir, "ceph.dir.rfiles")?,
        })
    }

    /// The sizes of everything below `dir`.
    pub(super) fn bytes(&self, dir: &Dir) -> io::Result<u64> {
        self.number(dir, "ceph.dir.rbytes")
    }

    /// The directory's own limit, nothing where there is none. Limits further up count too and are not seen here.
    pub(super) fn limit(&self, dir: &Dir, limit: Limit) -> io::Result<Option<u64>> {
        match self.number(dir, limit.name()) {
            // Where only the other limit is set, this one reads as 0.
            Ok(0) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(error) if is_unset(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the directory's limit; 0 lifts it, which removing the attribute does not everywhere.
    pub(super) fn set_limit(&self, dir: &Dir, limit: Limit, value: u64) -> io::Result<()> {
        self.set(dir, limit.name(), &value.to_string())
    }

    fn number(&self, dir: &Dir, name: &str) -> io::Result<u64> {
        let value = self.get(dir, name)?;
        // Some clients end the text with a NUL.
        let text = String::from_utf8_lossy(&value);
        text.trim_matches(|c: char| c.is_whitespace() || c == '\0').parse().map_err(|_| {
            let message =
                format!("{name} is {:?} where a number was expected", text.escape_default().to_string());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }
}

fn is_unset(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NODATA)
}

/// Whether the answer means that the directory is on some other file system.
pub(super) fn is_foreign(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL))
}

/// Whether setting a limit was refused for lack of a right: of the client's key, or on the directory.
pub(super) fn is_forbidden(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;
    use crate::fs::FileId;
    use crate::tree::{self, Control};

    /// A CephFS in an ordinary directory: limits in a table, statistics by counting.
    #[derive(Default)]
    pub(in super::super) struct Fake {
        pub(in super::super) values: Mutex<HashMap<(FileId, String), String>>,
        pub(in super::super) refuses: Mutex<Option<Errno>>,
        pub(in super::super) foreign: bool,
    }

    impl Attributes for Fake {
        fn get(&self, dir: &Dir, name: &str) -> io::Result<Vec<u8>> {
            if self.foreign {
                return Err(Errno::OPNOTSUPP.into());
            }
            let usage = tree::usage(dir, &Control::new(), 1).unwrap();
            let counted = match name {
                "ceph.dir.rbytes" => Some(usage.apparent_bytes),
                "ceph.dir.rentries" => Some(usage.entries + 1),
                "ceph.dir.rfiles" => Some(usage.files),
                _ => None,
            };
            if let Some(number) = counted {
                return Ok(number.to_string().into_bytes());
            }
            let key = (dir.stat_self()?.id(), name.to_owned());
            let values = self.values.lock().unwrap();
            values.get(&key).map(|value| value.clone().into_bytes()).ok_or(Errno::NODATA.into())
        }

        fn set(&self, dir: &Dir, name: &str, value: &str) -> io::Result<()> {
            if let Some(errno) = *self.refuses.lock().unwrap() {
                return Err(errno.into());
            }
            let key = (dir.stat_self()?.id(), name.to_owned());
            let mut values = self.values.lock().unwrap();
            match value {
                "0" => values.remove(&key),
                _ => values.insert(key, value.to_owned()),
            };
            Ok(())
        }
    }

    struct Says(&'static [u8]);

    impl Attributes for Says {
        fn get(&self, _: &Dir, _: &str) -> io::Result<Vec<u8>> {
            Ok(self.0.to_vec())
        }
        fn set(&self, _: &Dir, _: &str, _: &str) -> io::Result<()> {
            Err(Errno::OPNOTSUPP.into())
        }
    }

    #[test]
    fn numbers_are_read_as_every_client_writes_them_and_nothing_else_is_a_number() {
        let dir = Dir::open_root(std::path::Path::new("/")).unwrap();
        let limit = |text| {
            let attributes: &dyn Attributes = &Says(text);
            attributes.limit(&dir, Limit::Bytes)
        };
        for text in [&b"10000000"[..], b"10000000\n", b"10000000\0", b" 10000000 "] {
            assert_eq!(limit(text).unwrap(), Some(10_000_000));
        }
        assert_eq!(limit(b"0").unwrap(), None);
        for text in [&b""[..], b"10M", b"-1", b"99999999999999999999", b"\xff\x1b[2J"] {
            let error = limit(text).unwrap_err().to_string();
            assert!(error.contains("ceph.quota.max_bytes") && !error.contains('\x1b'), "{error}");
        }
    }

    #[test]
    fn an_ordinary_file_system_has_none_of_the_attributes() {
        let attributes: &dyn Attributes = &Real;
        let dir = Dir::open_root(std::path::Path::new("/proc/self")).unwrap();
        assert!(is_foreign(&attributes.bytes(&dir).unwrap_err()));
    }
}
