//! The projects that the volumes' directories are tagged with, for a site that has lost its project files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use common::protocol::Refusal;

use crate::book::{Key, Owned, Record};
use crate::config::Volume;
use crate::files::failed;
use crate::service::Service;
use crate::sys::project_of;

/// All scopes and folders that have a project of their own, with the limit in force. One whose id is another one's
/// already, on record or found before, is left out and told of, and so is a volume that something is wrong with.
pub fn found(service: &mut Service) -> Result<(Record, Vec<String>), Refusal> {
    service.read()?;
    let (mut found, mut left_out) = (Record::new(), Vec::new());
    let known = service.book.projects.iter().map(|(key, owned)| (owned.id, key.clone()));
    let mut owners: HashMap<u32, Key> = known.collect();
    for Volume { name, directory } in &service.config.volumes {
        let Ok(tool) = service.tool(name).map_err(|refusal| left_out.push(refusal.message)) else { continue };
        for path in candidates(directory).map_err(failed("search", directory))? {
            let Ok(subject) = path.parse() else { continue };
            let id = project_of(&directory.join(path)).map_err(failed("look into", directory))?;
            let key = (name.clone(), subject);
            match claim(&mut owners, &key, id) {
                _ if id == 0 => {}
                Ok(()) => drop(found.insert(key, Owned { id, limit: tool.usage(id)?.limit })),
                Err(taken) => left_out.push(taken),
            }
        }
    }
    Ok((found, left_out))
}

/// Whether an id is nobody else's.
fn claim(owners: &mut HashMap<u32, Key>, key: &Key, id: u32) -> Result<(), String> {
    let owner = owners.entry(id).or_insert(key.clone());
    if owner == key {
        return Ok(());
    }
    let cure = "left out, give one of them another project";
    Err(format!("{} of {} has project {id} of {} of {}: {cure}", key.1, key.0, owner.1, owner.0))
}

/// Paths below the volume that may be those of a scope or of a folder outside of scopes.
fn candidates(volume: &Path) -> io::Result<Vec<String>> {
    let mut paths: Vec<_> = names(volume)?.into_iter().collect();
    for level in 1..=2 {
        for above in paths.clone().iter().filter(|path| path.len() == 3 * level - 1) {
            paths.extend(names(&volume.join(above))?.iter().map(|name| format!("{above}/{name}")));
        }
    }
    Ok(paths)
}

/// The names of the directories in a directory; links are none.
fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let directories = entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use common::protocol::Subject;

    use super::*;

    #[test]
    fn an_id_belongs_to_the_first_that_is_tagged_with_it() {
        let key = |volume: &str, number: u128| (volume.parse().unwrap(), Subject::Scope(number.into()));
        let mut owners = HashMap::from([(7, key("data", 1))]);
        assert_eq!(claim(&mut owners, &key("data", 1), 7), Ok(()));
        assert_eq!(claim(&mut owners, &key("data", 2), 8), Ok(()));
        for (volume, number, id) in [("data", 2, 7), ("more", 1, 7), ("data", 3, 8)] {
            let taken = claim(&mut owners, &key(volume, number), id).unwrap_err();
            assert!(taken.contains(&format!("has project {id} of scope 0000")), "{taken}");
        }
    }

    #[test]
    fn directories_at_the_places_of_scopes_and_folders_are_candidates() {
        let volume = tempfile::tempdir().unwrap();
        for path in ["0b6c", "0b/6c/rest", "0b/6c/more", "0b/long/deep", "ab/cd"] {
            fs::create_dir_all(volume.path().join(path)).unwrap();
        }
        fs::write(volume.path().join("0b/6c/file"), "").unwrap();
        std::os::unix::fs::symlink("0b", volume.path().join("ln")).unwrap();
        let want = ["0b", "0b6c", "ab", "0b/6c", "0b/long", "ab/cd", "0b/6c/more", "0b/6c/rest"];
        assert_eq!(candidates(volume.path()).unwrap(), want);
    }
}
