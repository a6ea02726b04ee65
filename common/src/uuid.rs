//! The 128-bit identifier of scopes and folders, and the directory names that are made of it.
//!
//! Apart from the ids that are built of it, because it is all that the privileged process knows of them.

use std::fmt;
use std::str::FromStr;

/// A text is not 32 hexadecimal digits, with or without hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUuid;

/// A 128-bit identifier, printed as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(u128);

impl Uuid {
    /// The 32 digits that name the object on disk.
    pub fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The form with hyphens, as RFC 9562 section 4 prints it.
    pub fn hyphenated(self) -> String {
        let v = self.0;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }

    /// The number that the digits write.
    pub fn number(self) -> u128 {
        self.0
    }

    /// The digits in three directory names of 2, 2 and 28, as bare folders and those in scopes are stored.
    pub fn dir_names(self) -> [String; 3] {
        let mut p1 = self.hex();
        let mut p2 = p1.split_off(2);
        let rest = p2.split_off(2);
        [p1, p2, rest]
    }
}

impl From<u128> for Uuid {
    fn from(value: u128) -> Self {
        Uuid(value)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hyphenated())
    }
}

impl FromStr for Uuid {
    type Err = NotUuid;

    /// Takes what Python's `uuid.UUID()` takes: hyphens anywhere, any case, `urn:uuid:` and braces.
    fn from_str(text: &str) -> Result<Self, NotUuid> {
        let text = text.strip_prefix("urn:").unwrap_or(text);
        let text = text.strip_prefix("uuid:").unwrap_or(text);
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut value = 0u128;
        let mut digits = 0;
        for c in text.chars().filter(|c| *c != '-') {
            let digit = c.to_digit(16).ok_or(NotUuid)?;
            digits += 1;
            if digits > 32 {
                return Err(NotUuid);
            }
            value = (value << 4) | u128::from(digit);
        }
        if digits == 32 { Ok(Uuid(value)) } else { Err(NotUuid) }
    }
}
