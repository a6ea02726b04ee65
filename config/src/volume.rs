//! `[volume.<name>]`: the mount points that are served, each with a backend and the backend's options.
//!
//! Nothing here looks at the mount points themselves; whether they exist and are usable is found out at start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::arrays;
use crate::backend::{Backend, FingerprintText, OptionSpec, OptionType, UrlText};
use crate::report::NoticeKind;
use crate::secrets::{self, Sources};
use crate::section::Section;
use crate::tree::Node;
use crate::value::{Choice, FileName, Secret, Value, Wrong};

/// The name of the volume that is always there and takes operations on folders that are not on any volume.
pub const NOOP: &str = "noop";

/// `[volume.<name>]`.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The name that the manager uses; unique, never empty and never [`NOOP`].
    pub name: String,
    /// The kind of storage.
    pub backend: Backend,
    /// The backend's name as written, which `GET /volumes` reports: `gpfs` and `spectrumscale` are the same backend.
    pub backend_name: String,
    /// The mount point, absolute.
    pub path: PathBuf,
    /// Reported, but no part of any path.
    pub fsprefix: String,
    /// The name of an entry of the mount point without which it is not the volume's file system that is mounted there.
    pub marker: Option<String>,
    /// The backend's options that were given.
    pub options: Options,
}

/// Options of a backend, checked for their types. Names are snake_case, those of a nested table joined by a dot.
#[derive(Clone, Default)]
pub struct Options(BTreeMap<String, OptionValue>);

#[derive(Clone)]
enum OptionValue {
    Text(String),
    Secret(Secret),
    Boolean(bool),
    Integer(i64),
    Duration(Duration),
    Path(PathBuf),
    List(Vec<String>),
}

macro_rules! option_getters {
    ($($(#[$doc:meta])* $name:ident: $variant:ident($value:ident) -> $type:ty = $read:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Option<$type> {
            match self.0.get(key) {
                Some(OptionValue::$variant($value)) => Some($read),
                _ => None,
            }
        }
    )*};
}

impl Volume {
    /// Whether the other describes the same volume, secrets included. Not for what a peer sent: the time that it takes tells
    /// how much is equal.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let facts = |v: &Self| (v.name.clone(), v.backend_name.clone(), v.path.clone(), v.fsprefix.clone());
        let options = |v: &Self| {
            v.options.0.iter().map(|(key, value)| (key.clone(), value.plain())).collect::<Vec<_>>()
        };
        facts(self) == facts(other) && options(self) == options(other)
    }
}

impl OptionValue {
    /// As text that differs where values differ.
    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Secret(secret) => secret.expose().to_owned(),
            Self::Boolean(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Duration(value) => format!("{value:?}"),
            Self::Path(path) => format!("{path:?}"),
            Self::List(list) => format!("{list:?}"),
        }
    }
}

/// `None` where the option was not given.
impl Options {
    option_getters! {
        /// A text or URL.
        text: Text(value) -> &str = value;
        /// A password or token, wherever it was read from.
        secret: Secret(value) -> &Secret = value;
        /// A switch.
        boolean: Boolean(value) -> bool = *value;
        /// A whole number.
        integer: Integer(value) -> i64 = *value;
        /// A duration.
        duration: Duration(value) -> Duration = *value;
        /// A path on this host, absolute.
        path: Path(value) -> &Path = value;
        /// A list of strings.
        list: List(value) -> &[String] = value;
    }

    /// The names of the options that were given, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Names only: even a value that is no secret by its type may hold one, such as a URL with a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads `[volume]`, volumes in the order of the file.
pub(crate) fn read(s: &Section<'_>) -> Vec<Volume> {
    let volumes: Vec<Option<Volume>> = s.each_child(|name, section| Volume::read(name, section));
    if volumes.is_empty() && s.exists() {
        s.problem(
            "",
            "has no volume; add at least one, such as [volume.local] with backend = \"vfs\" and a path",
        );
    }
    let configured = volumes.len();
    let volumes: Vec<Volume> = volumes.into_iter().flatten().collect();
    if configured > 0 && volumes.is_empty() {
        s.warn("", "has no volume left to serve");
    }
    warn_of_shared_paths(s, &volumes);
    volumes
}

impl Volume {
    /// `None` when it is skipped because of its backend, or wrong.
    fn read(name: &str, s: &Section<'_>) -> Option<Self> {
        check_name(name, s);
        let path = s.path("path");
        if !s.has("path") {
            s.missing("path", "name the directory where the volume is mounted");
        }
        let fsprefix = s.value("fsprefix").map_or_else(|| ".".to_owned(), |RelativePath(path)| path);
        let marker = s.value("marker").map(|FileName(name)| name);
        let (backend_name, backend) = backend(s);
        let options = s.child("options", |section| match backend {
            Some(backend) => {
                let options = Options::read(name, backend.options(), section);
                arrays::check(backend, &options, section);
                options
            }
            // Which options are right depends on the backend.
            None => {
                section.accept_all();
                Options::default()
            }
        });
        Some(Self {
            name: name.to_owned(),
            backend: backend?,
            backend_name,
            path: path?,
            fsprefix,
            marker,
            options,
        })
    }
}

fn check_name(name: &str, s: &Section<'_>) {
    if name == NOOP {
        s.hidden_problem(
            "",
            "is a reserved name: this volume is always there and takes no configuration; rename yours",
        );
    } else if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        s.hidden_problem("", "is not a volume name; use 1 to 255 bytes without control characters");
    }
}

