//! `[api.client]` and `[api.manager]`: where the two APIs listen and how they are secured.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::secrets::{self, Sources};
use crate::section::Section;
use crate::value::{HostPort, Secret};

/// `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// `[api.client]`.
    pub client: ClientApi,
    /// `[api.manager]`.
    pub manager: ManagerApi,
}

/// `[api.client]`: the API for end users' programs.
#[derive(Clone, Debug)]
pub struct ClientApi {
    /// Where to listen.
    pub service_addr: HostPort,
    /// Certificate and key; `None` means plain HTTP.
    pub tls: Option<Tls>,
}

/// `[api.manager]`: the API for the Backend.AI manager.
#[derive(Clone, Debug)]
pub struct ManagerApi {
    /// Where to listen.
    pub service_addr: HostPort,
    /// Certificate and key; `None` means plain HTTP.
    pub tls: Option<Tls>,
    /// What the manager sends in `X-BackendAI-Storage-Auth-Token`.
    pub secret: Secret,
    /// Where to serve metrics and health without authentication; `None` means nowhere.
    pub internal_addr: Option<HostPort>,
}

/// A certificate with its private key, both in PEM. Both files existed when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `ssl-cert`: the certificate, followed by its chain.
    pub cert: PathBuf,
    /// `ssl-privkey`: the private key.
    pub privkey: PathBuf,
    /// `ssl-kernel`: leave the encryption of connections to the kernel where it can do that.
    pub kernel: bool,
}

impl Api {
    pub(crate) fn read(s: &Section<'_>) -> Self {
        let api = Self {
            client: s.required_child("client", ClientApi::read),
            manager: s.required_child("manager", ManagerApi::read),
        };
        api.check_overlaps(s);
        api
    }

    fn check_overlaps(&self, s: &Section<'_>) {
        let client = ("client.service-addr", Some(&self.client.service_addr));
        let manager = ("manager.service-addr", Some(&self.manager.service_addr));
        let internal = ("manager.internal-addr", self.manager.internal_addr.as_ref());
        for ((_, first), (key, second)) in [(client, manager), (client, internal), (manager, internal)] {
            let (Some(a), Some(b)) = (first, second) else { continue };
            if a.overlaps(b) {
                s.hidden_problem(
                    key,
                    format!("{b} is taken: another listener uses {a}; give each its own address or port"),
                );
            }
        }
    }
}

impl ClientApi {
    fn read(s: &Section<'_>) -> Self {
        Self { service_addr: s.value_or("service-addr", HostPort::new("127.0.0.1", 6021)), tls: Tls::read(s) }
    }
}

impl ManagerApi {
    fn read(s: &Section<'_>) -> Self {
        s.ignored(&["announce-addr", "announce-internal-addr"], "service discovery is not provided");
        Self {
            service_addr: s.value_or("service-addr", HostPort::new("127.0.0.1", 6022)),
            tls: Tls::read(s),
            secret: shared_secret(s),
            internal_addr: s.value("internal-addr"),
        }
    }
}

fn shared_secret(s: &Section<'_>) -> Secret {
    let sources = Sources { key: "secret", file_key: "secret-file", credential: "api.manager.secret" };
    secrets::read(s, &sources).unwrap_or_else(|| {
        if s.exists() {
            s.missing("secret", &secrets::remedy(&sources));
        }
        Secret::default()
    })
}

impl Tls {
    fn read(s: &Section<'_>) -> Option<Self> {
        let enabled = s.value_or("ssl-enabled", false);
        let kernel = s.value_or("ssl-kernel", true);
        let files = [s.value::<PathBuf>("ssl-cert"), s.value::<PathBuf>("ssl-privkey")];
        if !enabled {
            return None;
        }
        let [cert, privkey] = files;
        let cert = tls_file(s, "ssl-cert", cert);
        let privkey = tls_file(s, "ssl-privkey", privkey);
        warn_if_world_readable(s, privkey.as_ref());
        Some(Self { cert: cert?, privkey: privkey?, kernel })
    }
}

/// Finds the file beside the configuration file or, as upstream's first releases did, in the working directory.
fn tls_file(s: &Section<'_>, key: &str, path: Option<PathBuf>) -> Option<PathBuf> {
    let Some(path) = path else {
        if !s.has(key) {
            s.missing(key, "name a PEM file, or set ssl-enabled = false");
        }
        return None;
    };
    let places = [s.context().directory.join(&path), s.context().working_directory.join(&path)];
    let found = places.iter().find(|place| place.is_file()).cloned();
    if let Some(file) = &found {
        s.belongs(file);
    }
    if found.is_none() {
        let [beside, working] = places.map(|place| place.display().to_string());
        let tried = if beside == working { beside } else { format!("{beside} and {working}") };
        s.problem(
            key,
            format!(
                "is not a file that exists (looked for {tried}); name a PEM file, or set ssl-enabled = false"
            ),
        );
    }
    found
}

fn warn_if_world_readable(s: &Section<'_>, privkey: Option<&PathBuf>) {
    let Some((path, meta)) = privkey.and_then(|path| Some((path, path.metadata().ok()?))) else { return };
    if meta.permissions().mode() & 0o007 != 0 {
        let path = path.display();
        s.warn(
            "ssl-privkey",
            format!("the private key {path} is open to every user of this host; run: chmod o= {path}"),
        );
    }
}
