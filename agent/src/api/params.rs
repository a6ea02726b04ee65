//! Parameters of a manager's request: one JSON object in the body, whatever the method.
//!
//! Each getter reads one key into a valid value or notes what is wrong with it, so that one reply names
//! every wrong parameter. Unknown keys are ignored: managers of all generations send some.

use std::collections::BTreeMap;
use std::str::FromStr;

use common::id::{QuotaScopeId, VfolderId};
use common::size::BinarySize;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use warp::http::StatusCode;

use super::problem::Problem;
use super::text::ByteText;
use crate::fs::{Name, PathError, RelPath};

/// The keys of a request's body and the mistakes found so far.
#[derive(Debug, Default)]
pub struct Params {
    fields: BTreeMap<String, Box<RawValue>>,
    mistakes: Map<String, Value>,
    outside: Option<Problem>,
}

impl Params {
    /// Reads a body. It must be one JSON object, nested at most `max_depth` deep.
    pub fn parse(body: &[u8], max_depth: usize) -> Result<Self, Problem> {
        if depth(body) > max_depth {
            return Err(malformed(format!("the body is nested deeper than {max_depth} levels")));
        }
        let value: &RawValue =
            serde_json::from_slice(body).map_err(|e| malformed(format!("the body is not JSON: {e}")))?;
        if !value.get().starts_with('{') {
            return Err(malformed("value is not a dict: the body must be a JSON object"));
        }
        let fields =
            serde_json::from_str(value.get()).map_err(|e| malformed(format!("the body is not JSON: {e}")))?;
        Ok(Params { fields, ..Params::default() })
    }

    /// The reply that names every mistake noted so far.
    pub fn problem(self) -> Problem {
        match self.outside {
            Some(problem) if self.mistakes.is_empty() => problem,
            _ => Problem::invalid_params(self.mistakes),
        }
    }

    /// Every mistake noted so far: key and what is wrong with it.
    pub(crate) fn into_mistakes(self) -> Map<String, Value> {
        self.mistakes
    }

    /// Whether nothing wrong was noted so far.
    pub fn is_right(&self) -> bool {
        self.mistakes.is_empty() && self.outside.is_none()
    }

    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Whether the key's value is a string.
    pub fn is_string(&self, key: &str) -> bool {
        self.raw(key).is_some_and(|raw| raw.starts_with('"'))
    }

    fn raw(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// Notes what is wrong with a key.
    pub(crate) fn wrong<T>(&mut self, key: &str, what: impl Into<String>) -> Option<T> {
        self.mistakes.insert(key.to_owned(), Value::String(what.into()));
        None
    }

    /// A required value of any JSON type that `T` reads.
    pub(crate) fn typed<T: for<'de> Deserialize<'de>>(&mut self, key: &str, expected: &str) -> Option<T> {
        let Some(raw) = self.raw(key) else { return self.wrong(key, "is required") };
        match serde_json::from_str(raw) {
            Ok(value) => Some(value),
            Err(_) => {
                let shown = shortened(raw);
                self.wrong(key, format!("value is not {expected}: {shown}"))
            }
        }
    }

    /// A required string of at least one character.
    pub fn string(&mut self, key: &str) -> Option<String> {
        let text: String = self.typed(key, "a string")?;
        if text.is_empty() { self.wrong(key, "blank value is not allowed") } else { Some(text) }
    }

    /// A string of at least one character; `None` inside when the key is absent or null.
    pub fn optional_string(&mut self, key: &str) -> Option<Option<String>> {
        if self.has(key) { self.string(key).map(Some) } else { Some(None) }
    }

    fn parsed<T: FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.string(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => self.wrong(key, format!("{error} (got {:?})", shortened(&text))),
        }
    }

    /// A required vfolder id.
    pub fn vfid(&mut self, key: &str) -> Option<VfolderId> {
        self.parsed(key)
    }

    /// A vfolder id that may be absent.
    pub fn optional_vfid(&mut self, key: &str) -> Option<Option<VfolderId>> {
        if self.has(key) { self.vfid(key).map(Some) } else { Some(None) }
    }

    /// A required quota scope id.
    pub fn qsid(&mut self, key: &str) -> Option<QuotaScopeId> {
        self.parsed(key)
    }

    /// A required path below the vfolder's root; `""` and `"."` are the root.
    pub fn relpath(&mut self, key: &str) -> Option<RelPath> {
        let ByteText(bytes) = self.typed(key, "a string")?;
        self.path(key, &bytes)
    }

    /// A path below the vfolder's root; the root when the key is absent.
    pub fn relpath_or_root(&mut self, key: &str) -> Option<RelPath> {
        if self.has(key) { self.relpath(key) } else { Some(RelPath::root()) }
    }

    /// A required list of 1 to `max` paths. A single string counts as a list of one where `allow_single`.
    pub fn relpaths(&mut self, key: &str, max: usize, allow_single: bool) -> Option<Vec<RelPath>> {
        if allow_single && self.is_string(key) {
            return self.relpath(key).map(|path| vec![path]);
        }
        let texts: Vec<ByteText> = self.typed(key, "a list of strings")?;
        if texts.is_empty() {
            return self.wrong(key, "the list is empty: name at least one path");
        }
        if texts.len() > max {
            return self.wrong(key, format!("list length is greater than {max}"));
        }
        texts.iter().map(|ByteText(bytes)| self.path(key, bytes)).collect()
    }

