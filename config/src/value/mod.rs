//! The grammars of single values: how a TOML value becomes a typed one, and what to say if it cannot.
//!
//! They follow the storage-proxy contract, so that what an existing site wrote is read the same way here.

mod account;
mod boolean;
mod choice;
mod duration;
mod host_port;
mod network;
mod number;
mod secret;
mod text;
mod version;

pub use account::Account;
pub use host_port::HostPort;
pub use network::IpNetwork;
pub use secret::Secret;
pub use version::ManagerVersion;

pub(crate) use choice::Choice;
pub(crate) use number::Ranged;
pub(crate) use text::FileName;

use crate::tree::Node;

/// A type that a TOML value can be read as.
pub(crate) trait Value: Sized {
    /// Reads `node`, or says what is wrong with it.
    fn read(node: &Node) -> Result<Self, Wrong>;

    /// Whether a wrong value may be shown to the operator.
    const SHOWN: bool = true;
}

/// Why a value is refused. The message continues a sentence that begins with the value.
pub(crate) struct Wrong {
    /// What to append to the key path when a part of the value is wrong, such as `.port` or `[2]`.
    pub(crate) part: String,
    pub(crate) line: usize,
    pub(crate) value: String,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn new(node: &Node, message: impl Into<String>) -> Self {
        Self { part: String::new(), line: node.line, value: node.to_string(), message: message.into() }
    }

    /// The same mistake seen from the table or list that holds the wrong part.
    pub(crate) fn within(mut self, part: &str) -> Self {
        self.part.insert_str(0, part);
        self
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    use super::*;
    use crate::tree;

    /// Reads `value`, written as in a TOML file.
    pub(crate) fn read<T: Value>(value: &str) -> Result<T, String> {
        let table =
            tree::parse(&format!("key = {value}\n")).unwrap_or_else(|_| panic!("{value} is not TOML"));
        T::read(&table.0[0].node)
            .map_err(|wrong| format!("{}: {} {}", wrong.part, wrong.value, wrong.message))
    }
}