/// The name as written with what it names; the second is `None` for a mistake or an unknown backend.
fn backend(s: &Section<'_>) -> (String, Option<Backend>) {
    let known = || {
        let names: Vec<_> = Backend::WORDS.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let Some(name) = s.name("backend") else {
        if !s.has("backend") {
            s.missing("backend", &format!("name one of {}", known()));
        }
        return (String::new(), None);
    };
    let found = Backend::WORDS.iter().find(|(word, _)| *word == name).map(|(_, backend)| *backend);
    if found.is_none() && s.context().lenient {
        let message = format!("{name:?} is not a known backend; the volume is skipped");
        s.context().report.notice(s.line(), &s.path_of("backend"), NoticeKind::Warning, message);
    } else if found.is_none() {
        s.problem("backend", format!("is not a known backend; name one of {}", known()));
    }
    (name, found)
}

fn warn_of_shared_paths(s: &Section<'_>, volumes: &[Volume]) {
    for (n, volume) in volumes.iter().enumerate() {
        let earlier = volumes.iter().take(n).find(|earlier| earlier.path == volume.path);
        if let Some(earlier) = earlier {
            let message =
                format!("has the same path as volume {}; both names reach the same folders", earlier.name);
            s.warn(&crate::tree::written_key(&volume.name), message);
        }
    }
}

/// A relative path, `""` being `"."`.
struct RelativePath(String);

impl Value for RelativePath {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let text = String::read(node)?;
        if Path::new(&text).components().any(|part| part == Component::RootDir) {
            return Err(Wrong::new(
                node,
                "is absolute; write it relative to the volume's path, such as \".\"",
            ));
        }
        Ok(Self(if text.is_empty() { ".".to_owned() } else { text }))
    }
}

impl Options {
    fn read(volume: &str, specs: &[OptionSpec], s: &Section<'_>) -> Self {
        let mut options = Self::default();
        options.add(volume, "", specs, s);
        options
    }

    fn add(&mut self, volume: &str, prefix: &str, specs: &[OptionSpec], s: &Section<'_>) {
        for (key, kind) in specs {
            if let OptionType::Table(specs) = kind {
                s.child(key, |section| self.add(volume, &format!("{key}."), specs, section));
            } else if let Some(value) = OptionValue::read(volume, key, *kind, s) {
                self.0.insert(format!("{prefix}{key}"), value);
            }
        }
    }
}

impl OptionValue {
    fn read(volume: &str, key: &str, kind: OptionType, s: &Section<'_>) -> Option<Self> {
        Some(match kind {
            OptionType::Text => Self::Text(s.value(key)?),
            OptionType::Url => Self::Text(s.value::<UrlText<false>>(key)?.0),
            OptionType::Urls => Self::Text(s.value::<UrlText<true>>(key)?.0),
            OptionType::Secret => Self::Secret(secret(volume, key, s)?),
            OptionType::Boolean => Self::Boolean(s.value(key)?),
            OptionType::Integer => Self::Integer(s.value(key)?),
            OptionType::Duration => Self::Duration(s.value(key)?),
            OptionType::Path => {
                let path = s.path(key)?;
                s.belongs(&path);
                Self::Path(path)
            }
            OptionType::List => Self::List(s.value(key)?),
            OptionType::OneOf(words) => Self::Text(one_of(words, key, s)?),
            OptionType::Fingerprint => Self::Text(s.value::<FingerprintText>(key)?.0),
            OptionType::Table(_) => return None,
        })
    }
}

fn secret(volume: &str, key: &str, s: &Section<'_>) -> Option<Secret> {
    let (file_key, credential) = (format!("{key}_file"), format!("volume.{volume}.{key}"));
    // A volume name with a slash would lead out of the credentials directory.
    let credential = credential.replace('/', "_");
    secrets::read(s, &Sources { key, file_key: &file_key, credential: &credential })
}

fn one_of(words: &[&str], key: &str, s: &Section<'_>) -> Option<String> {
    let word: String = s.value(key)?;
    if !words.contains(&word.as_str()) {
        s.problem(key, format!("is not one of {}", words.join(", ")));
    }
    Some(word)
}
