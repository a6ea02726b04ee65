//! Logs: to standard error for a terminal or the journal, to a file that rotates itself, as text or as JSON.
//!
//! Whatever happens to the place where lines go (a full disk, a closed terminal), the service goes on; lines that
//! cannot be written are lost. Crates below the agent may only warn: at lower levels they repeat headers.

mod file;
mod journal;
mod recent;

use std::any::Any;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use config::{Console, Level, LogFile, LogFormat, Logging};
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, JsonFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt, reload};

use self::file::RotatingFile;
use self::journal::Prioritised;
use self::recent::Recent;
pub use self::recent::{Complaint, recent};
use crate::listener::ACCESS_TARGET;

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The log file cannot be opened.
    #[error("logging.file: {path}: cannot be opened for writing: {source}", path = .path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process logs already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Changes the least severe level that is logged.
static LEVEL: OnceLock<SetLevel> = OnceLock::new();

type SetLevel = Box<dyn Fn(Level) + Send + Sync>;

/// The log file, if there is one.
static FILE: OnceLock<RotatingFile> = OnceLock::new();

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Begins to log as configured. Once per process.
pub fn start(logging: &Logging) -> Result<(), LogError> {
    let mut layers: Vec<BoxedLayer<_>> = vec![Recent.boxed()];
    if let Some(settings) = &logging.console {
        layers.push(console(settings));
    }
    if let Some(settings) = &logging.file {
        layers.push(file(settings)?);
    }
    let (level, handle) = reload::Layer::new(filter(logging.level));
    tracing_subscriber::registry().with(layers.with_filter(level)).try_init()?;
    // The other end is the process's log, which is never taken down.
    let _ = LEVEL.set(Box::new(move |level| drop(handle.reload(filter(level)))));
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "{}", said(panic.payload()));
    }));
    Ok(())
}

/// Logs from this level on.
pub fn set_level(level: Level) {
    if let Some(set) = LEVEL.get() {
        set(level);
    }
}

/// Goes on in a new file if the log file was renamed, as logrotate(8) does.
pub fn reopen() {
    if let Some(file) = FILE.get() {
        file.reopen();
    }
}

/// What a panic said.
pub(crate) fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

/// The agent's own lines from `level`, everybody else's from warnings.
fn filter(level: Level) -> Targets {
    let own = match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target("storage_agent", own)
        .with_target(ACCESS_TARGET, own)
}

fn console<S>(settings: &Console) -> BoxedLayer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let colored = settings.colored.unwrap_or_else(|| {
        // https://no-color.org: any value that is not empty.
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    });
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(colored).log_internal_errors(false);
    match settings.format {
        LogFormat::Json => json(layer),
        // The journal keeps time and priority itself.
        _ if journal::is_stderr() => {
            layer.event_format(Prioritised(Format::default().without_time().with_level(false))).boxed()
        }
        LogFormat::Simple => layer.without_time().with_target(false).boxed(),
        LogFormat::Verbose => layer.boxed(),
    }
}

fn file<S>(settings: &LogFile) -> Result<BoxedLayer<S>, LogError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let path = settings.path.join(&settings.filename);
    let file = RotatingFile::open(path.clone(), settings.rotation_size.bytes(), settings.backup_count)
        .map_err(|source| LogError::File { path, source })?;
    let file = FILE.get_or_init(|| file).clone();
    let layer = fmt::layer().with_writer(file).with_ansi(false).log_internal_errors(false);
    Ok(match settings.format {
        LogFormat::Json => json(layer),
        LogFormat::Simple => layer.with_target(false).boxed(),
        LogFormat::Verbose => layer.boxed(),
    })
}

fn json<S, W>(layer: fmt::Layer<S, fmt::format::DefaultFields, Format, W>) -> BoxedLayer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    layer.json().flatten_event(true).fmt_fields(JsonFields::new()).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level as Severity;

    #[test]
    fn crates_below_may_only_warn_and_never_more_than_the_agent() {
        let debug = filter(Level::Debug);
        assert!(debug.would_enable("storage_agent::api", &Severity::DEBUG));
        assert!(debug.would_enable(ACCESS_TARGET, &Severity::INFO));
        assert!(!debug.would_enable("hyper::proto", &Severity::INFO));
        assert!(debug.would_enable("rustls", &Severity::WARN));
        let error = filter(Level::Error);
        assert!(!error.would_enable("rustls", &Severity::WARN));
        assert!(!error.would_enable(ACCESS_TARGET, &Severity::INFO));
    }
}
