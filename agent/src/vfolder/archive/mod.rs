//! Writes files and directories as one ZIP archive into a stream.
//!
//! Sizes are not known before the content has been read, so each entry is followed by a data descriptor; the
//! archive turns to ZIP64 where it must. Links, FIFOs, sockets and devices are left out; a file is cut at the size
//! it had when it was opened, and a file that has become shorter ends the archive with an error: the reader must
//! not take a part for the whole.

mod content;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

use rawzip::path::EntryPath;
use rawzip::time::UtcDateTime;
use rawzip::{CompressionMethod, DataDescriptorOutput, ZipArchiveWriter};

use self::content::Contents;
use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Stat, is_not_regular};
use crate::tree::{Walk, WalkLimits};

/// The staging directory of uploads is no content.
const STAGING: &[u8] = b".upload";

/// What an archive may contain at most.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveLimits {
    /// Entries in all.
    pub entries: usize,
    /// Directories within each other.
    pub depth: usize,
}

/// What goes into an archive.
pub enum Content {
    /// All below a directory, named from there.
    Tree(Dir),
    /// These entries of a vfolder, named from the vfolder's root.
    Selection(Dir, Vec<RelPath>),
}

impl Content {
    /// A selection whose entries all exist and are regular files or directories themselves, none twice.
    pub fn selection(folder: Dir, mut paths: Vec<RelPath>) -> Result<Self, OpError> {
        for path in &paths {
            check(&folder, path)?;
        }
        paths.sort();
        paths.dedup();
        let all = paths.clone();
        paths
            .retain(|path| !all.iter().any(|other| other != path && path.names().starts_with(other.names())));
        Ok(Content::Selection(folder, paths))
    }
}

fn check(folder: &Dir, path: &RelPath) -> Result<(), OpError> {
    let Some((parent, name)) = path.split_last() else { return Ok(()) };
    let stat = folder.open_dir(&parent).and_then(|dir| dir.stat(name)).map_err(|e| OpError::fs(e, path))?;
    match stat.kind {
        FileKind::File | FileKind::Dir => Ok(()),
        _ => Err(OpError::Refused {
            reason: "only regular files and directories can be archived".into(),
            paths: vec![path.to_string()],
        }),
    }
}

/// Writes the whole archive. An error of any entry ends it.
pub fn write<W: Write>(content: &Content, limits: ArchiveLimits, out: W) -> io::Result<()> {
    let mut archive =
        Archive { zip: ZipArchiveWriter::new(out), limits, entries: 0, contents: Contents::new() };
    match content {
        Content::Tree(dir) => archive.tree(dir, b"", true)?,
        Content::Selection(folder, paths) => {
            for path in paths {
                archive.selected(folder, path)?;
            }
        }
    }
    archive.zip.finish().map_err(zip_error)?.flush()
}

struct Archive<W> {
    zip: ZipArchiveWriter<W>,
    limits: ArchiveLimits,
    entries: usize,
    contents: Contents,
}

impl<W: Write> Archive<W> {
    fn selected(&mut self, folder: &Dir, path: &RelPath) -> io::Result<()> {
        let Some((parent, name)) = path.split_last() else { return self.tree(folder, b"", true) };
        let parent = folder.open_dir(&parent)?;
        let stat = parent.stat(name)?;
        self.entry(&parent, name, &path.to_bytes(), &stat)?;
        if stat.kind == FileKind::Dir {
            self.tree(&folder.open_dir(path)?, &path.to_bytes(), false)?;
        }
        Ok(())
    }

