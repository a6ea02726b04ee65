//! The command line.
//!
//! Read by hand: one subcommand with two options doesn't earn a parser among the dependencies.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use thiserror::Error;

/// What `--help` prints.
pub const USAGE: &str = "\
Audits the files that name XFS project quotas. Reads only, and needs no privilege.

Usage: quota-helper check [--projects FILE] [--projid FILE]
       quota-helper --help | --version

  --projects FILE   lines id:/path, instead of /etc/projects
  --projid FILE     lines name:id, instead of /etc/projid

Prints one line FILE:LINE: PROBLEM for each mistake.
Exit status: 0 no mistakes, 1 mistakes or an unreadable file, 64 wrong usage.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Audit the two files; `None` is the system's own.
    Check {
        /// The file of directories.
        projects: Option<PathBuf>,
        /// The file of names.
        projid: Option<PathBuf>,
    },
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// Nothing asked for.
    #[error("a subcommand is missing; the only one of this release is check, serving is not part of it")]
    NoCommand,
    /// Not a subcommand.
    #[error("there is no subcommand {0:?}; the only one is check")]
    UnknownCommand(OsString),
    /// Not an option of `check`.
    #[error("check has no option {0:?}; its options are --projects FILE and --projid FILE")]
    UnknownOption(OsString),
    /// An option at the end.
    #[error("{0} needs the path of a file after it")]
    NoValue(&'static str),
    /// An option twice.
    #[error("{0} is given twice; give one file")]
    Twice(&'static str),
}

/// Reads the arguments after the program's name.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let first = arguments.next().ok_or(UsageError::NoCommand)?;
    match first.to_str() {
        Some("check") => parse_check(arguments),
        Some("-h" | "--help") => Ok(Command::Help),
        Some("-V" | "--version") => Ok(Command::Version),
        _ => Err(UsageError::UnknownCommand(first)),
    }
}

fn parse_check(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let (mut projects, mut projid) = (None, None);
    while let Some(argument) = arguments.next() {
        let (name, inline) = split_value(&argument);
        let (option, slot) = match name {
            b"--projects" => ("--projects", &mut projects),
            b"--projid" => ("--projid", &mut projid),
            b"-h" | b"--help" if inline.is_none() => return Ok(Command::Help),
            _ => return Err(UsageError::UnknownOption(argument)),
        };
        let value = inline.or_else(|| arguments.next()).filter(|value| !value.is_empty());
        let value = value.ok_or(UsageError::NoValue(option))?;
        if slot.replace(PathBuf::from(value)).is_some() {
            return Err(UsageError::Twice(option));
        }
    }
    Ok(Command::Check { projects, projid })
}

/// `--name=value` in two; a value's bytes stay what they are.
fn split_value(argument: &OsStr) -> (&[u8], Option<OsString>) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = argument.as_bytes();
    let mut parts = bytes.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or(bytes);
    (name, parts.next().map(|value| OsStr::from_bytes(value).to_os_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn check(projects: Option<&str>, projid: Option<&str>) -> Command {
        Command::Check { projects: projects.map(PathBuf::from), projid: projid.map(PathBuf::from) }
    }

    #[test]
    fn good_command_lines_are_understood() {
        for (line, want) in [
            ("check", check(None, None)),
            ("check --projects a", check(Some("a"), None)),
            ("check --projid=b=c --projects a", check(Some("a"), Some("b=c"))),
            ("check --help", Command::Help),
            ("--help", Command::Help),
            ("-V", Command::Version),
        ] {
            assert_eq!(parsed(line), Ok(want), "{line}");
        }
    }

    #[test]
    fn each_wrong_command_line_is_refused() {
        for (line, want) in [
            ("", UsageError::NoCommand),
            ("serve", UsageError::UnknownCommand("serve".into())),
            ("check file", UsageError::UnknownOption("file".into())),
            ("check --project a", UsageError::UnknownOption("--project".into())),
            ("check --projects", UsageError::NoValue("--projects")),
            ("check --projid=", UsageError::NoValue("--projid")),
            ("check --projid a --projid b", UsageError::Twice("--projid")),
        ] {
            assert_eq!(parsed(line), Err(want), "{line}");
        }
    }
}
