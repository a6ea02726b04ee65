//! Values that are one of a few words.

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

/// A type whose values each have a word in the file.
pub(crate) trait Choice: Copy + 'static {
    /// The words; capital and small letters are the same.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Choice> Value for T {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let wanted = match &node.kind {
            Kind::Text(text) => text.trim(),
            _ => "",
        };
        let found = T::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = T::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect();
            Wrong::new(node, format!("is not one of {}", words.join(", ")))
        })
    }
}