    /// All below a directory, with `prefix` before each path.
    fn tree(&mut self, dir: &Dir, prefix: &[u8], is_root: bool) -> io::Result<()> {
        let staging = if is_root { Name::new(STAGING).ok() } else { None };
        let limits = WalkLimits { depth: self.limits.depth, skip_top: staging.into_iter().collect() };
        for entry in Walk::new(dir, limits)? {
            let entry = entry.map_err(|problem| problem.cause)?;
            let path = [prefix, entry.path.as_slice()];
            let path = if prefix.is_empty() { entry.path.clone() } else { path.join(&b'/') };
            self.entry(&entry.parent, &entry.name, &path, &entry.stat)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &Dir, name: &Name, path: &[u8], stat: &Stat) -> io::Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            let most = self.limits.entries;
            return Err(io::Error::other(format!("more than {most} entries (limit limits.archive-entries)")));
        }
        let time = UtcDateTime::from_unix(stat.mtime.secs);
        match stat.kind {
            FileKind::Dir => {
                let directory = self.zip.new_dir(entry_path(path, true));
                directory
                    .last_modified(time)
                    .unix_permissions(stat.mode)
                    .create()
                    .map_err(zip_error)
                    .map(drop)
            }
            FileKind::File => match parent.open_file_nofollow(name) {
                // Replaced by something else, or removed, since the directory was read.
                Err(error) if is_not_regular(&error) || error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok((file, stat)) => self.file(&file, path, &stat, time),
            },
            _ => Ok(()),
        }
    }

    fn file(&mut self, file: &File, path: &[u8], stat: &Stat, time: UtcDateTime) -> io::Result<()> {
        let entry = self.zip.new_file(entry_path(path, false)).compression_method(CompressionMethod::DEFLATE);
        let entry = entry.last_modified(time).unix_permissions(stat.mode).start();
        let (mut entry, _) = entry.map_err(zip_error)?;
        let sum = self.contents.write(file, stat.size, &mut entry)?;
        entry.finish(DataDescriptorOutput::new(sum.crc, sum.length)).map_err(zip_error).map(drop)
    }
}

/// The name in the archive. UTF-8 is marked as such; a backslash, a separator to some readers, becomes an
/// underscore; other bytes are kept. So that they are, ASCII is written as it is: what marks UTF-8 would take all before a
/// colon for a drive and drop it. In a name that has to be marked the colon becomes an underscore, too.
fn entry_path(path: &[u8], directory: bool) -> EntryPath<'static> {
    let mut path: Vec<u8> = path.iter().map(|byte| if *byte == b'\\' { b'_' } else { *byte }).collect();
    if directory {
        path.push(b'/');
    }
    match String::from_utf8(path) {
        Ok(text) if !text.is_ascii() => {
            EntryPath::conformant(Cow::<'static, str>::Owned(text.replace(':', "_")))
        }
        Ok(text) => EntryPath::verbatim(Cow::<'static, [u8]>::Owned(text.into_bytes())),
        Err(bytes) => EntryPath::verbatim(Cow::<'static, [u8]>::Owned(bytes.into_bytes())),
    }
}

fn zip_error(error: rawzip::Error) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the only entry of an archive with such an entry.
    fn name_in_archive(path: &[u8], directory: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut zip = ZipArchiveWriter::new(&mut out);
        if directory {
            zip.new_dir(entry_path(path, true)).create().unwrap();
        } else {
            let (entry, _) = zip.new_file(entry_path(path, false)).start().unwrap();
            entry.finish(DataDescriptorOutput::new(0, 0)).unwrap();
        }
        zip.finish().unwrap();
        let archive = rawzip::ZipArchive::from_slice(&out).unwrap();
        let entry = archive.entries().next_entry().unwrap().unwrap();
        entry.file_path().as_ref().to_vec()
    }

    #[test]
    fn a_colon_is_no_drive() {
        for (path, name) in [
            ("run 12:30/log:1.txt", "run 12:30/log:1.txt"),
            ("C:\\x", "C:_x"),
            ("ü 12:30.txt", "ü 12_30.txt"),
        ] {
            assert_eq!(name_in_archive(path.as_bytes(), false), name.as_bytes());
        }
        assert_eq!(name_in_archive(b"data:", true), b"data:/");
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 7] = [b"/", b"..\\..\\", b"C:\\", b"\xff", b"\0", b"\xe2\x80\xae", b"..."];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "paths", &words, |bytes| {
            let Ok(path) = RelPath::parse(bytes) else { return };
            if path.is_root() {
                return;
            }
            for directory in [false, true] {
                let name = name_in_archive(&path.to_bytes(), directory);
                let shown = String::from_utf8_lossy(&name).into_owned();
                assert!(!name.starts_with(b"/") && !name.contains(&b'\\') && !name.contains(&0), "{shown:?}");
                assert!(name.split(|byte| *byte == b'/').all(|part| part != b".."), "{shown:?}");
                assert_eq!(name.ends_with(b"/"), directory, "{shown:?}");
                // Nothing is dropped, so that two files never get one name.
                let dropped = path.to_bytes().len() + usize::from(directory) - name.len();
                assert_eq!(dropped, 0, "{shown:?}");
            }
        });
    }
}
