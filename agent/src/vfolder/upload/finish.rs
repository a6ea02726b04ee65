//! Turning a complete staging file into the file that the user sees.

use std::fs::{File, FileTimes};
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustix::io::Errno;

use super::SyncPolicy;
use super::error::UploadError;
use super::session::{StagingName, is_staging, name};
use super::staging::Staging;
use crate::fs::{Dir, Name, PathError, RelPath, Replace, is_escape, is_reserved};

/// How often the directory of a file is made anew when somebody removes it just then.
const TRIES: usize = 5;

/// Joins `dst_dir` and the token's path, both as given, to the path of the final file.
pub fn target(dst_dir: Option<&[u8]>, relpath: &[u8]) -> Result<RelPath, UploadError> {
    let refused = |given: &[u8], error: PathError| UploadError::Target {
        path: String::from_utf8_lossy(given).into_owned(),
        reason: error.to_string(),
    };
    let relative = RelPath::parse(relpath).map_err(|error| refused(relpath, error))?;
    let dst_dir = dst_dir.unwrap_or_default();
    let directory = RelPath::parse(dst_dir).map_err(|error| refused(dst_dir, error))?;
    let target = directory.join(&relative).map_err(|error| refused(relpath, error))?;
    if relative.is_root() || is_staging(&target) {
        let reason = "name a file outside the staging directory .upload".into();
        return Err(UploadError::Target { path: target.to_string(), reason });
    }
    Ok(target)
}

/// Says early what would keep the finished file from going to its place.
pub(super) fn check(folder: &Dir, target: &RelPath) -> Result<(), UploadError> {
    let Some((parent, name)) = target.split_last() else { return Ok(()) };
    folder.allows(target).map_err(|error| in_the_way(error, target, 0))?;
    match folder.open_dir_nofollow(&parent) {
        Ok(parent) if matches!(parent.stat(name), Ok(found) if found.kind == crate::fs::FileKind::Dir) => {
            Err(UploadError::TargetIsDirectory(target.clone()))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(in_the_way(error, target, 0)),
    }
}

/// Moves the complete staging file to its place, making the directories that are missing, and both durable
/// unless `sync` says otherwise. Replaces a file or a link, never what a link points to. The session is
/// remembered until `forget_at` (seconds since 1970).
pub(super) fn finish(
    folder: &Dir,
    staging: Staging,
    target: &RelPath,
    forget_at: i64,
    sync: SyncPolicy,
) -> Result<(), UploadError> {
    let size = staging.offset;
    if sync != SyncPolicy::Never {
        staging.file.sync_all().map_err(|error| UploadError::storage(error, size))?;
    }
    leave_mark(&staging, forget_at);
    let parent = put_at(folder, &staging, target)?;
    match sync {
        SyncPolicy::Never => Ok(()),
        _ => parent.sync().map_err(|error| UploadError::storage(error, size)),
    }
}

/// Moves the file to its place; the directory that it is in then. The folder's users may remove that one, or the staging
/// file, at any time.
fn put_at(folder: &Dir, staging: &Staging, target: &RelPath) -> Result<Dir, UploadError> {
    let Some((parent, name)) = target.split_last() else { return Err(UploadError::NoSession) };
    for _ in 0..TRIES {
        let parent = match folder.mkdir_all(&parent, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            made => made.map_err(|error| in_the_way(error, target, staging.offset))?,
        };
        match move_to(staging, &parent, name) {
            Ok(()) => return Ok(parent),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound if staging.is_gone() => return Err(UploadError::NoSession),
                io::ErrorKind::NotFound => {}
                io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
                    return Err(UploadError::TargetIsDirectory(target.clone()));
                }
                _ => return Err(in_the_way(error, target, staging.offset)),
            },
        }
    }
    Err(UploadError::Target { path: target.to_string(), reason: "its directory keeps being removed".into() })
}

/// Lets a client that lost the last reply learn that all went well. Together with the staging file the mark
/// means nothing yet, so it can come first. Without it only that client is worse off.
fn leave_mark(staging: &Staging, forget_at: i64) {
    let mark = || -> io::Result<()> {
        let file = match staging.area.create_new(&StagingName::Done(staging.session).name()?, 0o644) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            created => created?,
        };
        let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(forget_at).unwrap_or(0));
        file.set_times(FileTimes::new().set_modified(end))
    };
    if let Err(error) = mark() {
        tracing::warn!(session = %staging.session, %error, "a finished upload could not be marked as such");
    }
}

fn move_to(staging: &Staging, parent: &Dir, name: &Name) -> io::Result<()> {
    let staged = StagingName::Data(staging.session).name()?;
    match staging.area.rename(&staged, parent, name, Replace::Yes) {
        // A mount point or another project's directory lies in between.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_to(staging, parent, name)?;
            staging.area.unlink(&staged)
        }
        moved => moved,
    }
}

fn copy_to(staging: &Staging, parent: &Dir, target: &Name) -> io::Result<()> {
    let temporary = name(&format!(".upload-{}", staging.session))?;
    let copied = parent.create_new(&temporary, 0o644).and_then(|copy| fill(&staging.file, copy));
    copied.and_then(|()| parent.rename(&temporary, parent, target, Replace::Yes)).inspect_err(|_| {
        if let Err(error) = parent.unlink(&temporary) {
            tracing::warn!(name = %temporary, %error, "an unfinished copy of an upload could not be removed");
        }
    })
}

fn fill(from: &File, mut to: File) -> io::Result<()> {
    use std::io::Seek as _;
    let mut from = from;
    from.rewind()?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

fn in_the_way(error: io::Error, target: &RelPath, offset: u64) -> UploadError {
    let refused = |reason: &str| UploadError::Target { path: target.to_string(), reason: reason.into() };
    match error.kind() {
        _ if is_escape(&error) => refused("it leads out of the folder"),
        _ if is_reserved(&error) => refused("the file system keeps this name for itself"),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            refused("a symbolic link stands in its way; links are not followed")
        }
        io::ErrorKind::NotADirectory => refused("a file stands where a directory is needed"),
        _ => UploadError::storage(error, offset),
    }
}
