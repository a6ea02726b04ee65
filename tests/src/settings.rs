//! Configuration files: the smallest one that the reference proxy takes, with changes.

use std::net::SocketAddr;
use std::path::Path;

/// The key that signs tokens.
pub const TOKEN_SECRET: &str = "token-secret-of-the-tests-d41d8cd98f00b204";
/// What the manager sends in its authentication header.
pub const MANAGER_SECRET: &str = "manager-secret-of-the-tests-e9800998ecf8427e";

/// Tables and keys in the order in which they are written. Values are TOML.
#[derive(Clone, Debug)]
pub struct Settings(Vec<(String, Vec<(String, String)>)>);

impl Settings {
    /// The smallest file of the storage-proxy contract, with these addresses and this volume.
    pub fn smallest(client: SocketAddr, manager: SocketAddr, volume: &Path) -> Self {
        let address = |addr: SocketAddr| format!("{{ host = \"{}\", port = {} }}", addr.ip(), addr.port());
        let mut settings = Settings(Vec::new());
        settings
            .set("etcd", "namespace", quoted("local"))
            .set("etcd", "addr", "{ host = \"127.0.0.1\", port = 2379 }")
            .set("storage-proxy", "node-id", quoted("i-storage-proxy-01"))
            .set("storage-proxy", "secret", quoted(TOKEN_SECRET))
            .set("storage-proxy", "session-expire", quoted("1d"))
            .set("api.client", "service-addr", address(client))
            .set("api.client", "ssl-enabled", "false")
            .set("api.manager", "service-addr", address(manager))
            .set("api.manager", "ssl-enabled", "false")
            .set("api.manager", "secret", quoted(MANAGER_SECRET))
            .set("debug", "enabled", "false")
            .set("logging", "level", quoted("INFO"))
            .set("logging", "drivers", "[\"console\"]");
        settings.volume("local", volume);
        settings
    }

    /// Adds a plain directory as a volume.
    pub fn volume(&mut self, name: &str, path: &Path) -> &mut Self {
        let table = format!("volume.{name}");
        self.set(&table, "backend", quoted("vfs")).set(&table, "path", quoted(&path.display().to_string()))
    }

    /// Sets a key, or replaces its value.
    pub fn set(&mut self, table: &str, key: &str, value: impl Into<String>) -> &mut Self {
        let keys = match self.0.iter().position(|(name, _)| name == table) {
            Some(at) => &mut self.0[at].1,
            None => {
                self.0.push((table.into(), Vec::new()));
                &mut self.0.last_mut().unwrap().1
            }
        };
        match keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.into(),
            None => keys.push((key.into(), value.into())),
        }
        self
    }

    /// Removes a key; with an empty name, the whole table.
    pub fn unset(&mut self, table: &str, key: &str) -> &mut Self {
        if key.is_empty() {
            self.0.retain(|(name, _)| name != table);
        } else {
            self.0.iter_mut().filter(|(name, _)| name == table).for_each(|(_, keys)| {
                keys.retain(|(name, _)| name != key);
            });
        }
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (table, keys) in &self.0 {
            text.push_str(&format!("[{table}]\n"));
            keys.iter().for_each(|(key, value)| text.push_str(&format!("{key} = {value}\n")));
        }
        text
    }
}

/// A TOML string. The text must need no escapes.
pub fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
