//! Names of an upload session and of its files.

use std::fmt;
use std::io;

use crate::fs::{Name, RelPath};

/// The directory in a vfolder's root that holds unfinished uploads.
pub const STAGING: &str = ".upload";

const DONE: &str = ".done";
const UNVERIFIED: &str = ".unverified";
const WANTED: &str = ".wanted";

/// An upload session: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 32]);

/// What a name in the staging directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StagingName {
    /// The bytes that arrived so far.
    Data(SessionId),
    /// The sign that the session is finished. Its modification time is the time when the token ends.
    Done(SessionId),
    /// The offset from which on the bytes are not verified yet, in decimal digits.
    Unverified(SessionId),
    /// The sign that a client came to another process while one holds the session.
    Wanted(SessionId),
}

impl SessionId {
    /// A session that nobody can guess.
    pub fn random() -> Self {
        let mut digits = [0; 32];
        uuid::Uuid::new_v4().simple().encode_lower(&mut digits);
        SessionId(digits)
    }

    /// Reads exactly 32 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 32] = text.try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(SessionId(digits))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl StagingName {
    /// Reads a name of the staging directory; nothing if it is not one of ours.
    pub(super) fn parse(name: &Name) -> Option<Self> {
        let (session, suffix) = name.as_bytes().split_at_checked(32)?;
        let session = SessionId::parse(session)?;
        match suffix {
            b"" => Some(StagingName::Data(session)),
            _ if suffix == DONE.as_bytes() => Some(StagingName::Done(session)),
            _ if suffix == UNVERIFIED.as_bytes() => Some(StagingName::Unverified(session)),
            _ if suffix == WANTED.as_bytes() => Some(StagingName::Wanted(session)),
            _ => None,
        }
    }

    /// The file's name.
    pub(super) fn name(self) -> io::Result<Name> {
        let (session, suffix) = match self {
            StagingName::Data(session) => (session, ""),
            StagingName::Done(session) => (session, DONE),
            StagingName::Unverified(session) => (session, UNVERIFIED),
            StagingName::Wanted(session) => (session, WANTED),
        };
        name(&format!("{session}{suffix}"))
    }
}

/// The name of the staging directory.
pub(super) fn staging() -> io::Result<Name> {
    name(STAGING)
}

/// Whether a path leads into the staging directory.
pub(super) fn is_staging(path: &RelPath) -> bool {
    path.names().first().is_some_and(|name| name.as_bytes() == STAGING.as_bytes())
}

pub(super) fn name(text: &str) -> io::Result<Name> {
    Name::new(text.as_bytes()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_32_lower_case_digits_are_a_session() {
        let session = SessionId::random();
        assert_eq!(SessionId::parse(session.to_string().as_bytes()), Some(session));
        assert_ne!(session, SessionId::random());
        for text in
            ["", "0", &"a".repeat(31), &"a".repeat(33), &"A".repeat(32), &"g".repeat(32), &"../".repeat(11)]
        {
            assert_eq!(SessionId::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_files_of_a_session_are_told_apart_from_foreign_ones() {
        let session = SessionId::random();
        for staged in [
            StagingName::Data(session),
            StagingName::Done(session),
            StagingName::Unverified(session),
            StagingName::Wanted(session),
        ] {
            assert_eq!(StagingName::parse(&staged.name().unwrap()), Some(staged));
        }
        for foreign in ["notes.txt", &"a".repeat(34), &format!("{session}.donE"), &format!("x{session}")] {
            assert_eq!(StagingName::parse(&name(foreign).unwrap()), None, "{foreign}");
        }
    }
}
