//! Makes the directories of vfolders.

use std::io;

use common::id::VfolderId;

use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath};
use crate::volume::{DIR_MODE, Volume, vfolder_path};

/// Makes a vfolder's directory, which must be new, below its scope, which must exist. `mode` is set exactly;
/// without it the directory gets 0755 less the umask.
pub fn vfolder(volume: &Volume, id: &VfolderId, mode: Option<u32>) -> Result<(), OpError> {
    volume.holder(id.scope())?;
    let path = vfolder_path(id)?;
    let parent = in_parent(&volume.root()?, &path, |dir, name| dir.mkdir(name, DIR_MODE))?;
    if let (Some(mode), Some((_, name))) = (mode, path.split_last()) {
        let own = RelPath::root().child(name).map_err(|e| OpError::path(name.as_bytes(), &e))?;
        parent
            .open_dir_nofollow(&own)
            .and_then(|dir| dir.set_mode(mode))
            .map_err(|error| OpError::fs(error, &path))?;
    }
    Ok(())
}

/// Makes the missing directories above `path` and does something with its last name in the last of them. Both are done
/// again where a concurrent delete removed a prefix that had become empty.
pub fn in_parent(
    root: &Dir,
    path: &RelPath,
    action: impl Fn(&Dir, &Name) -> io::Result<()>,
) -> Result<Dir, OpError> {
    const TRIES: usize = 100;
    let Some((parent, name)) = path.split_last() else {
        return root.try_clone().map_err(|e| OpError::fs(e, path));
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let done = root.mkdir_all(&parent, DIR_MODE).and_then(|dir| action(&dir, name).map(|()| dir));
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            outcome => return outcome.map_err(|e| OpError::fs(e, path)),
        }
    }
}
