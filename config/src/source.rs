//! Finding and reading the configuration file.
//!
//! The environment and the working directory are values here, so that a test, or a trial run, can supply its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::report::{Problem, Problems};

/// The file's name in every directory that is searched.
const NAME: &str = "storage-proxy.toml";

/// Far above any real file, so that a wrong path such as `/dev/zero` fails instead of filling the memory.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Where a configuration comes from and how it is judged.
pub struct Source<'a> {
    /// The file that the command line names, if any.
    pub file: Option<PathBuf>,
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The directory that relative paths on the command line start at.
    pub working_directory: PathBuf,
    /// Skip volumes with an unknown backend, with a notice, instead of refusing the file.
    pub lenient: bool,
}

/// A file's text with what has to be known of the file.
pub(crate) struct Text {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) world_readable: bool,
}

impl Source<'_> {
    /// The process's own environment and working directory.
    pub fn of_process(file: Option<PathBuf>, lenient: bool) -> Source<'static> {
        // Without a working directory, relative paths are left to the kernel, which then says what is wrong.
        let working_directory = std::env::current_dir().unwrap_or_default();
        Source { file, env: &|name| std::env::var_os(name), working_directory, lenient }
    }

    /// The path that the command line or `BACKEND_CONFIG_FILE` demands, else the first existing default place.
    pub(crate) fn find(&self) -> Result<PathBuf, Problems> {
        if let Some(file) = &self.file {
            return Ok(self.working_directory.join(file));
        }
        if let Some(file) = self.variable("BACKEND_CONFIG_FILE") {
            return Ok(self.working_directory.join(file));
        }
        let places = self.default_places();
        places.iter().find(|place| seems_to_exist(place)).cloned().ok_or_else(|| not_found(&places))
    }

    fn default_places(&self) -> Vec<PathBuf> {
        let home = self.variable("HOME").map(|home| Path::new(&home).join(".config/backend.ai").join(NAME));
        let first = self.working_directory.join(NAME);
        [Some(first), home, Some(Path::new("/etc/backend.ai").join(NAME))].into_iter().flatten().collect()
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|value| !value.is_empty())
    }
}

/// An unreadable place counts as existing, so that reading it tells why it cannot be used.
pub(crate) fn seems_to_exist(place: &Path) -> bool {
    match place.metadata() {
        Ok(meta) => !meta.is_dir(),
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn not_found(places: &[PathBuf]) -> Problems {
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    whole_file(
        Path::new(NAME),
        format!(
            "no such file in any of its places ({}); name one with -f FILE or BACKEND_CONFIG_FILE",
            places.join(", ")
        ),
    )
}

fn whole_file(file: &Path, message: String) -> Problems {
    let problem = Problem { file: file.to_owned(), line: None, key: String::new(), value: None, message };
    Problems { problems: vec![problem], notices: Vec::new() }
}

/// Reads the file at `path`; fails if it cannot be read, is far too long or is not UTF-8.
pub(crate) fn read(path: PathBuf) -> Result<Text, Problems> {
    let unreadable = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "; check the path given with -f or in BACKEND_CONFIG_FILE",
            io::ErrorKind::PermissionDenied => {
                "; let the agent's user read it, for example with: chgrp and chmod 0640"
            }
            _ => "",
        };
        whole_file(&path, format!("cannot be read: {error}{remedy}"))
    };
    let file = File::open(&path).map_err(unreadable)?;
    let world_readable = file.metadata().map_err(unreadable)?.permissions().mode() & 0o004 != 0;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(whole_file(
            &path,
            format!("is longer than {LONGEST} bytes, so it is hardly a configuration file"),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(before).filter(|byte| **byte == b'\n').count();
        whole_file(&path, format!("is not UTF-8 text: line {line} has bytes of another encoding"))
    })?;
    Ok(Text { path, text, world_readable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source<'a>(
        file: Option<&str>,
        directory: &Path,
        env: &'a dyn Fn(&str) -> Option<OsString>,
    ) -> Source<'a> {
        Source { file: file.map(Into::into), env, working_directory: directory.to_owned(), lenient: false }
    }

    #[test]
    fn the_command_line_goes_before_the_environment_and_both_before_the_default_places() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "").unwrap();
        let env = |name: &str| (name == "BACKEND_CONFIG_FILE").then(|| "/from/env.toml".into());
        let find = |source: Source<'_>| source.find().unwrap();
        assert_eq!(find(source(Some("cli.toml"), directory.path(), &env)), directory.path().join("cli.toml"));
        assert_eq!(find(source(None, directory.path(), &env)), Path::new("/from/env.toml"));
        assert_eq!(find(source(None, directory.path(), &|_| None)), directory.path().join(NAME));
    }

    #[test]
    fn the_home_directory_is_searched_after_the_working_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".config/backend.ai");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(NAME), "").unwrap();
        let env = |name: &str| (name == "HOME").then(|| home.path().into());
        let source = source(None, Path::new("/nonexistent"), &env);
        assert_eq!(source.find().unwrap(), directory.join(NAME));
        let places =
            ["/nonexistent".into(), directory, "/etc/backend.ai".into()].map(|d: PathBuf| d.join(NAME));
        assert_eq!(source.default_places(), places);
    }

    #[test]
    fn a_file_that_is_nowhere_is_missed_by_all_its_places() {
        let message =
            not_found(&["/a/storage-proxy.toml".into(), "/b/storage-proxy.toml".into()]).to_string();
        assert!(
            message.contains("/a/storage-proxy.toml, /b/storage-proxy.toml") && message.contains("-f FILE"),
            "{message}"
        );
    }

    #[test]
    fn what_cannot_be_a_configuration_file_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        let message = |path: &Path| read(path.to_owned()).err().unwrap().to_string();
        assert!(message(&path).contains("-f or in BACKEND_CONFIG_FILE"));
        assert!(message(directory.path()).contains("cannot be read"));
        assert!(message(Path::new("/dev/zero")).contains("longer than"));
        std::fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();
        assert!(message(&path).contains("line 2"));
    }
}
