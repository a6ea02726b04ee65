//! Names and relative paths, as bytes.
//!
//! A [`Name`] or [`RelPath`] that exists is valid: no empty part, no `..`, no NUL, nothing longer than Linux
//! takes. Files on a volume need not be UTF-8, so neither type is a string; text is only made for people, with
//! everything that could forge a log line or confuse a terminal escaped.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

/// Longest file name in bytes (`NAME_MAX`, path_resolution(7)).
pub const MAX_NAME: usize = 255;
/// Longest relative path in bytes, separators included (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Why bytes are no name or no relative path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path starts with `/`.
    #[error("expected relative path but the value is absolute")]
    Absolute,
    /// The path has a `..` part.
    #[error("the path must not contain \"..\"")]
    ParentComponent,
    /// There is a NUL byte, which no Linux file name can hold.
    #[error("the name must not contain a NUL byte")]
    Nul,
    /// One part is longer than [`MAX_NAME`].
    #[error("the name has {0} bytes; at most {MAX_NAME} are possible")]
    NameTooLong(usize),
    /// The whole is longer than [`MAX_PATH`].
    #[error("the path has {0} bytes; at most {MAX_PATH} are possible")]
    PathTooLong(usize),
    /// A name is needed and there is none.
    #[error("the name must not be empty")]
    EmptyName,
    /// A name is needed, and `.` names the directory itself.
    #[error("the name must not be \".\"")]
    CurrentComponent,
    /// A name is needed, and there is a `/` in it.
    #[error("the name must not contain \"/\"")]
    Separator,
}

/// One part of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// A path below some directory; the empty one is that directory itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

// === impl Name ===

impl Name {
    /// Checks one name.
    pub fn new(bytes: &[u8]) -> Result<Name, PathError> {
        match bytes {
            [] => Err(PathError::EmptyName),
            b"." => Err(PathError::CurrentComponent),
            b".." => Err(PathError::ParentComponent),
            _ if bytes.contains(&0) => Err(PathError::Nul),
            _ if bytes.contains(&b'/') => Err(PathError::Separator),
            _ if bytes.len() > MAX_NAME => Err(PathError::NameTooLong(bytes.len())),
            _ => Ok(Name(bytes.into())),
        }
    }

    /// The bytes as they are on disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes for calls of the standard library.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Display for Name {
    /// For people: control characters and bytes that are not UTF-8 come out escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

// === impl RelPath ===

impl RelPath {
    /// Parses a path: `""` and `"."` are the root, repeated `/`, `.` parts and a trailing `/` disappear.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, PathError> {
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        let names = bytes
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(part, [] | [b'.']))
            .map(Name::new)
            .collect::<Result<Vec<_>, _>>()?;
        RelPath::from_names(names)
    }

    /// The directory itself.
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// The path made of these names.
    pub fn from_names(names: Vec<Name>) -> Result<RelPath, PathError> {
        let path = RelPath(names);
        match path.len() {
            length if length > MAX_PATH => Err(PathError::PathTooLong(length)),
            _ => Ok(path),
        }
    }

    /// Whether this is the directory itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts in order.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The parent and the last name; nothing for the root.
    pub fn split_last(&self) -> Option<(RelPath, &Name)> {
        let (last, parent) = self.0.split_last()?;
        Some((RelPath(parent.to_vec()), last))
    }

    /// `other` below this path; fails when the result is too long.
    pub fn join(&self, other: &RelPath) -> Result<RelPath, PathError> {
        RelPath::from_names(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// One name below this path; fails when the result is too long.
    pub fn child(&self, name: &Name) -> Result<RelPath, PathError> {
        RelPath::from_names(self.0.iter().chain([name]).cloned().collect())
    }

    /// The bytes with single `/` between the parts; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.0.iter().map(Name::as_bytes).collect();
        parts.join(&b'/')
    }

    fn len(&self) -> usize {
        let names: usize = self.0.iter().map(|name| name.0.len()).sum();
        names + self.0.len().saturating_sub(1)
    }
}

impl From<Name> for RelPath {
    fn from(name: Name) -> RelPath {
        RelPath(vec![name])
    }
}

