//! Limits on CephFS: attributes of the directory that they are for.
//!
//! The limit lives and dies with its directory, so there is nothing to register and nothing to forget. A scope that is
//! made with a limit gets its directory under another name, and its own name only with the limit in place: an
//! interrupted call leaves no scope without its limit.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use common::id::{QuotaScopeId, VfolderId};
use rustix::io::Errno;

use super::attributes::{Attributes, Limit, is_forbidden};
use super::ledger::Ledger;
use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath, Replace};
use crate::volume::quota::{Allowance, EntryUsage, QuotaModel, ScopeUsage};
use crate::volume::{DIR_MODE, Volume, scope_path, vfolder_path};

/// The quota part.
pub(super) struct Directories {
    pub(super) attributes: Arc<dyn Attributes>,
    pub(super) ledger: Arc<Ledger>,
}

impl Directories {
    /// Works on a scope's directory.
    async fn on_scope<T, F>(&self, volume: &Arc<Volume>, scope: &QuotaScopeId, work: F) -> Result<T, OpError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Attributes, &Dir, &RelPath) -> Result<T, OpError> + Send + 'static,
    {
        let (attributes, scope) = (Arc::clone(&self.attributes), *scope);
        volume
            .run(move |volume| work(&*attributes, &volume.holder(Some(&scope))?, &scope_path(&scope)?))
            .await
    }
}

#[async_trait]
impl QuotaModel for Directories {
    async fn create_scope(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: Option<u64>,
    ) -> Result<bool, OpError> {
        let (attributes, scope) = (Arc::clone(&self.attributes), *scope);
        volume
            .run(move |volume| match limit {
                None | Some(0) => volume.make_scope_dir(&scope),
                Some(limit) => make_limited(&*attributes, &volume.root()?, &scope_path(&scope)?, limit),
            })
            .await
    }

    async fn remove_scope(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let scope = *scope;
        volume.run(move |volume| volume.remove_scope_dir(&scope)).await
    }

    async fn describe(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<ScopeUsage, OpError> {
        let describe = |attributes: &dyn Attributes, dir: &Dir| -> io::Result<ScopeUsage> {
            let limit_bytes = attributes.limit(dir, Limit::Bytes)?;
            Ok(ScopeUsage { used_bytes: Some(attributes.bytes(dir)?), limit_bytes })
        };
        self.on_scope(volume, scope, move |attributes, dir, path| {
            describe(attributes, dir).map_err(|e| OpError::fs(e, path))
        })
        .await
    }

    async fn set_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId, limit: u64) -> Result<(), OpError> {
        let set = move |attributes: &dyn Attributes, dir: &Dir, path: &RelPath| {
            set(attributes, dir, path, Limit::Bytes, limit)
        };
        self.on_scope(volume, scope, set).await
    }

    async fn unset_limit(&self, volume: &Arc<Volume>, scope: &QuotaScopeId) -> Result<(), OpError> {
        let lift = |attributes: &dyn Attributes, dir: &Dir, path: &RelPath| {
            set(attributes, dir, path, Limit::Bytes, 0)?;
            set(attributes, dir, path, Limit::Entries, 0)
        };
        self.on_scope(volume, scope, lift).await
    }

    async fn entry_usage(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
    ) -> Result<Option<EntryUsage>, OpError> {
        let describe = |attributes: &dyn Attributes, dir: &Dir| -> io::Result<Option<EntryUsage>> {
            let Some(limit) = attributes.limit(dir, Limit::Entries)? else { return Ok(None) };
            let used_files = attributes.statistics(dir)?.entries;
            Ok(Some(EntryUsage { used_files, limit_files: limit.saturating_sub(1) }))
        };
        self.on_scope(volume, scope, move |attributes, dir, path| {
            describe(attributes, dir).map_err(|e| OpError::fs(e, path))
        })
        .await
    }

    /// CephFS counts the directory itself too, so that 10 would allow 9 entries.
    async fn set_entry_limit(
        &self,
        volume: &Arc<Volume>,
        scope: &QuotaScopeId,
        limit: u64,
    ) -> Result<(), OpError> {
        let with_itself = if limit == 0 { 0 } else { limit.saturating_add(1) };
        let set = move |attributes: &dyn Attributes, dir: &Dir, path: &RelPath| {
            set(attributes, dir, path, Limit::Entries, with_itself)
        };
        self.on_scope(volume, scope, set).await
    }

