//! The user and group that a daemon started as root switches to.

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

/// A user or group; names are looked up when the switch is made, not when the file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Stay as started (`-1`).
    Current,
    /// A numeric id.
    Id(u32),
    /// A name in the system's user or group database.
    Name(String),
}

/// An account; `""` is the same as no value.
impl Value for Option<Account> {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(
                node,
                "is neither a name nor a numeric id; write a name in quotes, an id, or -1 to stay as started",
            )
        };
        let text = match &node.kind {
            Kind::Text(text) => text.trim().to_owned(),
            Kind::Integer(Some(number)) => number.to_string(),
            _ => return Err(wrong()),
        };
        if text.is_empty() {
            return Ok(None);
        }
        if text == "-1" {
            return Ok(Some(Account::Current));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The last id is (uid_t)-1, which chown(2) and setreuid(2) take for "no change".
            let id = text.parse().ok().filter(|id| *id != u32::MAX).ok_or_else(wrong)?;
            return Ok(Some(Account::Id(id)));
        }
        let odd = |c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c);
        if text.starts_with('-') || text.contains(odd) { Err(wrong()) } else { Ok(Some(Account::Name(text))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn names_ids_and_the_two_special_values_are_told_apart() {
        assert_eq!(read("\"bai\""), Ok(Some(Account::Name("bai".into()))));
        assert_eq!(read("\"user$\""), Ok(Some(Account::Name("user$".into()))));
        assert_eq!(read("1000"), Ok(Some(Account::Id(1000))));
        assert_eq!(read("\"1000\""), Ok(Some(Account::Id(1000))));
        assert_eq!(read("-1"), Ok(Some(Account::Current)));
        assert_eq!(read("\"-1\""), Ok(Some(Account::Current)));
        assert_eq!(read::<Option<Account>>("\"\""), Ok(None));
    }

    #[test]
    fn what_is_no_account_is_refused() {
        for bad in ["-2", "4294967295", "\"a b\"", "\"a:b\"", "\"-x\"", "1.5", "true", "[]"] {
            assert!(read::<Option<Account>>(bad).is_err(), "{bad}");
        }
    }
}
