//! Why a call to an array did not give what was asked for.

use std::fmt;
use std::time::Duration;

/// The longest text of an array that is repeated, in bytes.
const LONGEST: usize = 300;

/// A call that failed. Cheap to hand to everybody who waited for it.
#[derive(Debug, Clone)]
pub struct ArrayError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    volume: String,
    operation: &'static str,
    kind: Kind,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::volume) enum Kind {
    /// The client cannot be set up; names the key.
    #[error("cannot be called: {0}")]
    Setup(String),
    /// Nobody answered.
    #[error("does not answer: {0}")]
    Unreachable(String),
    /// The certificate is not one to be trusted; names the keys that help.
    #[error("is not trusted: {0}")]
    Untrusted(String),
    /// The credentials were refused; names their keys.
    #[error("refuses the credentials: {0}")]
    Credentials(String),
    /// The account lacks a right.
    #[error("does not allow that to this account: {0}")]
    Forbidden(String),
    /// Too much to do; the same call may succeed later.
    #[error("is too busy: {0}")]
    Busy(String),
    /// The array said no.
    #[error("refused: {message}{}", code.as_ref().map(|code| format!(" (code {code})")).unwrap_or_default())]
    Refused {
        /// The array's own code.
        code: Option<String>,
        /// The array's own words.
        message: String,
    },
    /// The limit is not one that the array takes.
    #[error("does not take this limit: {0}")]
    Limit(String),
    /// The reply is not what the documents promise.
    #[error("answered what cannot be understood: {0}")]
    Malformed(String),
    /// A job of the array did not end well or in time.
    #[error("did not finish: {0}")]
    Job(String),
    /// Something that the configuration names, or that must be there, is not.
    #[error("lacks what is needed: {0}")]
    Missing(String),
}

impl ArrayError {
    /// A failure of `operation` on the array of `volume`.
    pub(in crate::volume) fn new(volume: &str, operation: &'static str, kind: Kind) -> Self {
        ArrayError(Box::new(Parts { volume: volume.to_owned(), operation, kind }))
    }

    /// What went wrong.
    pub(in crate::volume) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Whether the caller asked for a limit that cannot be.
    pub fn is_bad_limit(&self) -> bool {
        matches!(self.kind(), Kind::Limit(_))
    }

    /// Whether the same request may succeed in a while without anybody changing something.
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind(), Kind::Unreachable(_) | Kind::Busy(_) | Kind::Job(_))
    }

    /// Whether the array's own code is one of these.
    pub(in crate::volume) fn has_code(&self, codes: &[&str]) -> bool {
        matches!(self.kind(), Kind::Refused { code: Some(code), .. } if codes.contains(&code.as_str()))
    }
}

impl fmt::Display for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { volume, operation, kind } = &*self.0;
        write!(f, "the array of volume {volume:?} {kind} (while asked to {operation})")
    }
}

impl std::error::Error for ArrayError {}

/// A text of an array as it may be shown: short, on one line, and without any of these secrets.
pub(super) fn tame(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() > 3) {
        text = text.replace(secret, "…");
    }
    let mut tamed = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if tamed.len() + c.len_utf8() > LONGEST {
            tamed.push('…');
            break;
        }
        tamed.push(c);
    }
    tamed.trim().to_owned()
}

/// A duration in words: `42 s`, `5 min`, `3 h`.
pub(super) fn in_words(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_array_says_is_shown_short_on_one_line_and_without_secrets() {
        assert_eq!(tame("no\r\nsuch T-123456 token\u{1b}[31m", &["T-123456"]), "no  such … token [31m");
        assert!(tame(&"é".repeat(1000), &[]).len() <= LONGEST + '…'.len_utf8());
        assert_eq!(tame("a password", &["a"]), "a password");
    }

    #[test]
    fn an_error_names_the_volume_and_what_was_being_done() {
        let kind = Kind::Refused { code: Some("4".into()), message: "entry doesn't exist".into() };
        let error = ArrayError::new("filer", "find the volume", kind);
        assert_eq!(
            error.to_string(),
            "the array of volume \"filer\" refused: entry doesn't exist (code 4) (while asked to find the volume)"
        );
        assert!(error.has_code(&["1", "4"]) && !error.has_code(&["1"]));
    }
}
