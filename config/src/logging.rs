//! `[logging]` and `[debug]`: what is logged, how it looks and where it goes.

use std::path::PathBuf;

use common::size::BinarySize;

use crate::report::NoticeKind;
use crate::section::Section;
use crate::tree::Node;
use crate::value::{Choice, FileName, Value};

/// `[logging]`, with `[debug] enabled` and `pkg-ns` already applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The least severe level that is logged.
    pub level: Level,
    /// Logging to standard error, if wanted.
    pub console: Option<Console>,
    /// Logging to a file, if wanted.
    pub file: Option<LogFile>,
}

/// How severe a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything (`NOTSET`, `TRACE`).
    Trace,
    /// For finding faults.
    Debug,
    /// What an operator wants to see.
    #[default]
    Info,
    /// What an operator should look at.
    Warning,
    /// What failed (`ERROR`, `CRITICAL`).
    Error,
}

/// `[logging.console]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Whether to colour; `None` means if it is a terminal.
    pub colored: Option<bool>,
    /// How a line looks.
    pub format: LogFormat,
}

/// `[logging.file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The directory, absolute; to be created if missing.
    pub path: PathBuf,
    /// The name of the file in it, without a slash.
    pub filename: String,
    /// How many rotated files are kept.
    pub backup_count: u32,
    /// The size at which the file is rotated.
    pub rotation_size: BinarySize,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Level and message.
    Simple,
    /// With time, source and fields.
    Verbose,
    /// One JSON object a line; ours.
    Json,
}

impl Choice for Level {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("NOTSET", Self::Trace),
        ("TRACE", Self::Trace),
        ("DEBUG", Self::Debug),
        ("INFO", Self::Info),
        ("WARNING", Self::Warning),
        ("WARN", Self::Warning),
        ("ERROR", Self::Error),
        ("CRITICAL", Self::Error),
    ];
}

impl std::str::FromStr for Level {
    type Err = String;

    /// Reads a level as `--log-level` takes it.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(&Node::text(text)).map_err(|wrong| format!("{} {}", wrong.value, wrong.message))
    }
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("simple", Self::Simple), ("verbose", Self::Verbose), ("json", Self::Json)];
}

/// The places that a log can go to. All but the first two are the reference proxy's alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Console,
    File,
    NotHere,
}

impl Choice for Driver {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("console", Self::Console),
        ("file", Self::File),
        ("logstash", Self::NotHere),
        ("graylog", Self::NotHere),
    ];
}

impl Logging {
    pub(crate) fn read(s: &Section<'_>, debug: bool) -> Self {
        s.ignored(&["logstash", "graylog", "version", "handlers", "loggers", "disable-existing-loggers"], "");
        let drivers = drivers(s);
        let console = s.child("console", Console::read);
        let wants_file = drivers.contains(&Driver::File);
        let file = s.child("file", |section| LogFile::read(section, wants_file));
        if wants_file && file.is_none() && !s.has("file") {
            s.missing(
                "file",
                "add [logging.file] with path and filename, or take \"file\" out of logging.drivers",
            );
        }
        let configured = s.value("level");
        let of_backend_ai = s.child("pkg-ns", level_of_backend_ai);
        let level = configured.or(of_backend_ai).unwrap_or_default();
        Self {
            level: if debug { level.min(Level::Debug) } else { level },
            console: drivers.contains(&Driver::Console).then_some(console),
            file,
        }
    }
}

/// Never empty, because a daemon that says nothing anywhere cannot be run.
fn drivers(s: &Section<'_>) -> Vec<Driver> {
    let drivers = s.value_or("drivers", vec![Driver::Console]);
    if drivers.contains(&Driver::NotHere) {
        let message = "logstash and graylog have no effect here; console and file do";
        s.context().report.notice(s.line(), &s.path_of("drivers"), NoticeKind::Ignored, message);
    }
    if drivers.iter().all(|driver| *driver == Driver::NotHere) {
        s.warn("drivers", "names no place that the agent can log to, so it logs to the console");
        return vec![Driver::Console];
    }
    drivers
}

/// `"ai.backend"` of `[logging.pkg-ns]`; the other packages do not exist here.
fn level_of_backend_ai(s: &Section<'_>) -> Option<Level> {
    const OURS: &str = "ai.backend";
    if s.keys().any(|key| key != OURS) {
        let message = "has no effect here, except \"ai.backend\" when logging.level is absent";
        s.context().report.notice(s.line(), &s.path_of(""), NoticeKind::Ignored, message);
    }
    let level = s.value(OURS);
    s.accept_all();
    level
}

/// `[debug]`, of which only `enabled` means something here.
pub(crate) fn debug_enabled(s: &Section<'_>) -> bool {
    s.ignored(&["asyncio", "enhanced-aiomonitor-task-info", "log-events"], "");
    s.value_or("enabled", false)
}

impl Console {
    fn read(s: &Section<'_>) -> Self {
        Self { colored: s.value("colored"), format: s.value_or("format", LogFormat::Verbose) }
    }
}

impl LogFile {
    /// `None` when the file is not wanted or wrong.
    fn read(s: &Section<'_>, wanted: bool) -> Option<Self> {
        let (path, filename) = (s.path("path"), s.value::<FileName>("filename"));
        let (backup_count, rotation_size) = (
            s.within("backup-count", 5, 0..=1000),
            s.within("rotation-size", BinarySize::mib(10), BinarySize::kib(4)..=BinarySize::gib(1024)),
        );
        let format = s.value_or("format", LogFormat::Verbose);
        if wanted && s.exists() {
            for key in ["path", "filename"].into_iter().filter(|key| !s.has(key)) {
                s.missing(key, "it says where to log to");
            }
        }
        wanted.then_some(Self { path: path?, filename: filename?.0, backup_count, rotation_size, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    #[test]
    fn levels_of_the_command_line_and_of_the_file_are_the_same_words() {
        assert_eq!("critical".parse(), Ok(Level::Error));
        assert_eq!("NOTSET".parse(), Ok(Level::Trace));
        assert!("loud".parse::<Level>().unwrap_err().contains("\"INFO\""));
    }

    #[test]
    fn the_kind_of_a_value_is_not_a_level() {
        let node = Node { line: 1, kind: Kind::Integer(Some(20)) };
        assert!(Level::read(&node).is_err());
    }
}
