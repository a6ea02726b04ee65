//! What the record and the two files say together: whose each id is, and where they disagree.
//!
//! The record has lines that are only ever appended: `+ VOLUME DIRECTORY ID LIMIT` for a project that is there and
//! `- VOLUME DIRECTORY` for one that is gone, with the directory as seen from the volume. The book is built of whole
//! contents when they have changed under the helper and kept up to date otherwise, so that no request reads files that
//! nobody touched. Everything here is a function of contents; nothing does any I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::projects::{self, kept, lines};
use common::protocol::{Refusal, Subject, UNRECORDED, VolumeName};

use crate::config::Volume;
use crate::files::{Contents, Files};

/// A project's place.
pub type Key = (VolumeName, Subject);

/// A project of the helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Its number.
    pub id: u32,
    /// The limit that was asked for last, in bytes; 0 is none.
    pub limit: u64,
}

/// What is on record.
pub type Record = BTreeMap<Key, Owned>;

/// How a project's lines differ from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One of them is not there.
    Missing,
    /// They give the directory another id.
    Differs,
    /// They, or another project on record, give its id to something else too.
    Shared,
}

/// All projects, and all ids and names that are taken.
#[derive(Debug, Default)]
pub struct Book {
    /// Those of subjects. Those that are in the files alone, as another program wrote them, have no limit on record
    /// ([`UNRECORDED`]).
    pub projects: Record,
    /// Where the lines of a project differ from the record.
    pub damage: BTreeMap<Key, Damage>,
    ids: HashSet<u32>,
    names: HashSet<Vec<u8>>,
}

impl Book {
    /// Compares the record with the contents of the files.
    pub fn new(volumes: &[Volume], [paths, names, record]: &Contents) -> Result<Self, Refusal> {
        let mut book = Book { projects: parse_record(record)?, ..Book::default() };
        // How often each id is on record, in the file of directories and in that of names.
        let (mut uses, mut at_path) = (HashMap::<u32, [usize; 3]>::new(), HashMap::<Key, Vec<u32>>::new());
        book.projects.values().for_each(|owned| uses.entry(owned.id).or_default()[0] += 1);
        for (id, path) in lines(paths).filter_map(projects::directory) {
            uses.entry(id).or_default()[1] += 1;
            if let Some(key) = key_of(path, volumes) {
                book.projects.entry(key.clone()).or_insert(Owned { id, limit: UNRECORDED });
                at_path.entry(key).or_default().push(id);
            }
        }
        for (name, id) in lines(names).filter_map(projects::name) {
            uses.entry(id).or_default()[2] += 1;
            book.names.insert(name.to_vec());
        }
        for (key, Owned { id, .. }) in &book.projects {
            let found = at_path.get(key).map_or(&[][..], Vec::as_slice);
            let damage = match uses.get(id).copied().unwrap_or_default() {
                _ if !volumes.iter().any(|volume| volume.name == key.0) => continue,
                _ if found.iter().any(|other| other != id) => Damage::Differs,
                counts if counts.iter().any(|count| *count > 1) => Damage::Shared,
                [_, _, named] if found.is_empty() || named == 0 => Damage::Missing,
                _ => continue,
            };
            book.damage.insert(key.clone(), damage);
        }
        book.ids = uses.into_keys().collect();
        Ok(book)
    }

    /// Whether nobody has this id.
    pub fn is_free(&self, id: u32) -> bool {
        !self.ids.contains(&id)
    }

    /// The lines that a project is short of, so that it is on record as given.
    pub fn lines(&self, key: &Key, owned: Owned, volume: &Volume) -> Files<String> {
        let line = record_line(key, Some(owned));
        match self.projects.get(key) {
            Some(known) if *known == owned => Files::default(),
            Some(_) => [String::new(), String::new(), line],
            None => {
                let path = projects::directory_line(owned.id, &volume.directory, key.1);
                [path, format!("{}:{}\n", name_for(key, &self.names), owned.id), line]
            }
        }
    }

    /// Takes note of a project that is on record now, and has its lines.
    pub fn add(&mut self, key: Key, owned: Owned) {
        self.ids.insert(owned.id);
        self.names.insert(name_for(&key, &self.names).into_bytes());
        self.projects.insert(key, owned);
    }
}

/// The contents without a project.
pub fn without(key: &Key, id: u32, volumes: &[Volume], content: &Contents) -> Contents {
    let [paths, names, record] = content;
    let place = |line: &[u8]| projects::directory(line).and_then(|(_, path)| key_of(path, volumes));
    [
        kept(paths, |line| place(line).as_ref() != Some(key)),
        kept(names, |line| projects::name(line).is_none_or(|(_, other)| other != id)),
        [record, record_line(key, None).as_bytes()].concat(),
    ]
}

