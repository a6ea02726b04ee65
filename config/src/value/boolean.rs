//! Booleans in every spelling that the reference proxy's `ToBool` takes.

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

const TRUE: [&str; 7] = ["t", "true", "y", "yes", "on", "1", "1.0"];
const FALSE: [&str; 8] = ["f", "false", "n", "no", "off", "0", "none", "0.0"];

impl Value for bool {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let word = match &node.kind {
            Kind::Boolean(value) => return Ok(*value),
            Kind::Text(text) => text.trim().to_lowercase(),
            Kind::Integer(Some(number)) => number.to_string(),
            Kind::Float(number) => format!("{number:?}"),
            _ => String::new(),
        };
        if TRUE.contains(&word.as_str()) {
            Ok(true)
        } else if FALSE.contains(&word.as_str()) {
            Ok(false)
        } else {
            Err(Wrong::new(node, "is neither true nor false; write true or false without quotes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;

    #[test]
    fn every_spelling_of_the_contract_is_taken() {
        for yes in ["true", "\"T\"", "\" yes \"", "\"On\"", "1", "1.0", "\"1.0\""] {
            assert_eq!(read::<bool>(yes), Ok(true), "{yes}");
        }
        for no in ["false", "\"f\"", "\"No\"", "\"OFF\"", "0", "0.0", "\"none\""] {
            assert_eq!(read::<bool>(no), Ok(false), "{no}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["\"\"", "\"maybe\"", "2", "-1", "1.5", "[]", "{}", "1979-05-27"] {
            assert!(read::<bool>(bad).is_err(), "{bad}");
        }
    }
}