impl fmt::Display for RelPath {
    /// For people, like [`Name`]'s; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_root() {
            true => f.write_str("."),
            false => Escaped(&self.to_bytes()).fmt(f),
        }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes as text for people: escapes control characters, `\`, and as `\xNN` what is not UTF-8.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    _ if char.is_control() => write!(f, "{}", char.escape_default())?,
                    _ => f.write_char(char)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_for_each_reason_by_its_own_error() {
        let cases: [(&[u8], PathError); 7] = [
            (b"", PathError::EmptyName),
            (b".", PathError::CurrentComponent),
            (b"..", PathError::ParentComponent),
            (b"a\0b", PathError::Nul),
            (b"a/b", PathError::Separator),
            (&[b'x'; 256], PathError::NameTooLong(256)),
            (b"/", PathError::Separator),
        ];
        for (bytes, error) in cases {
            assert_eq!(Name::new(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn unusual_but_legal_names_are_kept_byte_for_byte() {
        for bytes in
            [&[b'x'; 255][..], b"\xff\xfe", b"a\nb", b"...", b" ", b"-rf", b"\\", "\u{202e}".as_bytes()]
        {
            assert_eq!(Name::new(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn paths_are_normalised() {
        let cases: [(&str, &str); 8] = [
            ("", ""),
            (".", ""),
            ("./", ""),
            ("././.", ""),
            ("a", "a"),
            ("a//b///c/", "a/b/c"),
            ("./a/./b/.", "a/b"),
            ("...", "..."),
        ];
        for (input, normal) in cases {
            let path = RelPath::parse(input.as_bytes()).unwrap();
            assert_eq!(path.to_bytes(), normal.as_bytes(), "{input}");
            assert_eq!(path.is_root(), normal.is_empty());
        }
    }

    #[test]
    fn paths_that_climb_start_at_the_root_or_are_too_long_are_refused() {
        let parse = |bytes: &[u8]| RelPath::parse(bytes).unwrap_err();
        assert_eq!(parse(b"/a"), PathError::Absolute);
        assert_eq!(parse(b"/"), PathError::Absolute);
        for climbing in ["..", "a/..", "../a", "a/../b", "./.."] {
            assert_eq!(parse(climbing.as_bytes()), PathError::ParentComponent, "{climbing}");
        }
        assert_eq!(parse(b"a/\0"), PathError::Nul);
        assert_eq!(parse(&[&[b'a'; 256][..], b"/b"].concat()), PathError::NameTooLong(256));
        assert_eq!(parse(&b"a/".repeat(2049)), PathError::PathTooLong(4097));
        assert!(RelPath::parse(&[&b"a/".repeat(2047)[..], b"bc"].concat()).is_ok(), "4096 bytes");
    }

    #[test]
    fn joining_and_splitting_are_inverse_and_bounded() {
        let path = RelPath::parse(b"a/b").unwrap();
        let (parent, name) = path.split_last().unwrap();
        assert_eq!(parent.child(name).unwrap(), path);
        assert_eq!(RelPath::root().join(&path).unwrap(), path);
        assert_eq!(RelPath::root().split_last(), None);
        let long = RelPath::parse(&b"a/".repeat(1200)).unwrap();
        assert_eq!(long.join(&long), Err(PathError::PathTooLong(4799)));
    }

    #[test]
    fn text_for_people_holds_no_control_character() {
        let path = RelPath::parse(b"a\nb/\x1b[31m/\xff\\").unwrap();
        assert_eq!(path.to_string(), "a\\nb/\\u{1b}[31m/\\xff\\\\");
        assert_eq!(RelPath::root().to_string(), ".");
        assert_eq!(format!("{:?}", Name::new(b"x").unwrap()), "\"x\"");
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 8] = [b"/", b"..", b"/../", b"\0", b".", b"//", b"\xff", b"....//"];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "paths", &words, |bytes| {
            let Ok(path) = RelPath::parse(bytes) else { return };
            for name in path.names() {
                let name = name.as_bytes();
                assert!(!name.is_empty() && name.len() <= MAX_NAME && name != b"." && name != b"..");
                assert!(!name.contains(&b'/') && !name.contains(&0), "{name:?}");
            }
            let written = path.to_bytes();
            assert!(written.len() <= MAX_PATH);
            assert_eq!(RelPath::parse(&written).unwrap(), path, "what was written is read as the same");
            if let Ok(joined) = path.join(&path) {
                assert_eq!(joined.names().len(), 2 * path.names().len());
            }
        });
    }
}
