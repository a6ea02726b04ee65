//! Strings, paths, and lists of values.

use std::path::{Path, PathBuf};

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

impl Value for String {
    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::Text(text) if text.chars().any(char::is_control) => {
                Err(Wrong::new(node, "must not contain line breaks or other control characters"))
            }
            Kind::Text(text) => Ok(text.clone()),
            _ => Err(Wrong::new(node, "is not a string; put it in quotes")),
        }
    }
}

/// A path as written; relative ones are resolved by the section that reads it.
impl Value for PathBuf {
    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::Text(text) if text.is_empty() || text.contains('\0') => {
                Err(Wrong::new(node, "is not a path"))
            }
            Kind::Text(text) => Ok(Self::from(text)),
            _ => Err(Wrong::new(node, "is not a path in quotes")),
        }
    }
}

/// One name without directories.
pub(crate) struct FileName(pub(crate) String);

impl Value for FileName {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let name = String::read(node)?;
        if Path::new(&name).file_name().is_some_and(|last| last == name.as_str()) {
            Ok(Self(name))
        } else {
            Err(Wrong::new(node, "is not the name of a file; write the name alone, without its directory"))
        }
    }
}

impl<T: Value> Value for Vec<T> {
    const SHOWN: bool = T::SHOWN;

    fn read(node: &Node) -> Result<Self, Wrong> {
        let Kind::List(items) = &node.kind else {
            return Err(Wrong::new(node, "is not a list; write [\"…\", \"…\"]"));
        };
        let item = |(n, item)| T::read(item).map_err(|wrong| wrong.within(&format!("[{n}]")));
        items.iter().enumerate().map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn the_wrong_item_of_a_list_is_named_by_its_position() {
        assert_eq!(read::<Vec<u32>>("[1, 2]"), Ok(vec![1, 2]));
        assert!(read::<Vec<u32>>("[1, \"x\"]").unwrap_err().starts_with("[1]: \"x\""));
        assert!(read::<Vec<u32>>("1").is_err());
    }

    #[test]
    fn strings_with_control_characters_and_empty_paths_are_refused() {
        assert!(read::<String>("\"a\\nb\"").is_err());
        assert!(read::<String>("7").is_err());
        assert!(read::<PathBuf>("\"\"").is_err());
        assert_eq!(read("\"a b\""), Ok(PathBuf::from("a b")));
    }
}
