//! Lines of `/etc/projects` and `/etc/projid` (projects(5), projid(5)).
//!
//! `xfs_quota(8)` reads these files leniently: it skips a line without a colon, takes what isn't a number for
//! project 0, and cuts long lines in two, all without a word. Here such lines are errors that say what would be
//! right, and an entry that exists has an id that a limit may be set on.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A project id that may have a limit: 1 to 4294967294.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(NonZeroU32);

/// A line `id:path` of `/etc/projects`: the directory tree belongs to the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectPath {
    /// The project. Several lines may give it several directories.
    pub id: ProjectId,
    /// The directory, absolute.
    pub path: PathBuf,
}

/// A line `name:id` of `/etc/projid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectName {
    /// The name, as bytes: not empty, not a number, without white space.
    pub name: Vec<u8>,
    /// What the name stands for.
    pub id: ProjectId,
}

/// Why a line isn't an entry, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// No `:` in it.
    #[error("there is no colon, so xfs_quota skips the line; write {0}, or put a # in front")]
    NoColon(&'static str),
    /// Longer than the buffer that the line is read into.
    #[error("the line has {length} bytes and xfs_quota cuts it after {most}; use a shorter path or name")]
    TooLong {
        /// Bytes of the line without its newline.
        length: usize,
        /// The most that are read in one piece.
        most: usize,
    },
    /// The id isn't a number.
    #[error("{0} is not a project id, and xfs_quota may take it for another one; write decimal digits alone")]
    NotANumber(Shown),
    /// The id is above 4294967294.
    #[error("project id {0} is out of range; use one from 1 to 4294967294")]
    OutOfRange(Shown),
    /// The id is 0.
    #[error(
        "project 0 is all that belongs to no project, and a limit on it becomes the default limit of new \
         projects; use an id from 1 to 4294967294"
    )]
    Zero,
    /// The path doesn't start with `/`.
    #[error("{0} is not an absolute path; write the directory from / on")]
    NotAbsolute(Shown),
    /// Nothing before the colon.
    #[error("the name is empty; write name:id, or remove the line")]
    NoName,
    /// A name of digits.
    #[error("the name {0} is all digits, so xfs_quota takes it for an id; put a letter into it")]
    NumericName(Shown),
    /// A name that can't be given to `xfs_quota -c`.
    #[error("the name {0} has white space or a leading -, which xfs_quota's commands can't take; rename it")]
    UnusableName(Shown),
}

/// Bytes of a file, for people: quoted, with control characters and invalid UTF-8 made visible.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(Vec<u8>);

/// A kind of line.
pub trait Entry: Sized {
    /// How such a line is written.
    const FORM: &'static str;
    /// The most bytes that `xfs_quota` reads of a line: its buffer less the newline and two bytes that stay unused.
    const LONGEST: usize;

    /// The entry that the two sides of the line's first colon make.
    fn from_sides(left: &[u8], right: &[u8]) -> Result<Self, LineError>;

    /// What a line without its newline says: `None` for a comment or a blank line.
    fn parse(line: &[u8]) -> Result<Option<Self>, LineError> {
        if line.starts_with(b"#") || line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        if line.len() > Self::LONGEST {
            return Err(LineError::TooLong { length: line.len(), most: Self::LONGEST });
        }
        let (left, right) = split_once(line).ok_or(LineError::NoColon(Self::FORM))?;
        Self::from_sides(left, right).map(Some)
    }
}

impl Entry for ProjectPath {
    const FORM: &'static str = "id:/path";
    const LONGEST: usize = 1021;

    fn from_sides(left: &[u8], right: &[u8]) -> Result<Self, LineError> {
        let id = ProjectId::parse(left)?;
        if !right.starts_with(b"/") {
            return Err(LineError::NotAbsolute(Shown::from(right)));
        }
        Ok(ProjectPath { id, path: Path::new(OsStr::from_bytes(right)).to_path_buf() })
    }
}

impl Entry for ProjectName {
    const FORM: &'static str = "name:id";
    const LONGEST: usize = 509;

    /// Further fields after a second colon, which other systems have, are ignored as `xfs_quota` does.
    fn from_sides(left: &[u8], right: &[u8]) -> Result<Self, LineError> {
        check_name(left)?;
        let digits = split_once(right).map_or(right, |(digits, _)| digits);
        Ok(ProjectName { name: left.to_vec(), id: ProjectId::parse(digits)? })
    }
}

