//! Finding the staging directories of a volume, also those that this process knows nothing of: processes that were
//! killed left them, or agents on other nodes that nobody started again.
//!
//! This looks into the directories that lead to vfolders and asks each vfolder for one name, so it costs about one call
//! for each of them, and nothing for what is in them.

use common::id::{QuotaScopeId, ScopeKind, VfolderId};

use super::session::staging;
use crate::error::OpError;
use crate::fs::{Dir, Name, RelPath};
use crate::volume::Volume;

/// Calls `found` with each vfolder of the volume that has a staging directory. What cannot be read is passed over: it
/// has no uploads that anybody could go on with. Blocks.
pub(super) fn survey(volume: &Volume, mut found: impl FnMut(VfolderId)) -> Result<(), OpError> {
    let root = volume.root()?;
    let staging = staging().map_err(|error| OpError::fs(error, &RelPath::root()))?;
    folders(&root, None, &staging, &mut found);
    for (digits, name) in named(&root, 32) {
        let Ok(uuid) = digits.parse() else { continue };
        // Which kind of scope it is makes no difference to where it is.
        let scope = QuotaScopeId::new(ScopeKind::User, uuid);
        if let Ok(holder) = root.open_child(&name) {
            folders(&holder, Some(scope), &staging, &mut found);
        }
    }
    Ok(())
}

fn folders(holder: &Dir, scope: Option<QuotaScopeId>, staging: &Name, found: &mut impl FnMut(VfolderId)) {
    for (first, name) in named(holder, 2) {
        let Ok(prefix) = holder.open_child(&name) else { continue };
        for (second, name) in named(&prefix, 2) {
            let Ok(prefix) = prefix.open_child(&name) else { continue };
            for (rest, name) in named(&prefix, 28) {
                let has_staging = prefix.open_child(&name).is_ok_and(|folder| folder.stat(staging).is_ok());
                if let (true, Ok(uuid)) = (has_staging, format!("{first}{second}{rest}").parse()) {
                    found(VfolderId::new(scope, uuid));
                }
            }
        }
    }
}

/// The entries whose names are so many hexadecimal digits.
fn named(dir: &Dir, length: usize) -> impl Iterator<Item = (String, Name)> + use<> {
    let entries = dir.entries().ok().into_iter().flatten().map_while(Result::ok);
    entries.filter_map(move |entry| {
        let digits = std::str::from_utf8(entry.name.as_bytes()).ok()?;
        let is_hex = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| (digits.to_owned(), entry.name.clone()))
    })
}