/// The contents with the lines that the record asks for, after further projects have been put on it: what is wrong goes,
/// and what is missing comes to the end. Lines that are nobody's on record stay as they are.
pub fn repaired(further: &Record, volumes: &[Volume], content: &Contents) -> Result<Contents, Refusal> {
    let [paths, names, history] = content;
    let further: String = further.iter().map(|(key, owned)| record_line(key, Some(*owned))).collect();
    let history = [history, further.as_bytes()].concat();
    let record = parse_record(&history)?;
    let ids: HashSet<u32> = record.values().map(|owned| owned.id).collect();
    let own = record.keys().flat_map(|(volume, subject)| projects::names(volume, *subject));
    let own: HashSet<_> = own.map(String::into_bytes).collect();
    let (mut placed, mut named, mut taken) = (HashSet::new(), HashSet::new(), HashSet::new());

    let mut paths = kept(paths, |line| {
        let Some((id, path)) = projects::directory(line) else { return true };
        let on_record = key_of(path, volumes).and_then(|key| record.get_key_value(&key));
        on_record.is_none_or(|(key, owned)| id == owned.id && placed.insert(key))
    });
    let mut names = kept(names, |line| {
        let Some((name, id)) = projects::name(line) else { return true };
        // A name of ours that stands for an id of nobody's has been edited.
        let right = ids.contains(&id) || !own.contains(name);
        if right {
            named.insert(id);
            taken.insert(name.to_vec());
        }
        right
    });
    for (key, Owned { id, .. }) in &record {
        let Some(volume) = volumes.iter().find(|volume| volume.name == key.0) else { continue };
        if !placed.contains(key) {
            projects::add(&mut paths, &projects::directory_line(*id, &volume.directory, key.1));
        }
        if named.insert(*id) {
            let name = name_for(key, &taken);
            projects::add(&mut names, &format!("{name}:{id}\n"));
            taken.insert(name.into_bytes());
        }
    }
    Ok([paths, names, history])
}

/// The lines that one content has and the other has not, `-` in front of old ones and `+` in front of new ones.
pub fn difference(old: &[u8], new: &[u8]) -> Vec<String> {
    let (old, new) = (lines(old).collect::<BTreeSet<_>>(), lines(new).collect::<BTreeSet<_>>());
    let signed = |sign, line: &[u8]| format!("{sign} {}", line.trim_ascii_end().escape_ascii());
    let gone = old.difference(&new).map(|line| signed('-', line));
    gone.chain(new.difference(&old).map(|line| signed('+', line))).collect()
}

/// Whose directory it is.
fn key_of(path: &[u8], volumes: &[Volume]) -> Option<Key> {
    let key = |volume: &Volume| Some((volume.name.clone(), projects::subject_at(path, &volume.directory)?));
    volumes.iter().find_map(key)
}

/// A name that is not taken, and no number, which `xfs_quota` would take for an id.
fn name_for((volume, subject): &Key, taken: &HashSet<Vec<u8>>) -> String {
    let [name, of_volume] = projects::names(volume, *subject);
    let number = name.bytes().all(|byte| byte.is_ascii_digit());
    if number || taken.contains(name.as_bytes()) { of_volume } else { name }
}

/// The line about a project that is there, or gone.
pub fn record_line((volume, subject): &Key, owned: Option<Owned>) -> String {
    match owned {
        Some(Owned { id, limit }) => format!("+ {volume} {} {id} {limit}\n", subject.path()),
        None => format!("- {volume} {}\n", subject.path()),
    }
}

/// What the lines say together.
pub fn parse_record(content: &[u8]) -> Result<Record, Refusal> {
    let mut record = Record::new();
    for (line, number) in content.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        match str::from_utf8(line).ok().and_then(|line| parse_line(line.trim_end())) {
            Some((key, Some(owned))) => drop(record.insert(key, owned)),
            Some((key, None)) => drop(record.remove(&key)),
            None => {
                let cure = "bring it back from a backup, or remove it and run quota-helper rebuild";
                return Err(refusal!(FilesDamaged: "the helper's record:{number} means nothing; {cure}"));
            }
        }
    }
    Ok(record)
}

fn parse_line(line: &str) -> Option<(Key, Option<Owned>)> {
    let (volume, path, owned) = match *line.split(' ').collect::<Vec<_>>() {
        ["+", volume, path, id, limit] => {
            (volume, path, Some(Owned { id: id.parse().ok()?, limit: limit.parse().ok()? }))
        }
        ["-", volume, path] => (volume, path, None),
        _ => return None,
    };
    Some(((volume.parse().ok()?, path.parse().ok()?), owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_about_a_project_counts() {
        let key = |number: u128| ("data".parse().unwrap(), Subject::Folder(number.into()));
        let lines = [
            record_line(&key(1), Some(Owned { id: 7, limit: 5 })),
            record_line(&key(2), Some(Owned { id: 8, limit: 0 })),
            record_line(&key(1), Some(Owned { id: 7, limit: u64::MAX })),
            record_line(&key(2), None),
        ];
        let want = Record::from([(key(1), Owned { id: 7, limit: u64::MAX })]);
        assert_eq!(parse_record(lines.concat().as_bytes()), Ok(want));
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        for bad in ["", "+ data 1 2 3", "* data 0b/6c/1d7ea6f24d57a1b2c3d4e5f60718", "\u{fffd}"] {
            let good = "- data 0b/6c/1d7ea6f24d57a1b2c3d4e5f60718\n";
            let refusal = parse_record(format!("{good}{bad}\n{good}").as_bytes()).unwrap_err();
            assert!(refusal.message.contains("record:2"), "{bad}: {refusal}");
        }
    }
}
