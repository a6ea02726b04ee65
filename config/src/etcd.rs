//! `[etcd]`: where the rest of a Backend.AI installation keeps its shared settings.
//!
//! The agent serves without etcd. The table is read because every existing file has it, and its mistakes are told.

use crate::report::NoticeKind;
use crate::section::Section;
use crate::tree::{Kind, Node};
use crate::value::{HostPort, Secret, Value, Wrong};

/// `[etcd]`, with the environment's `BACKEND_NAMESPACE` and `BACKEND_ETCD_…` in place of the file's values.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// Prefix of the installation's keys.
    pub namespace: String,
    /// Where etcd listens.
    pub addr: Vec<HostPort>,
    /// User name, if etcd asks for one.
    pub user: Option<String>,
    /// Password, if etcd asks for one.
    pub password: Option<Secret>,
}

impl Etcd {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        if s.exists() {
            let message = "has no effect here: the agent serves without etcd";
            s.context().report.notice(s.line(), &s.path_of(""), NoticeKind::Ignored, message);
        }
        if s.has("password") {
            s.context().inline_secret.set(true);
        }
        let addresses = overridden(s, "addr", "BACKEND_ETCD_ADDR");
        Self {
            namespace: overridden(s, "namespace", "BACKEND_NAMESPACE").unwrap_or_else(|| "local".into()),
            addr: addresses.map_or_else(|| vec![HostPort::new("127.0.0.1", 2379)], |Addresses(list)| list),
            user: overridden(s, "user", "BACKEND_ETCD_USER"),
            password: overridden(s, "password", "BACKEND_ETCD_PASSWORD"),
        }
    }
}

/// The environment's value if it has one, else the file's.
fn overridden<T: Value>(s: &Section<'_>, key: &str, variable: &str) -> Option<T> {
    let in_file = s.value(key);
    let Some(text) = (s.context().env)(variable).filter(|text| !text.is_empty()) else { return in_file };
    T::read(&Node::text(text.to_string_lossy()))
        .map_err(|mut wrong| {
            wrong.message.push_str(&format!(" (environment variable {variable})"));
            s.refuse::<T>(key, wrong);
        })
        .ok()
}

/// One address, or a list of them as the newest releases take.
pub(crate) struct Addresses(pub(crate) Vec<HostPort>);

impl Value for Addresses {
    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::List(items) if !is_pair(items) => Vec::read(node).map(Self),
            _ => HostPort::read(node).map(|one| Self(vec![one])),
        }
    }
}

/// Whether the list is one address, `["host", port]`, rather than a list of addresses.
fn is_pair(items: &[Node]) -> bool {
    let number = |port: &Node| matches!(port.kind, Kind::Integer(_)) || u16::read(port).is_ok();
    matches!(items, [host, port] if matches!(host.kind, Kind::Text(_)) && number(port))
}
