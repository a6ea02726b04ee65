//! `[events]`: the site's Valkey or Redis, through which managers from 24.12 on learn how work ended. Ours; the
//! reference proxy finds the address in etcd.

use std::path::PathBuf;

use crate::etcd::Addresses;
use crate::secrets::{self, Sources};
use crate::section::Section;
use crate::source;
use crate::value::{HostPort, Secret};

/// The logical database of the manager's streams.
const STREAM_DATABASE: u16 = 4;

/// `[events]`.
#[derive(Clone, Debug)]
pub struct Events {
    /// Where the server is; `None` means that nothing is published.
    pub valkey: Option<Valkey>,
    /// Speak TLS to it, and to Sentinels.
    pub tls: bool,
    /// The authority that signed its certificate, PEM; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
    /// The name to log in with; `None` means the server's default user.
    pub user: Option<String>,
    /// The password to log in with.
    pub password: Option<Secret>,
    /// The password of the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// The logical database.
    pub db: u16,
    /// Most events that wait for the server.
    pub outbox_size: usize,
    /// Have agents agree through the server, besides by file locks, on who writes to an upload and who lives.
    pub leases: bool,
}

/// How the server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Valkey {
    /// At one of these addresses: the first that is a primary.
    Servers(Vec<HostPort>),
    /// By asking Sentinels for the primary of a service.
    Sentinel {
        /// The Sentinels.
        addresses: Vec<HostPort>,
        /// The name that they know the service by.
        service: String,
    },
    /// By what the site's etcd says to all Backend.AI programs.
    Etcd,
}

impl Events {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        let password = Sources { key: "password", file_key: "password-file", credential: "events.password" };
        let of_sentinels = Sources {
            key: "sentinel-password",
            file_key: "sentinel-password-file",
            credential: "events.sentinel-password",
        };
        let ca_file = s.path("tls-ca-file");
        if let Some(file) = &ca_file {
            s.belongs(file);
        }
        if ca_file.as_deref().is_some_and(|path| !source::seems_to_exist(path)) {
            s.problem("tls-ca-file", "does not exist; name a PEM file with the authority's certificate");
        }
        Self {
            valkey: valkey(s),
            tls: s.value_or("tls", false),
            ca_file,
            user: s.name("user"),
            password: secrets::read(s, &password),
            sentinel_password: secrets::read(s, &of_sentinels),
            db: s.within("db", STREAM_DATABASE, 0..=1023),
            outbox_size: s.within("outbox-size", 10_000, 100..=1_000_000),
            leases: s.value_or("leases", false),
        }
    }
}

fn valkey(s: &Section<'_>) -> Option<Valkey> {
    let servers = addresses(s, "valkey-addr");
    let sentinels = addresses(s, "sentinel-addr");
    let service = s.name("sentinel-service");
    let from_etcd = s.value_or("from-etcd", false);
    if [servers.is_some(), sentinels.is_some(), from_etcd].iter().filter(|given| **given).count() > 1 {
        let message =
            "says where the server is a second time; keep one of valkey-addr, sentinel-addr and from-etcd";
        s.hidden_problem(if from_etcd { "from-etcd" } else { "sentinel-addr" }, message);
    }
    match (servers, sentinels) {
        (Some(servers), _) => Some(Valkey::Servers(servers)),
        (_, Some(addresses)) => {
            if service.is_none() && !s.has("sentinel-service") {
                s.missing(
                    "sentinel-service",
                    "give the name that the Sentinels know the service by, such as \"mymaster\"",
                );
            }
            Some(Valkey::Sentinel { addresses, service: service.unwrap_or_default() })
        }
        _ if from_etcd => Some(Valkey::Etcd),
        _ => {
            let named = ["valkey-addr", "sentinel-addr"].into_iter().any(|key| s.has(key));
            if !named && s.keys().next().is_some() {
                s.warn(
                    "",
                    "names no server (valkey-addr, sentinel-addr or from-etcd), so no event is published",
                );
            }
            None
        }
    }
}

fn addresses(s: &Section<'_>, key: &str) -> Option<Vec<HostPort>> {
    let Addresses(list) = s.value(key)?;
    if list.is_empty() || list.iter().any(|address| address.host.is_empty()) {
        s.problem(key, "needs the host name or IP address of a server, such as \"valkey.example:6379\"");
    }
    Some(list)
}
