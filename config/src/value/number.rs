//! Whole numbers and sizes, and what a range check needs to know of a type.

use std::time::Duration;

use common::size::BinarySize;

use super::{Value, Wrong, duration};
use crate::tree::{Kind, Node};

/// A type with an order that can be printed as an operator would write it.
pub(crate) trait Ranged: Value + PartialOrd {
    /// The value as it is written in messages.
    fn written(&self) -> String;
}

/// A TOML integer or a string of digits.
fn integer(node: &Node) -> Result<i128, Wrong> {
    match &node.kind {
        Kind::Integer(Some(number)) => Ok(*number),
        Kind::Integer(None) => Err(Wrong::new(node, "is too large")),
        Kind::Text(text) => text.trim().parse().map_err(|_| Wrong::new(node, "is not a whole number")),
        _ => Err(Wrong::new(node, "is not a whole number")),
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(node: &Node) -> Result<Self, Wrong> {
                let number = integer(node)?;
                Self::try_from(number).map_err(|_| {
                    Wrong::new(node, format!("is out of range; write a whole number from 0 to {}", Self::MAX))
                })
            }
        }

        impl Ranged for $type {
            fn written(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(u16, u32, usize);

impl Value for i64 {
    fn read(node: &Node) -> Result<Self, Wrong> {
        Self::try_from(integer(node)?).map_err(|_| Wrong::new(node, "is too large"))
    }
}

impl Value for BinarySize {
    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::Text(text) => text.parse(),
            Kind::Integer(Some(number)) => Self::try_from(*number),
            _ => Err(common::size::SizeError::Malformed),
        }
        .map_err(|error| Wrong::new(node, error.to_string()))
    }
}

impl Ranged for BinarySize {
    fn written(&self) -> String {
        self.to_string()
    }
}

impl Ranged for Duration {
    fn written(&self) -> String {
        duration::written(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn whole_numbers_may_be_in_quotes() {
        assert_eq!(read::<u32>("7"), Ok(7));
        assert_eq!(read::<u32>("\"7\""), Ok(7));
        assert_eq!(read::<usize>("0x10"), Ok(16));
        assert_eq!(read::<i64>("-1"), Ok(-1));
    }

    #[test]
    fn numbers_of_the_wrong_sort_are_refused() {
        let too_long = "9".repeat(50);
        for bad in ["-1", "1.0", "\"x\"", "\"\"", "true", "[1]", "4294967296", &too_long] {
            assert!(read::<u32>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_strings_or_integers() {
        assert_eq!(read("\"1.5k\""), Ok(BinarySize::new(1536).unwrap()));
        assert_eq!(read("1024"), Ok(BinarySize::kib(1)));
        for bad in ["-5", "1.5", "\"big\"", "true", "9223372036854775808"] {
            assert!(read::<BinarySize>(bad).is_err(), "{bad}");
        }
    }
}
