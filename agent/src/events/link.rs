//! A connection to the server, and the commands that publish and that keep leases.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{Connection, Pipeline, RedisError};

use super::failure::{Manner, ServerError};
use super::message::{SOURCE, TaskEvent, stream_event, task_ended};
use super::outbox::Entry;

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

/// Publishes the end of a task unless that was done before, by whatever process: an agent may die between publishing and
/// forgetting, and its successor must not publish again. A script that fails is not undone, so what remembers the task is
/// written when the entry is in the stream, and what is of less weight follows and may fail.
///
/// Keys: what remembers the task, the stream, what caches its last message. Arguments: seconds to remember, name, args
/// and payload of the stream's entry (no name: no entry), the message for watchers, seconds to cache it, its channel.
const PUBLISH_ONCE: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end \
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], '*', 'name', ARGV[2], 'source', 'storage', 'args', ARGV[3], 'payload', ARGV[4]) end \
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1]) \
redis.pcall('SET', KEYS[3], ARGV[5], 'EX', ARGV[6]) \
redis.pcall('PUBLISH', ARGV[7], ARGV[5]) \
return 1";

/// A connection that stands.
pub(super) struct Link {
    address: String,
    manner: Manner,
    connection: Connection,
    /// Whether another server may take this one's place, so that what it alone knows may be lost.
    replicated: bool,
    /// Whether it runs scripts; not when the login may not.
    scripts: bool,
    warned: Arc<Warned>,
}

/// What was said of the server's refusals, which each connection would meet again.
#[derive(Default)]
pub(super) struct Warned {
    scripts: AtomicBool,
    watchers: AtomicBool,
}

// === impl Link ===

impl Link {
    /// Takes a connection that has logged in.
    pub(super) fn new(address: String, manner: Manner, connection: Connection, warned: Arc<Warned>) -> Self {
        Link { address, manner, connection, replicated: false, scripts: true, warned }
    }

    /// The same, to a primary whose place a replica may take.
    pub(super) fn replicated(self) -> Self {
        Link { replicated: true, ..self }
    }

    /// Publishes the ends of tasks, in order, each once.
    pub(super) fn publish(&mut self, entries: &[Entry]) -> Result<(), ServerError> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.scripts {
            match ends_once(entries).query::<()>(&mut self.connection) {
                Err(error) if refuses_scripts(&error) => {
                    if !self.warned.scripts.swap(true, Relaxed) {
                        let error = self.failed(&error);
                        tracing::warn!(%error, "the server refuses scripts; if an agent dies, its successor may tell an end twice");
                    }
                    self.scripts = false;
                }
                outcome => outcome.map_err(|error| self.failed(&error))?,
            }
        }
        if !self.scripts {
            ends(entries).query::<()>(&mut self.connection).map_err(|error| self.failed(&error))?;
            let watched: Vec<_> =
                entries.iter().map(|entry| task_ended(entry.id, &entry.ended.outcome)).collect();
            // An error now must not have managers told again.
            if let Err(error) = self.announce(&watched) {
                tracing::warn!(%error, "those who watch tasks may not have been told of ends");
            }
        }
        self.await_replica()
    }

    /// Tells those who watch tasks how far they are. A login that may not is no failure: managers need it least.
    pub(super) fn announce(&mut self, events: &[TaskEvent]) -> Result<(), ServerError> {
        if events.is_empty() {
            return Ok(());
        }
        match watchers(events).query::<()>(&mut self.connection) {
            Err(error) if error.code() == Some("NOPERM") => {
                if !self.warned.watchers.swap(true, Relaxed) {
                    let error = self.failed(&error);
                    tracing::warn!(%error, "those who watch tasks are told nothing: the login may not write bgtask.* or publish to events_all");
                }
                Ok(())
            }
            outcome => outcome.map_err(|error| self.failed(&error)),
        }
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
            Err(error) => return Err(self.failed(&error)),
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
            .map_err(|error| self.failed(&error))?;
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
            .map_err(|error| self.failed(&error))
    }

    /// Takes or prolongs a lease that is nobody else's by its name.
    pub(super) fn hold_lease(&mut self, key: &str, holder: &str, term: Duration) -> Result<(), ServerError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(holder).arg("PX").arg(milliseconds(term));
        set.query(&mut self.connection).map_err(|error| self.failed(&error))
    }

    /// Whether anybody has a lease.
    pub(super) fn has_lease(&mut self, key: &str) -> Result<bool, ServerError> {
        redis::cmd("EXISTS").arg(key).query(&mut self.connection).map_err(|error| self.failed(&error))
    }

    /// Refuses a replica.
    pub(super) fn require_primary(&mut self) -> Result<(), ServerError> {
        match redis::cmd("ROLE").query::<Vec<redis::Value>>(&mut self.connection) {
            Ok(role) => match role.first() {
                Some(redis::Value::BulkString(role)) if role != b"master" => {
                    Err(ServerError::Replica(self.address.clone()))
                }
                _ => Ok(()),
            },
            // Writing will tell.
            Err(error) if error.code() == Some("NOPERM") => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &RedisError) -> ServerError {
        self.manner.failed(&self.address, error)
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

/// What managers act on of [`ends_once`], for a server that runs no scripts: all or nothing.
fn ends(entries: &[Entry]) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for entry in entries {
        if let Some(event) = stream_event(&entry.subject, &entry.ended.outcome) {
            pipe.cmd("XADD").arg(STREAM).arg("*");
            pipe.arg("name").arg(event.name).arg("source").arg(SOURCE);
            pipe.arg("args").arg(event.args).arg("payload").arg(event.payload).ignore();
        }
    }
    pipe
}

fn watchers(events: &[TaskEvent]) -> Pipeline {
    let mut pipe = redis::pipe();
    for event in events {
        pipe.cmd("SET").arg(cache_key(event)).arg(&event.text).arg("EX").arg(CACHED).ignore();
        pipe.cmd("PUBLISH").arg(CHANNEL).arg(&event.text).ignore();
    }
    pipe
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