    async fn folder_limit(&self, volume: &Arc<Volume>, id: Option<&VfolderId>) -> Result<u64, OpError> {
        let (attributes, id) = (Arc::clone(&self.attributes), id.copied());
        volume
            .run(move |volume| {
                let dir = id.map_or_else(|| volume.root(), |id| volume.vfolder(&id))?;
                let limit = attributes.limit(&dir, Limit::Bytes);
                Ok(limit.map_err(|e| OpError::fs(e, &RelPath::root()))?.unwrap_or(0))
            })
            .await
    }

    async fn set_folder_limit(
        &self,
        volume: &Arc<Volume>,
        id: &VfolderId,
        limit: u64,
    ) -> Result<(), OpError> {
        let (attributes, id) = (Arc::clone(&self.attributes), *id);
        volume
            .run(move |volume| {
                set(&*attributes, &volume.vfolder(&id)?, &vfolder_path(&id)?, Limit::Bytes, limit)
            })
            .await
    }

    fn limit_above(&self, volume: &Volume, id: &VfolderId) -> Result<Option<u64>, OpError> {
        let mut lowest = None;
        for dir in above(volume, id)? {
            let limit = self.attributes.limit(&dir, Limit::Bytes);
            let limit = limit.map_err(|e| OpError::fs(e, &RelPath::root()))?;
            lowest = lowest.into_iter().chain(limit).min();
        }
        Ok(lowest)
    }

    fn allowance(&self, volume: &Volume, id: &VfolderId) -> Result<Option<Box<dyn Allowance>>, OpError> {
        Ok(Some(self.ledger.share(above(volume, id)?)))
    }
}

/// The directories whose limits hold for what is written into the folder.
fn above(volume: &Volume, id: &VfolderId) -> Result<Vec<Dir>, OpError> {
    let mut dirs = vec![volume.vfolder(id)?];
    if id.scope().is_some() {
        dirs.push(volume.holder(id.scope())?);
    }
    Ok(dirs)
}

/// Sets one limit, with an error that says whose fault a refusal is.
fn set(
    attributes: &dyn Attributes,
    dir: &Dir,
    path: &RelPath,
    limit: Limit,
    value: u64,
) -> Result<(), OpError> {
    attributes.set_limit(dir, limit, value).map_err(|error| {
        if is_forbidden(&error) {
            OpError::QuotaFailed(format!(
                "CephFS says \"{}\": the key of the mount needs the flag \"p\" in its MDS capabilities, and this \
                 service write permission on the directory; storage-agent check tells which it is",
                crate::error::errno_text(&error)
            ))
        } else if Errno::from_io_error(&error) == Some(Errno::INVAL) {
            OpError::QuotaConfig
        } else {
            OpError::fs(error, path)
        }
    })
}

/// Makes a scope's directory that has its limit from the first moment on. Whether it was missing.
///
/// The name that it is made under is always the same: what an interrupted call left is used up by the next one, and
/// calls that run at once do the same to the same directory.
fn make_limited(
    attributes: &dyn Attributes,
    root: &Dir,
    path: &RelPath,
    limit: u64,
) -> Result<bool, OpError> {
    let failed = |error| OpError::fs(error, path);
    let Some((_, name)) = path.split_last() else { return Ok(false) };
    let draft =
        Name::new(format!(".{name}.new").as_bytes()).map_err(|e| OpError::path(name.as_bytes(), &e))?;
    if exists(root, name).map_err(failed)? {
        return Ok(false);
    }
    match root.mkdir(&draft, DIR_MODE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let limited = open(root, &draft).map_err(failed).and_then(|dir| {
        set(attributes, &dir, path, Limit::Bytes, limit)?;
        root.rename(&draft, root, name, Replace::No).map_err(failed)
    });
    match limited {
        Ok(()) => Ok(true),
        // Another call was quicker.
        Err(_) if exists(root, name).map_err(failed)? => {
            discard(root, &draft);
            Ok(false)
        }
        Err(error) => {
            discard(root, &draft);
            Err(error)
        }
    }
}

fn open(root: &Dir, name: &Name) -> io::Result<Dir> {
    root.open_dir_nofollow(&RelPath::from(name.clone()))
}

fn exists(root: &Dir, name: &Name) -> io::Result<bool> {
    match root.stat(name) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a scope's directory that got no name. The next call for the scope would use it up anyway.
fn discard(root: &Dir, draft: &Name) {
    match root.rmdir(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(name = %draft, %error, "an unfinished quota scope could not be removed");
        }
        _ => {}
    }
}
