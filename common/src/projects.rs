//! Lines of `/etc/projects` (`ID:DIRECTORY`, projects(5)) and `/etc/projid` (`NAME:ID`, projid(5)), and which of them are
//! about a scope or folder of a volume.
//!
//! `xfs_quota(8)` reads these files leniently, so does this module: white space around a number is nothing. All lines
//! that mean no project, such as comments, are `None` here and kept as they are by those who change the files.

use std::path::Path;

use crate::protocol::{Subject, VolumeName};

/// The line of `/etc/projects` for a subject of the volume in this directory.
pub fn directory_line(id: u32, volume: &Path, subject: Subject) -> String {
    format!("{id}:{}/{}\n", volume.display(), subject.path())
}

/// The subject of the volume whose directory this is.
pub fn subject_at(directory: &[u8], volume: &Path) -> Option<Subject> {
    let below = str::from_utf8(directory).ok()?.strip_prefix(volume.to_str()?)?;
    below.strip_prefix('/')?.parse().ok()
}

/// The names of a project: the one that the reference proxy gives it, too, and the one it gets where that is taken.
pub fn names(volume: &VolumeName, subject: Subject) -> [String; 2] {
    let name = match subject {
        Subject::Scope(uuid) => uuid.hex(),
        Subject::Folder(uuid) => uuid.hyphenated(),
    };
    let of_volume = format!("{name}.{volume}");
    [name, of_volume]
}

/// The project and the directory of a line `ID:DIRECTORY` of `/etc/projects`.
pub fn directory(line: &[u8]) -> Option<(u32, &[u8])> {
    let (id, directory) = sides(line)?;
    Some((project_id(id)?, directory))
}

/// The name and the project of a line `NAME:ID` of `/etc/projid`. Further fields, which other systems have, are ignored.
pub fn name(line: &[u8]) -> Option<(&[u8], u32)> {
    let (name, fields) = sides(line)?;
    Some((name, project_id(fields.split(|byte| *byte == b':').next()?)?))
}

/// A number that a project may have: 1 to 4294967294. Project 0 is all that belongs to none, and a limit on it becomes
/// the default of new projects.
pub fn project_id(digits: &[u8]) -> Option<u32> {
    let text = str::from_utf8(digits.trim_ascii()).ok()?;
    let id = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    id.filter(|id| (1..u32::MAX).contains(id))
}

/// Numbers from one to another, as in `1000-1999`.
pub fn id_range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-')?;
    Some((project_id(first.as_bytes())?, project_id(last.as_bytes())?)).filter(|(first, last)| first <= last)
}

/// What stands on both sides of the first colon.
fn sides(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let colon = line.iter().position(|byte| *byte == b':').filter(|_| !line.starts_with(b"#"))?;
    Some((line.get(..colon)?, line.get(colon + 1..)?))
}

/// The lines of a whole file, with the newlines at their ends.
pub fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n')
}

/// A file without the lines that shall not stay.
pub fn kept(content: &[u8], mut keep: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    lines(content).filter(|line| keep(line)).collect::<Vec<_>>().concat()
}

/// Adds a line to a file, on a line of its own.
pub fn add(content: &mut Vec<u8>, line: &str) {
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    content.extend(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_projects_are_read() {
        for (line, want) in [
            ("1001:/vfroot/xfs/alpha\n", Some((1001, "/vfroot/xfs/alpha"))),
            ("1:/with space", Some((1, "/with space"))),
            ("1:/with:colon", Some((1, "/with:colon"))),
            (" 10\t:/padded", Some((10, "/padded"))),
            ("4294967294:/", Some((4_294_967_294, "/"))),
        ] {
            assert_eq!(directory(line.as_bytes()), want.map(|(id, path)| (id, path.as_bytes())), "{line:?}");
        }
    }

    #[test]
    fn lines_of_projid_are_read() {
        for (line, want) in [
            ("alpha:1001\n", Some(("alpha", 1001))),
            ("0b6c1d7e:7", Some(("0b6c1d7e", 7))),
            ("alpha: 7 ", Some(("alpha", 7))),
            ("alpha:1001:with:more fields", Some(("alpha", 1001))),
        ] {
            assert_eq!(name(line.as_bytes()), want.map(|(name, id)| (name.as_bytes(), id)), "{line:?}");
        }
    }

    #[test]
    fn lines_are_kept_and_added_byte_for_byte() {
        let content = b"a\n\n\xff:\r\nlast";
        assert_eq!(kept(content, |_| true), content);
        assert_eq!(kept(content, |line| line != b"\n"), b"a\n\xff:\r\nlast");
        for (old, new) in [(&b""[..], &b"1:/a\n"[..]), (b"x", b"x\n1:/a\n"), (b"x\n", b"x\n1:/a\n")] {
            let mut content = old.to_vec();
            add(&mut content, "1:/a\n");
            assert_eq!(content, new);
        }
    }

    #[test]
    fn lines_that_mean_no_project_are_none() {
        for line in ["", "\n", " \t", "# 1:/commented", "1001 /no/colon"] {
            assert_eq!((directory(line.as_bytes()), name(line.as_bytes())), (None, None), "{line:?}");
        }
        for id in [
            "",
            "ten",
            "0x10",
            "-5",
            "+5",
            "1.5",
            "1 2",
            "0",
            "4294967295",
            "99999999999999999999",
            "\u{663}",
        ] {
            assert_eq!(directory(format!("{id}:/path").as_bytes()), None, "{id:?}");
            assert_eq!(name(format!("name:{id}").as_bytes()), None, "{id:?}");
        }
        assert_eq!(project_id(b"\xff7"), None);
    }
}
