//! The connection to the Valkey or Redis of the site, and the commands that publish.

use std::fmt;
use std::time::Duration;

use config::{Etcd, Events, HostPort, Secret, Valkey};
use redis::{
    Client, Connection, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError,
};
use thiserror::Error;

use super::etcd;
use super::message::{SOURCE, TaskEvent, stream_event, task_ended};
use super::outbox::Entry;

/// How long a connection may take to stand, and a reply to come.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a primary may take to hand events on to a replica.
const REPLICATION: Duration = Duration::from_secs(1);
/// The stream that managers read.
const STREAM: &str = "events";
/// The channel of those who watch tasks.
const CHANNEL: &str = "events_all";
/// How long those who begin to watch a task find its last message, in seconds.
const CACHED: u64 = 300;
/// How long it is remembered that a task's end was told, in seconds.
const REMEMBERED: u64 = 86_400;

/// Publishes the end of a task unless that was done before, by whatever process, and says whether it was: an agent may
/// die between publishing and forgetting, and its successor must not publish again.
///
/// Keys: what remembers the task, the stream, what caches its last message. Arguments: seconds to remember, name, args
/// and payload of the stream's entry (no name: no entry), the message for watchers, seconds to cache it, its channel.
const PUBLISH_ONCE: &str = "\
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 0 end \
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], '*', 'name', ARGV[2], 'source', 'storage', 'args', ARGV[3], 'payload', ARGV[4]) end \
redis.call('SET', KEYS[3], ARGV[5], 'EX', ARGV[6]) \
redis.call('PUBLISH', ARGV[7], ARGV[5]) \
return 1";

/// Why the server is of no use at the moment.
#[derive(Debug, Error)]
pub(super) enum ServerError {
    /// It cannot be reached, refuses the login, or answers with an error.
    #[error("{address}: {source}")]
    Server { address: String, source: RedisError },
    /// It is there, but only repeats what another says.
    #[error("{0} is a replica; events go to a primary")]
    Replica(String),
    /// No Sentinel knows the primary.
    #[error("no Sentinel names the primary of {service:?}; the last said: {reason}")]
    NoPrimary { service: String, reason: String },
    /// Etcd does not say where it is.
    #[error("the server's address could not be read from etcd: {0}")]
    Etcd(#[from] etcd::EtcdError),
    /// The file with the authority's certificate cannot be read.
    #[error("events.tls-ca-file: {0}")]
    Authority(std::io::Error),
}

/// How to get to the server.
pub(super) struct Server {
    settings: Events,
    etcd: Etcd,
}

/// A connection that stands.
pub(super) struct Link {
    address: String,
    connection: Connection,
    /// Whether another server may take this one's place, so that what it alone knows may be lost.
    replicated: bool,
    /// Whether it runs scripts; not when the login may not.
    scripts: bool,
}

/// What etcd or the configuration says of the login.
struct Login<'a> {
    user: Option<&'a str>,
    password: Option<&'a Secret>,
}

// === impl Server ===

impl Server {
    pub(super) fn new(config: &config::Config) -> Self {
        Server { settings: config.events.clone(), etcd: config.etcd.clone() }
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
                    link.replicated = true;
                    return Ok(link);
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
        let mut connection = self.stand(sentinel, settings)?;
        let found: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(service)
            .query(&mut connection)
            .map_err(|source| ServerError::Server { address: sentinel.to_string(), source })?;
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
        let connection = self.stand(address, settings)?;
        Ok(Link { address: address.to_string(), connection, replicated: false, scripts: true })
    }

    fn stand(&self, address: &HostPort, settings: RedisConnectionInfo) -> Result<Connection, ServerError> {
        let failed = |source| ServerError::Server { address: address.to_string(), source };
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

// === impl Link ===

impl Link {
    /// Publishes the ends of tasks, in order, each once.
    pub(super) fn publish(&mut self, entries: &[Entry]) -> Result<(), ServerError> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.scripts {
            match ends_once(entries).query::<()>(&mut self.connection) {
                Err(error) if refuses_scripts(&error) => {
                    tracing::warn!(server = self.address, %error, "the server refuses scripts; if an agent dies, its successor may tell an end twice");
                    self.scripts = false;
                }
                outcome => outcome.map_err(|source| self.failed(source))?,
            }
        }
        if !self.scripts {
            ends(entries).query::<()>(&mut self.connection).map_err(|source| self.failed(source))?;
        }
        self.await_replica()
    }

    /// Tells those who watch tasks how far they are.
    pub(super) fn announce(&mut self, events: &[TaskEvent]) -> Result<(), ServerError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for event in events {
            watchers(&mut pipe, event);
        }
        pipe.query::<()>(&mut self.connection).map_err(|source| self.failed(source))
    }

