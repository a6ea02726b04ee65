//! Project ids of files: whose quota a file counts against (ioctl_xfs_fsgetxattr(2)).
//!
//! The owner of a file may set its project without any privilege.

use std::io;

use rustix::fd::AsFd;

use crate::kernel;

/// New entries of a directory with this flag get its project (`FS_XFLAG_PROJINHERIT`, linux/fs.h).
const INHERIT: u32 = 0x200;

/// What a file says of its project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Project {
    /// The project's id; 0 is none.
    pub id: u32,
    /// Whether what is made in the directory gets the same project.
    pub inherited: bool,
}

/// The project of an open file or directory; nothing where the file system has none.
pub fn project(file: impl AsFd) -> io::Result<Option<Project>> {
    match kernel::attributes(file) {
        Ok(attributes) => {
            Ok(Some(Project { id: attributes.project, inherited: attributes.xflags & INHERIT != 0 }))
        }
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts an open file or directory into a project and reads it back. With `inherited`, which is for directories, what
/// is made in it follows.
pub fn set_project(file: impl AsFd, wanted: Project) -> io::Result<()> {
    let file = file.as_fd();
    let mut attributes = kernel::attributes(file)?;
    attributes.project = wanted.id;
    attributes.xflags =
        if wanted.inherited { attributes.xflags | INHERIT } else { attributes.xflags & !INHERIT };
    kernel::set_attributes(file, attributes)?;
    match project(file)? {
        Some(found) if found == wanted => Ok(()),
        found => Err(io::Error::other(format!("the kernel took {wanted:?} and kept {found:?}"))),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_projects_has_none() {
        // proc has neither projects nor these calls.
        assert_eq!(project(std::fs::File::open("/proc").unwrap()).unwrap(), None);
    }
}
