//! Reading one table of the file: typed values out, mistakes and unknown keys into the report.
//!
//! A section remembers which keys its reader asked for. What is left over at the end is unknown, so there is no second
//! list of keys to keep in step, and the nearest name that was asked for is the suggestion for a misspelt one.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::report::{NoticeKind, Report};
use crate::suggest::nearest;
use crate::tree::{Entry, Kind, Node, Table, same_key, written_key};
use crate::value::{Ranged, Secret, Value, Wrong};

/// What all sections of one file share.
pub(crate) struct Context<'a> {
    pub(crate) report: Report,
    /// The directory of the file; relative paths start here.
    pub(crate) directory: PathBuf,
    pub(crate) working_directory: &'a Path,
    pub(crate) env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether the file itself holds a secret, so that its mode matters.
    pub(crate) inline_secret: Cell<bool>,
    /// The files that the configuration was read from besides its own, or that it names for reading.
    pub(crate) files: RefCell<Vec<PathBuf>>,
    /// Skip volumes with an unknown backend instead of refusing the file.
    pub(crate) lenient: bool,
}

/// One table, or the absence of one: then every key has its default.
pub(crate) struct Section<'a> {
    context: &'a Context<'a>,
    table: Option<&'a Table>,
    line: Option<usize>,
    path: String,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// Reads the whole document with `read`.
    pub(crate) fn document<T>(
        context: &'a Context<'a>,
        table: &'a Table,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        Self::over(context, Some(table), None, String::new(), read)
    }

    fn over<T>(
        context: &'a Context<'a>,
        table: Option<&'a Table>,
        line: Option<usize>,
        path: String,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        let section = Self { context, table, line, path, asked: RefCell::default() };
        let value = read(&section);
        section.note_unknown_keys();
        value
    }

    pub(crate) fn context(&self) -> &'a Context<'a> {
        self.context
    }

    /// Reads the table `key`; an absent one as an empty one.
    pub(crate) fn child<T>(&self, key: &str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        let entry = self.entry(key);
        let table = match entry.map(|entry| &entry.node.kind) {
            Some(Kind::Table(table)) => Some(table),
            Some(_) => {
                self.problem(key, "must be a table, written under a [header] of its own or in { }");
                None
            }
            None => None,
        };
        Section::over(self.context, table, entry.map(|entry| entry.line), self.path_of(key), read)
    }

    /// Reads the table `key`, which has to be there.
    pub(crate) fn required_child<T>(&self, key: &str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        if self.table.is_none_or(|table| table.named(key).next().is_none()) {
            self.problem(key, "is missing; this table has to be there");
        }
        self.child(key, read)
    }

    /// Reads every table of this one, whatever its name; for tables whose keys are names that the operator chose.
    pub(crate) fn each_child<T>(&self, mut read: impl FnMut(&str, &Section<'a>) -> T) -> Vec<T> {
        let mut values = Vec::new();
        for entry in self.entries() {
            self.asked.borrow_mut().push(entry.name.clone());
            let path = self.path_of(&written_key(&entry.name));
            match &entry.node.kind {
                Kind::Table(table) => {
                    values.push(Section::over(self.context, Some(table), Some(entry.line), path, |section| {
                        read(&entry.name, section)
                    }))
                }
                _ => self.context.report.problem(Some(entry.line), &path, None, "must be a table"),
            }
        }
        values
    }

    /// The value of `key`, or `None` if it is absent or wrong.
    pub(crate) fn value<T: Value>(&self, key: &str) -> Option<T> {
        let entry = self.entry(key)?;
        T::read(&entry.node).map_err(|wrong| self.refuse::<T>(key, wrong)).ok()
    }

    pub(crate) fn value_or<T: Value>(&self, key: &str, default: T) -> T {
        self.value(key).unwrap_or(default)
    }

    /// The value of `key`, which has to be there. What stands in for an absent or wrong one is never served with,
    /// because the problem refuses the file. In an absent table only the table is missing, not each of its keys.
    pub(crate) fn required<T: Value + Default>(&self, key: &str, remedy: &str) -> T {
        if self.entry(key).is_none() && self.table.is_some() {
            self.missing(key, remedy);
        }
        self.value(key).unwrap_or_default()
    }

    pub(crate) fn missing(&self, key: &str, remedy: &str) {
        self.context.report.problem(self.line, &self.path_of(key), None, format!("is missing; {remedy}"));
    }

    /// The value of `key` if it lies within `range`, else a problem and the default.
    pub(crate) fn within<T: Ranged>(&self, key: &str, default: T, range: RangeInclusive<T>) -> T {
        let Some(value) = self.value::<T>(key) else { return default };
        if range.contains(&value) {
            return value;
        }
        let (low, high) = (range.start().written(), range.end().written());
        self.problem(key, format!("is out of range; it must be from {low} to {high}"));
        default
    }

    /// A path; a relative one starts at the directory of the file.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.value::<PathBuf>(key).map(|path| self.context.directory.join(path))
    }

    /// Notes a file that belongs to the configuration.
    pub(crate) fn belongs(&self, file: &Path) {
        self.context.files.borrow_mut().push(file.to_owned());
    }

    /// Directories; relative ones start at the directory of the file.
    pub(crate) fn paths(&self, key: &str) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = self.value_or(key, Vec::new());
        paths.into_iter().map(|path| self.context.directory.join(path)).collect()
    }

    /// Whether the table is there at all.
    pub(crate) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// The line of the table's header.
    pub(crate) fn line(&self) -> Option<usize> {
        self.line
    }

    /// Whether `key` is written in the file, in either spelling.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.named(key).next().is_some())
    }

    /// Accepts keys of the reference proxy that change nothing here, whatever their values.
    pub(crate) fn ignored(&self, keys: &[&str], why: &str) {
        for key in keys {
            self.context.report.known(self.path_of(key), false);
            if let Some(entry) = self.find(key) {
                let message = if why.is_empty() {
                    "has no effect here".to_owned()
                } else {
                    format!("has no effect here: {why}")
                };
                self.context.report.notice(
                    Some(entry.line),
                    &self.path_of(key),
                    NoticeKind::Ignored,
                    message,
                );
            }
        }
    }

    /// The keys that the table has.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries().iter().map(|entry| entry.name.as_str())
    }

    /// Takes every key as known, for a table whose content does not matter.
    pub(crate) fn accept_all(&self) {
        self.asked.borrow_mut().extend(self.keys().map(str::to_owned));
    }

    fn entries(&self) -> &'a [Entry] {
        self.table.map_or(&[], |table| &table.0)
    }

    /// Reports `key` as wrong and shows its value.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) {
        let node = self.node(key);
        let line = node.map(|node| node.line).or(self.line);
        let shown = node.filter(|node| !matches!(node.kind, Kind::Table(_))).map(Node::to_string);
        self.context.report.problem(line, &self.path_of(key), shown, message);
    }

    /// Reports `key` as wrong without its value, because that is secret or does not help.
    pub(crate) fn hidden_problem(&self, key: &str, message: impl Into<String>) {
        self.context.report.problem(self.line_of(key), &self.path_of(key), None, message);
    }

    pub(crate) fn warn(&self, key: &str, message: impl Into<String>) {
        self.context.report.notice(self.line_of(key), &self.path_of(key), NoticeKind::Warning, message);
    }

    /// The dotted path of `key`; of the section itself for an empty one.
    pub(crate) fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(crate) fn refuse<T: Value>(&self, key: &str, wrong: Wrong) {
        let value = T::SHOWN.then_some(wrong.value);
        let path = format!("{}{}", self.path_of(key), wrong.part);
        self.context.report.problem(Some(wrong.line), &path, value, wrong.message);
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        self.node(key).map(|node| node.line).or(self.line)
    }

    /// The value at `key`, which may be a dotted path down from this table.
    fn node(&self, key: &str) -> Option<&'a Node> {
        let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
        let mut node = &self.table?.named(first).next()?.node;
        for part in rest.into_iter().flat_map(|rest| rest.split('.')) {
            let Kind::Table(table) = &node.kind else { return None };
            node = &table.named(part).next()?.node;
        }
        Some(node)
    }

    /// The entry of a key that has an effect.
    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.context.report.known(self.path_of(key), true);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<&'a Entry> {
        let first_time = !self.asked.borrow().iter().any(|asked| same_key(asked, key));
        if first_time {
            self.asked.borrow_mut().push(key.to_owned());
        }
        let mut entries = self.table?.named(key);
        let first = entries.next()?;
        if let Some(second) = entries.next().filter(|_| first_time) {
            let message = format!("is given twice, as {} and as {}; keep one", first.name, second.name);
            self.context.report.problem(Some(second.line), &self.path_of(key), None, message);
        }
        Some(first)
    }

    fn note_unknown_keys(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries().iter().filter(|entry| !asked.iter().any(|key| same_key(key, &entry.name)))
        {
            let unasked = asked.iter().filter(|key| !self.has(key)).map(String::as_str);
            let mut message = "is not a known key and is ignored".to_owned();
            if let Some(suggestion) = nearest(&entry.name, unasked) {
                message.push_str(&format!("; did you mean {suggestion}?"));
            }
            let path = self.path_of(&written_key(&entry.name));
            self.context.report.notice(Some(entry.line), &path, NoticeKind::Unknown, message);
        }
    }
}

/// What `read` gives for a table that is absent: the defaults.
pub(crate) fn defaults<T>(read: impl FnOnce(&Section<'_>) -> T) -> T {
    let context = Context {
        report: Report::default(),
        directory: PathBuf::from("/"),
        working_directory: Path::new("/"),
        env: &|_| None,
        inline_secret: Cell::new(false),
        files: RefCell::default(),
        lenient: false,
    };
    Section::over(&context, None, None, String::new(), read)
}

impl Section<'_> {
    /// A string that must not be empty.
    pub(crate) fn name(&self, key: &str) -> Option<String> {
        let name = self.value::<String>(key)?;
        if name.trim().is_empty() {
            self.problem(key, "is empty");
        }
        Some(name)
    }

    /// A secret as written in the file.
    pub(crate) fn secret(&self, key: &str) -> Option<Secret> {
        self.value(key)
    }
}