    /// A path that leaves the folder gets the reply that the contract has for it, unless a parameter is
    /// malformed too.
    fn path(&mut self, key: &str, bytes: &[u8]) -> Option<RelPath> {
        match RelPath::parse(bytes) {
            Ok(path) => Some(path),
            Err(error @ PathError::ParentComponent) => {
                self.outside = Some(crate::error::OpError::path(bytes, &error).into());
                None
            }
            Err(PathError::Absolute) => self.wrong(key, "expected relative path but the value is absolute"),
            Err(error) => self.wrong(key, error.to_string()),
        }
    }

    /// A required single file name.
    pub fn name(&mut self, key: &str) -> Option<Name> {
        let ByteText(bytes) = self.typed(key, "a string")?;
        match Name::new(&bytes) {
            Ok(name) => Some(name),
            Err(error) => self.wrong(key, error.to_string()),
        }
    }

    /// A Boolean in any spelling that Backend.AI's "ToBool" takes; `default` when absent.
    pub fn bool_or(&mut self, key: &str, default: bool) -> Option<bool> {
        let Some(raw) = self.fields.get(key).map(|raw| raw.get()) else { return Some(default) };
        let text = match serde_json::from_str::<Value>(raw) {
            Ok(Value::String(text)) => text,
            _ => raw.to_owned(),
        };
        match to_bool(&text) {
            Some(value) => Some(value),
            None => {
                self.wrong(key, format!("value can't be converted to Bool: {text:?}; write true or false"))
            }
        }
    }

    /// A required count of bytes: a JSON integer or a size such as "100g".
    pub fn size(&mut self, key: &str) -> Option<u64> {
        let value: Value = self.typed(key, "a size")?;
        match size(&value) {
            Ok(bytes) => Some(bytes),
            Err(what) => self.wrong(key, what),
        }
    }

    /// The permission bits under this key, 0 to 0o7777; `None` inside when absent.
    pub fn mode(&mut self, key: &str) -> Option<Option<u32>> {
        if !self.has(key) {
            return Some(None);
        }
        match self.typed::<u32>(key, "an integer")? {
            mode if mode <= 0o7777 => Some(Some(mode)),
            mode => self.wrong(key, format!("{mode} is not a file mode: write 0 to 4095 (0o7777)")),
        }
    }

    /// Whether a key inside an object is there; a mistake where it is not.
    pub fn require_in(&mut self, key: &str, inner: &str) -> Option<()> {
        if self.has_in(key, inner) {
            return Some(());
        }
        self.mistakes.insert(key.to_owned(), serde_json::json!({ inner: "is required" }));
        None
    }

    /// Whether an object has this and it is not null.
    pub fn has_in(&self, key: &str, inner: &str) -> bool {
        let object: Option<Map<String, Value>> = self.raw(key).and_then(|raw| serde_json::from_str(raw).ok());
        object.is_some_and(|object| object.get(inner).is_some_and(|value| !value.is_null()))
    }

    /// A size inside an object: `options.limit_bytes` and its like. Nothing when either is absent or null.
    pub fn size_in(&mut self, key: &str, inner: &str) -> Option<Option<u64>> {
        if !self.has(key) {
            return Some(None);
        }
        let object: Map<String, Value> = self.typed(key, "an object")?;
        match object.get(inner) {
            None | Some(Value::Null) => Some(None),
            Some(value) => match size(value) {
                Ok(bytes) => Some(Some(bytes)),
                Err(what) => {
                    self.mistakes.insert(key.to_owned(), serde_json::json!({ inner: what }));
                    None
                }
            },
        }
    }
}

fn size(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => {
            return Err(format!(
                "{value} is not a size: write bytes as an integer, or a text such as \"100g\""
            ));
        }
    };
    text.parse::<BinarySize>().map(BinarySize::bytes).map_err(|error| shortened(&error.to_string()))
}

/// As much of a wrong value as is worth repeating.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Backend.AI's reading of truth, with `f` added.
pub fn to_bool(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" | "1.0" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" | "none" | "null" | "0.0" => Some(false),
        _ => None,
    }
}

fn malformed(msg: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "storage/invalid-api-params", "Invalid API parameters")
        .data(Value::String("value is not a dict".into()))
        .msg(msg)
}

/// How deep objects and lists are nested, found without building anything, so that a hostile body costs
/// no stack. Counts brackets outside strings; what is not JSON is found by the parser afterwards.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 10] = [
            b"null",
            b"{}",
            b"[]",
            b"\"\"",
            b"-1",
            b"1e999",
            b"\\udcff",
            b"\\u0000",
            b"..",
            b"18446744073709551616",
        ];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "bodies", &words, |body| {
            let Ok(mut params) = Params::parse(body, 8) else { return };
            for key in [
                "volume", "vfid", "qsid", "relpath", "relpaths", "new_name", "size", "mode", "options",
                "nested",
            ] {
                let _ = (params.string(key), params.optional_string(key), params.vfid(key), params.qsid(key));
                let _ = (params.relpath(key), params.relpath_or_root(key), params.relpaths(key, 3, true));
                let _ = (params.name(key), params.bool_or(key, true), params.size(key), params.mode(key));
                let _ = (
                    params.require_in(key, "quota"),
                    params.has_in(key, "quota"),
                    params.size_in(key, "quota"),
                );
            }
            let _ = params.problem().reply();
        });
    }
}
