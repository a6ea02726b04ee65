//! `quota-helper check`: an audit of `/etc/projects` and `/etc/projid` for operators.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use quota_helper::args::{self, Command, USAGE};
use quota_helper::audit::audit;
use quota_helper::entry::Entry;
use quota_helper::files::{FileError, Table};

const PROJECTS: &str = "/etc/projects";
const PROJID: &str = "/etc/projid";

/// EX_USAGE of sysexits.h.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    let outcome = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => write_out(USAGE),
        Ok(Command::Version) => write_out(concat!("quota-helper ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Check { projects, projid }) => check(projects, projid),
        Err(error) => return complain(&format!("{error}\n\n{USAGE}"), WRONG_USAGE),
    };
    outcome.unwrap_or_else(|error| complain(&format!("cannot write to standard output: {error}\n"), 1))
}

fn check(projects: Option<PathBuf>, projid: Option<PathBuf>) -> io::Result<ExitCode> {
    let paths = read(projects, PROJECTS);
    let names = read(projid, PROJID);
    let (paths, names) = match (paths, names) {
        (Ok(paths), Ok(names)) => (paths, names),
        (paths, names) => {
            let errors = [paths.err(), names.err()].into_iter().flatten();
            return Ok(complain(&errors.map(|e| format!("{e}\n")).collect::<String>(), 1));
        }
    };
    let findings = audit(&paths, &names);
    let mut out = io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let (directories, named) = (paths.entries.len(), names.entries.len());
    writeln!(out, "directories: {directories}, names: {named}, problems: {}", findings.len())?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file that was asked for has to exist. The system's own may be missing: then nothing is in it.
fn read<E: Entry>(asked: Option<PathBuf>, default: &str) -> Result<Table<E>, FileError> {
    match asked {
        Some(path) => Table::read(&path),
        None => Table::read_if_exists(Path::new(default)),
    }
}

fn write_out(text: &str) -> io::Result<ExitCode> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn complain(text: &str, status: u8) -> ExitCode {
    // Without standard error there is nobody left to tell; the exit status still does.
    let _ = write!(io::stderr(), "quota-helper: {text}");
    ExitCode::from(status)
}
