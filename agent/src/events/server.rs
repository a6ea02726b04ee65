//! The way to the Valkey or Redis of the site: by its address, by Sentinels or by etcd, with a login and TLS.

use std::sync::Arc;
use std::time::Duration;

use config::{Etcd, Events, HostPort, Secret, Valkey};
use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use super::etcd;
use super::failure::{Manner, ServerError};
use super::link::{Link, Warned};

/// How long a connection may take to stand, and a reply to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How to get to the server.
pub(super) struct Server {
    settings: Events,
    etcd: Etcd,
    warned: Arc<Warned>,
}

/// What etcd or the configuration says of the login.
struct Login<'a> {
    user: Option<&'a str>,
    password: Option<&'a Secret>,
}

// === impl Server ===

impl Server {
    pub(super) fn new(config: &config::Config) -> Self {
        Server { settings: config.events.clone(), etcd: config.etcd.clone(), warned: Arc::default() }
    }

    /// Finds the primary and connects to it. Blocks for some seconds at most for each address.
    pub(super) fn connect(&self) -> Result<Link, ServerError> {
        match &self.settings.valkey {
            Some(Valkey::Sentinel { addresses, service }) => {
                self.by_sentinel(addresses, service, self.login())
            }
            Some(Valkey::Servers(addresses)) => self.first_primary(addresses, self.login()),
            Some(Valkey::Etcd) | None => {
                let found = etcd::find_valkey(&self.etcd)?;
                let password = found.password.as_ref().or(self.settings.password.as_ref());
                let login = Login { user: self.settings.user.as_deref(), password };
                match found.valkey {
                    Valkey::Sentinel { addresses, service } => self.by_sentinel(&addresses, &service, login),
                    Valkey::Servers(addresses) => self.first_primary(&addresses, login),
                    Valkey::Etcd => Err(etcd::EtcdError::Nothing.into()),
                }
            }
        }
    }

    fn login(&self) -> Login<'_> {
        Login { user: self.settings.user.as_deref(), password: self.settings.password.as_ref() }
    }

    fn first_primary(&self, addresses: &[HostPort], login: Login<'_>) -> Result<Link, ServerError> {
        let mut last = ServerError::Replica("no server is named, which".into());
        for address in addresses {
            match self.open(address, &login).and_then(|mut link| link.require_primary().map(|()| link)) {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn by_sentinel(
        &self,
        sentinels: &[HostPort],
        service: &str,
        login: Login<'_>,
    ) -> Result<Link, ServerError> {
        let mut reason = String::from("nothing");
        for sentinel in sentinels {
            match self.ask(sentinel, service) {
                Ok(Some(primary)) => {
                    let mut link = self.open(&primary, &login)?;
                    link.require_primary()?;
                    return Ok(link.replicated());
                }
                Ok(None) => reason = format!("{sentinel} does not know it"),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(ServerError::NoPrimary { service: service.to_owned(), reason })
    }

    fn ask(&self, sentinel: &HostPort, service: &str) -> Result<Option<HostPort>, ServerError> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = &self.settings.sentinel_password {
            settings = settings.set_password(password.expose());
        }
        let manner = self.manner("events.sentinel-password");
        let mut connection = self.stand(sentinel, settings, manner)?;
        let found: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(service)
            .query(&mut connection)
            .map_err(|error| manner.failed(&sentinel.to_string(), &error))?;
        Ok(found.map(|(host, port)| HostPort { host, port }))
    }

    fn open(&self, address: &HostPort, login: &Login<'_>) -> Result<Link, ServerError> {
        let mut settings =
            RedisConnectionInfo::default().set_skip_set_lib_name().set_db(self.settings.db.into());
        if let Some(user) = login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = login.password {
            settings = settings.set_password(password.expose());
        }
        let manner = self.manner("events.user and events.password");
        let connection = self.stand(address, settings, manner)?;
        Ok(Link::new(address.to_string(), manner, connection, Arc::clone(&self.warned)))
    }

    fn manner(&self, login: &'static str) -> Manner {
        Manner { tls: self.settings.tls, login }
    }

    fn stand(
        &self,
        address: &HostPort,
        settings: RedisConnectionInfo,
        manner: Manner,
    ) -> Result<Connection, ServerError> {
        let failed = |error: RedisError| manner.failed(&address.to_string(), &error);
        let HostPort { host, port } = address.clone();
        let info = (host.as_str(), port).into_connection_info().map_err(failed)?.set_redis_settings(settings);
        let client = if self.settings.tls {
            let root_cert = self.settings.ca_file.as_ref().map(std::fs::read).transpose();
            let root_cert = root_cert.map_err(ServerError::Authority)?;
            let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
            Client::build_with_tls(
                info.set_addr(addr),
                redis::TlsCertificates { client_tls: None, root_cert },
            )
        } else {
            Client::open(info)
        };
        let stand = || -> Result<Connection, RedisError> {
            let connection = client?.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        stand().map_err(failed)
    }
}
