//! How a backend measures, copies and removes whole trees, and what its file system has that others have not.
//!
//! Most leave it to the engines of [`crate::tree`]; some file systems know the answer already, some vendors have
//! tools of their own. All methods block.

use std::io;

use crate::fs::{Dir, Name};
use crate::tree::{self, Control, CopyOptions, CopyReport, Interrupted, RemoveReport, TreeError, Usage};

/// The tree part of a backend. What a backend does not do itself, the common engines do.
pub trait Trees: Send + Sync {
    /// Measures all below `dir`.
    fn usage(&self, dir: &Dir, control: &Control, threads: usize) -> Result<Usage, Interrupted> {
        tree::usage(dir, control, threads)
    }

    /// Copies all below `from` into the empty directory `to` of the same volume.
    fn copy(
        &self,
        from: &Dir,
        to: &Dir,
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReport, TreeError> {
        tree::copy(from, to, options, control)
    }

    /// Removes `name` of `parent` and all below it; nothing of that name is a success.
    fn remove(
        &self,
        parent: &Dir,
        name: &Name,
        control: &Control,
        threads: usize,
    ) -> Result<RemoveReport, Interrupted> {
        tree::remove_tree(parent, name, control, threads)
    }

    /// Bytes that can still be written into `dir`, as far as that is known.
    fn room(&self, dir: &Dir) -> io::Result<u64> {
        Ok(dir.statfs()?.available)
    }

    /// Gives `new`, which is going to replace the empty directory `old`, the limits that the file system keeps of `old`.
    fn inherit(&self, old: &Dir, new: &Dir) -> io::Result<()> {
        let _ = (old, new);
        Ok(())
    }

    /// Whether, after a client's crash, a file can be longer than what of it was stored: then its size proves nothing
    /// that was not made durable.
    fn sizes_outrun_data(&self) -> bool {
        false
    }

    /// A name that the file system keeps for itself in every directory.
    fn reserved_name(&self) -> Option<&'static str> {
        None
    }

    /// Fails if what stands at the mount point is not the backend's file system. Asked at every opening, so it must be
    /// quick.
    fn accept(&self, root: &Dir) -> io::Result<()> {
        let _ = root;
        Ok(())
    }

    /// Makes the file system's server answer, past all caches of this host.
    fn probe(&self, root: &Dir) -> io::Result<()> {
        root.statfs().map(drop)
    }
}

/// The common engines.
pub(super) struct Common;

impl Trees for Common {}
