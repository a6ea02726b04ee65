//! The release of the Backend.AI manager, as far as its behaviour must be known in advance.

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

/// A manager's release, `YY.MM` with the patch level left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerVersion {
    /// Year of the release without the century.
    pub year: u16,
    /// Month of the release.
    pub month: u16,
}

impl ManagerVersion {
    /// Whether the manager takes the reply to a clone request for "copy finished" (releases up to 25.12).
    pub fn takes_clone_reply_for_done(self) -> bool {
        self <= Self { year: 25, month: 12 }
    }

    /// Whether the manager waits for an event to know that a vfolder is deleted (releases from 24.12 on).
    pub fn waits_for_deletion_events(self) -> bool {
        self >= Self { year: 24, month: 12 }
    }
}

impl Value for ManagerVersion {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let Kind::Text(text) = &node.kind else {
            return Err(Wrong::new(node, "is not a release in quotes; write it as \"25.12\""));
        };
        let parts: Option<Vec<u16>> = text.trim().split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[year, month] | &[year, month, _]) if year >= 22 && month >= 1 => Ok(Self { year, month }),
            _ => Err(Wrong::new(
                node,
                "is not a manager release of 22.03 or later; write it as \"25.12\" or \"25.12.1\"",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn releases_up_to_25_12_take_the_clone_reply_for_done() {
        for (text, waits) in [
            ("\"22.03\"", true),
            ("\"25.6.13\"", true),
            ("\"25.12.1\"", true),
            ("\"25.13\"", false),
            ("\"26.8.1\"", false),
        ] {
            assert_eq!(
                read::<ManagerVersion>(text).map(ManagerVersion::takes_clone_reply_for_done),
                Ok(waits),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for bad in ["25.12", "25", "\"25\"", "\"v25.12\"", "\"25.0\"", "\"21.09\"", "\"1.2.3.4\"", "\"\""] {
            assert!(read::<ManagerVersion>(bad).is_err(), "{bad}");
        }
    }
}