impl ProjectId {
    /// The id as a number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Reads decimal digits and nothing else.
    fn parse(digits: &[u8]) -> Result<Self, LineError> {
        let text = std::str::from_utf8(digits).unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(LineError::NotANumber(Shown::from(digits)));
        }
        match text.parse::<u32>() {
            Ok(number) if number < u32::MAX => NonZeroU32::new(number).map(ProjectId).ok_or(LineError::Zero),
            _ => Err(LineError::OutOfRange(Shown::from(digits))),
        }
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&[u8]> for Shown {
    fn from(bytes: &[u8]) -> Self {
        Shown(bytes.to_vec())
    }
}

impl From<&Path> for Shown {
    fn from(path: &Path) -> Self {
        Shown(path.as_os_str().as_bytes().to_vec())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}{}", chunk.valid().escape_debug(), chunk.invalid().escape_ascii())?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn split_once(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (left, right) = line.split_at_checked(colon)?;
    Some((left, right.get(1..)?))
}

fn check_name(name: &[u8]) -> Result<(), LineError> {
    if name.is_empty() {
        return Err(LineError::NoName);
    }
    if name.iter().all(u8::is_ascii_digit) {
        return Err(LineError::NumericName(Shown::from(name)));
    }
    if name.starts_with(b"-") || name.iter().any(u8::is_ascii_whitespace) {
        return Err(LineError::UnusableName(Shown::from(name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(line: &str) -> Result<Option<(u32, String)>, String> {
        let entry = ProjectPath::parse(line.as_bytes()).map_err(|error| error.to_string())?;
        Ok(entry.map(|e| (e.id.get(), e.path.to_str().unwrap().to_owned())))
    }

    fn name(line: &str) -> Result<Option<(String, u32)>, String> {
        let entry = ProjectName::parse(line.as_bytes()).map_err(|error| error.to_string())?;
        Ok(entry.map(|e| (String::from_utf8(e.name).unwrap(), e.id.get())))
    }

    #[test]
    fn lines_of_projects_are_read() {
        for (line, want) in [
            ("", None),
            (" \t", None),
            ("# 1:/commented", None),
            ("1001:/vfroot/xfs/alpha", Some((1001, "/vfroot/xfs/alpha"))),
            ("1:/with space", Some((1, "/with space"))),
            ("1:/with:colon", Some((1, "/with:colon"))),
            ("4294967294:/", Some((4_294_967_294, "/"))),
        ] {
            assert_eq!(path(line), Ok(want.map(|(id, p)| (id, p.to_owned()))), "{line:?}");
        }
    }

    #[test]
    fn lines_of_projid_are_read() {
        for (line, want) in [
            ("", None),
            ("#alpha:1", None),
            ("alpha:1001", Some(("alpha", 1001))),
            ("0b6c1d7e:7", Some(("0b6c1d7e", 7))),
            ("alpha:1001:with:more fields", Some(("alpha", 1001))),
        ] {
            assert_eq!(name(line), Ok(want.map(|(n, id)| (n.to_owned(), id))), "{line:?}");
        }
    }

    #[test]
    fn each_mistake_in_projects_says_what_is_wrong() {
        for (line, part) in [
            ("1001 /no/colon", "write id:/path"),
            (":/path", "\"\" is not a project id"),
            ("ten:/path", "\"ten\" is not a project id"),
            ("0x10:/path", "\"0x10\" is not a project id"),
            (" 10:/path", "\" 10\" is not a project id"),
            ("-5:/path", "\"-5\" is not a project id"),
            ("1.5:/path", "\"1.5\" is not a project id"),
            ("0:/path", "project 0 is all that belongs to no project"),
            ("4294967295:/path", "out of range"),
            ("99999999999999999999:/path", "out of range"),
            ("7:relative/path", "\"relative/path\" is not an absolute path"),
            ("7:", "\"\" is not an absolute path"),
            ("7: /path", "\" /path\" is not an absolute path"),
        ] {
            let error = path(line).expect_err(line);
            assert!(error.contains(part), "{line:?} gave {error:?}");
        }
    }

    #[test]
    fn each_mistake_in_projid_says_what_is_wrong() {
        for (line, part) in [
            ("alpha", "write name:id"),
            (":7", "the name is empty"),
            ("777:1002", "all digits"),
            ("-p:7", "leading -"),
            ("two words:7", "white space"),
            (" alpha:7", "white space"),
            ("alpha:", "\"\" is not a project id"),
            ("alpha: 7", "\" 7\" is not a project id"),
            ("alpha:0", "project 0"),
            ("alpha:4294967295", "out of range"),
        ] {
            let error = name(line).expect_err(line);
            assert!(error.contains(part), "{line:?} gave {error:?}");
        }
    }

    #[test]
    fn a_line_that_xfs_quota_would_cut_is_an_error() {
        let fits = format!("1:/{}", "a".repeat(ProjectPath::LONGEST - 3));
        assert!(path(&fits).is_ok());
        assert!(path(&format!("{fits}a")).unwrap_err().contains("1022 bytes"));
        let comment = format!("#{}", "a".repeat(5000));
        assert_eq!(path(&comment), Ok(None));
    }

    #[test]
    fn control_characters_and_invalid_bytes_are_made_visible() {
        let error = ProjectPath::parse(b"\x1b[2J\xff\"\xc3\xa9:/path").unwrap_err().to_string();
        assert!(error.contains(r#""\u{1b}[2J\xff\"é""#), "{error}");
    }
}