    /// Waits until a replica has what was published, for a primary that dies takes with it what it alone knows. One
    /// without a replica, or with a slow one, is not waited for for long.
    fn await_replica(&mut self) -> Result<(), ServerError> {
        if !self.replicated {
            return Ok(());
        }
        let wait =
            redis::cmd("WAIT").arg(1).arg(milliseconds(REPLICATION)).query::<u64>(&mut self.connection);
        match wait {
            Ok(0) => tracing::debug!(server = self.address, "no replica has the events yet"),
            Ok(_) => {}
            Err(error) if error.code() == Some("NOPERM") => {}
            Err(source) => return Err(self.failed(source)),
        }
        Ok(())
    }

    /// Takes a lease that nobody has. Whether it is taken.
    pub(super) fn take_lease(
        &mut self,
        key: &str,
        holder: &str,
        term: Duration,
    ) -> Result<bool, ServerError> {
        let taken: Option<String> = redis::cmd("SET")
            .arg(key)
            .arg(holder)
            .arg("NX")
            .arg("PX")
            .arg(milliseconds(term))
            .query(&mut self.connection)
            .map_err(|source| self.failed(source))?;
        Ok(taken.is_some())
    }

    /// Prolongs a lease. Whether the holder still has it.
    pub(super) fn renew_lease(
        &mut self,
        key: &str,
        holder: &str,
        term: Duration,
    ) -> Result<bool, ServerError> {
        self.if_held("redis.call('PEXPIRE', KEYS[1], ARGV[2])", key, holder, term)
    }

    /// Gives a lease back. Whether the holder still had it.
    pub(super) fn drop_lease(&mut self, key: &str, holder: &str) -> Result<bool, ServerError> {
        self.if_held("redis.call('DEL', KEYS[1])", key, holder, Duration::ZERO)
    }

    fn if_held(
        &mut self,
        action: &str,
        key: &str,
        holder: &str,
        term: Duration,
    ) -> Result<bool, ServerError> {
        let script = format!("if redis.call('GET', KEYS[1]) == ARGV[1] then {action} return 1 end return 0");
        redis::cmd("EVAL")
            .arg(script)
            .arg(1)
            .arg(key)
            .arg(holder)
            .arg(milliseconds(term))
            .query(&mut self.connection)
            .map_err(|source| self.failed(source))
    }

    /// Takes or prolongs a lease that is nobody else's by its name.
    pub(super) fn hold_lease(&mut self, key: &str, holder: &str, term: Duration) -> Result<(), ServerError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(holder).arg("PX").arg(milliseconds(term));
        set.query(&mut self.connection).map_err(|source| self.failed(source))
    }

    /// Whether anybody has a lease.
    pub(super) fn has_lease(&mut self, key: &str) -> Result<bool, ServerError> {
        redis::cmd("EXISTS").arg(key).query(&mut self.connection).map_err(|source| self.failed(source))
    }

    fn require_primary(&mut self) -> Result<(), ServerError> {
        match redis::cmd("ROLE").query::<Vec<redis::Value>>(&mut self.connection) {
            Ok(role) => match role.first() {
                Some(redis::Value::BulkString(role)) if role != b"master" => {
                    Err(ServerError::Replica(self.address.clone()))
                }
                _ => Ok(()),
            },
            // Writing will tell.
            Err(error) if error.code() == Some("NOPERM") => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: RedisError) -> ServerError {
        ServerError::Server { address: self.address.clone(), source }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

fn ends_once(entries: &[Entry]) -> Pipeline {
    let mut pipe = redis::pipe();
    for entry in entries {
        let (stream, watched) =
            (stream_event(&entry.subject, &entry.ended.outcome), task_ended(entry.id, &entry.ended.outcome));
        let (name, args, payload) =
            stream.map_or(("", Vec::new(), String::new()), |event| (event.name, event.args, event.payload));
        pipe.cmd("EVAL")
            .arg(PUBLISH_ONCE)
            .arg(3)
            .arg(format!("storage-agent.told.{}", entry.id))
            .arg(STREAM)
            .arg(cache_key(&watched))
            .arg(REMEMBERED)
            .arg(name)
            .arg(args)
            .arg(payload)
            .arg(watched.text)
            .arg(CACHED)
            .arg(CHANNEL)
            .ignore();
    }
    pipe
}

/// As [`ends_once`], for a server that runs no scripts: all or nothing.
fn ends(entries: &[Entry]) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for entry in entries {
        if let Some(event) = stream_event(&entry.subject, &entry.ended.outcome) {
            pipe.cmd("XADD").arg(STREAM).arg("*");
            pipe.arg("name").arg(event.name).arg("source").arg(SOURCE);
            pipe.arg("args").arg(event.args).arg("payload").arg(event.payload).ignore();
        }
        watchers(&mut pipe, &task_ended(entry.id, &entry.ended.outcome));
    }
    pipe
}

fn watchers(pipe: &mut Pipeline, event: &TaskEvent) {
    pipe.cmd("SET").arg(cache_key(event)).arg(&event.text).arg("EX").arg(CACHED).ignore();
    pipe.cmd("PUBLISH").arg(CHANNEL).arg(&event.text).ignore();
}

fn cache_key(event: &TaskEvent) -> String {
    format!("bgtask.{}", event.task)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn refuses_scripts(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}
