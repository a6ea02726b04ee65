//! A string that never reaches a log, an error or a debug print.

use std::fmt;

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

/// A password, key or shared secret.
///
/// It has no `PartialEq`, because a comparison with what a peer sent must take constant time, and no `Serialize`.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret that does not come from a configuration file, such as one made for a trial run.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Value for Secret {
    const SHOWN: bool = false;

    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::Text(text) if text.chars().any(char::is_control) => {
                Err(Wrong::new(node, "must not contain line breaks or other control characters"))
            }
            Kind::Text(text) => Ok(Self(text.clone())),
            _ => Err(Wrong::new(node, "must be a string in quotes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_shows_a_secret_or_its_length() {
        let (long, short) = (Secret::new("hunter2hunter2".into()), Secret::new("x".into()));
        assert_eq!(format!("{long:?}{long:#?}{long}"), format!("{short:?}{short:#?}{short}"));
        assert!(!format!("{long:?}{long}").contains("hunter"));
        assert_eq!(long.expose(), "hunter2hunter2");
    }
}
