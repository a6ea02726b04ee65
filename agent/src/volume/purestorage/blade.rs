//! The part of FlashBlade's REST API that figures need, in both of its generations.
//!
//! 1.x and 2.x differ in the path and in paging. Facts: Pure Storage's OpenAPI files of 1.0 to 1.12 and 2.0 to 2.28.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Mutex;

use crate::volume::array::{ArrayError, Call, Client, Fields, Kind, at};

/// The newest version of each generation whose documents were read.
const NEWEST: [(u64, u64); 2] = [(2, 28), (1, 12)];
/// The oldest version of 1.x that has all that is asked for (performance of file systems).
const OLDEST: (u64, u64) = (1, 5);
/// Pages of one listing.
const PAGES: usize = 100;

/// One file system of a FlashBlade.
pub(super) struct Blade {
    pub(super) client: Client,
    /// The file system's name.
    pub(super) name: String,
    /// The configured version; nothing for the newest that both sides know.
    pub(super) wanted: Option<String>,
    version: Mutex<Option<Arc<str>>>,
}

impl Blade {
    pub(super) fn new(client: Client, name: String, wanted: Option<String>) -> Self {
        Blade { client, name, wanted, version: Mutex::default() }
    }

    /// Makes a call; the body of its reply if that is a success.
    async fn call(&self, call: Call) -> Result<Value, ArrayError> {
        let reply = self.client.send(&call).await?;
        if reply.status.is_success() {
            return Ok(reply.body);
        }
        let error = at(&reply.body, "errors").as_array().and_then(|errors| errors.first());
        let text =
            |key: &str| error.and_then(|error| at(error, key).as_str()).map(|text| self.client.tame(text));
        let message = text("message").unwrap_or_else(|| format!("status {}", reply.status.as_u16()));
        let message = match text("context") {
            Some(context) if !context.is_empty() => format!("{context}: {message}"),
            _ => message,
        };
        let kind = match reply.status.as_u16() {
            401 | 403 => {
                Kind::Forbidden(format!("{message}; the token's user needs the role readonly or more"))
            }
            status => Kind::Refused { code: Some(status.to_string()), message },
        };
        Err(self.client.error(call.operation, kind))
    }

    /// The versions that the array serves.
    pub(super) async fn versions(&self) -> Result<Vec<String>, ArrayError> {
        const ASK: &str = "ask for the API's versions";
        let answer = self.call(Call::get(ASK, "/api/api_version")).await?;
        let fields = Fields::new(&self.client, ASK, &answer);
        let versions = fields.list("versions")?.iter().filter_map(Value::as_str);
        Ok(versions.map(str::to_owned).collect())
    }

    /// The version in use; asked once, if it is not configured.
    pub(super) async fn version(&self) -> Result<Arc<str>, ArrayError> {
        let mut version = self.version.lock().await;
        if let Some(version) = &*version {
            return Ok(Arc::clone(version));
        }
        let chosen: Arc<str> = match &self.wanted {
            Some(wanted) => wanted.as_str().into(),
            None => {
                let served = self.versions().await?;
                newest_common(&served).ok_or_else(|| self.no_version(&served))?.into()
            }
        };
        *version = Some(Arc::clone(&chosen));
        Ok(chosen)
    }

    fn no_version(&self, served: &[String]) -> ArrayError {
        let served = self.client.tame(&served.join(", "));
        let problem =
            format!("it serves none of the API's versions from 1.5 on that are known here, but: {served}");
        self.client.error("ask for the API's versions", Kind::Missing(problem))
    }

    /// All items of a listing, page by page.
    pub(super) async fn items(
        &self,
        operation: &'static str,
        path: &str,
        query: &[(&'static str, &str)],
    ) -> Result<Vec<Value>, ArrayError> {
        let version = self.version().await?;
        let (token_key, token_path) = match version.starts_with("1.") {
            true => ("token", "pagination_info.continuation_token"),
            false => ("continuation_token", "continuation_token"),
        };
        let (mut items, mut token) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let call = Call::get(operation, format!("/api/{version}/{path}"));
            let call = query.iter().fold(call, |call, (key, value)| call.query(key, *value));
            let call = token.iter().fold(call, |call, token| call.query(token_key, token));
            let page = self.call(call).await?;
            let fields = Fields::new(&self.client, operation, &page);
            // Even an empty listing says so.
            if !fields.raw("items").is_array() {
                return Err(fields.wrong("items", "a list"));
            }
            items.extend(fields.list("items")?.iter().cloned());
            match fields.raw(token_path) {
                Value::Null => return Ok(items),
                Value::String(next) if next.is_empty() => return Ok(items),
                Value::String(next) if token.as_ref() != Some(next) => token = Some(next.clone()),
                _ => return Err(fields.wrong(token_path, "the token of another page")),
            }
        }
        Err(self
            .client
            .error(operation, Kind::Malformed(format!("the listing does not end after {PAGES} pages"))))
    }

    /// The file system's record.
    pub(super) async fn file_system(&self, operation: &'static str) -> Result<Value, ArrayError> {
        let items = self.items(operation, "file-systems", &[("names", &self.name)]).await;
        let items = match items {
            // 2.x answers 400 for a name that is not there, 1.x does either.
            Err(error) if error.has_code(&["400"]) => {
                return Err(self.no_file_system(operation, &error.to_string()));
            }
            items => items?,
        };
        match items.into_iter().find(|item| *at(item, "name") == *self.name) {
            Some(item) if *at(&item, "destroyed") == Value::Bool(true) => {
                Err(self.no_file_system(operation, "it was destroyed and waits for its eradication"))
            }
            Some(item) => Ok(item),
            None => Err(self.no_file_system(operation, "no such name")),
        }
    }

    fn no_file_system(&self, operation: &'static str, why: &str) -> ArrayError {
        let problem = format!("there is no file system {:?} ({why}); correct purity_fs_name", self.name);
        self.client.error(operation, Kind::Missing(problem))
    }
}

/// The newest version that both sides know; 2.x before 1.x.
fn newest_common(served: &[String]) -> Option<String> {
    let parsed = served.iter().filter_map(|version| {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?))
    });
    let known = parsed.filter(|version| {
        *version >= OLDEST && NEWEST.iter().any(|newest| version.0 == newest.0 && version.1 <= newest.1)
    });
    known.max().map(|(major, minor)| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_sides_know_is_taken() {
        let newest = |versions: &[&str]| {
            newest_common(&versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(newest(&["1.8", "1.12", "2.0", "2.9", "2.12"]).as_deref(), Some("2.12"));
        assert_eq!(newest(&["1.0", "1.8", "1.12"]).as_deref(), Some("1.12"));
        assert_eq!(newest(&["2.99", "2.3", "3.0", "x"]).as_deref(), Some("2.3"));
        assert_eq!(newest(&["1.2", "3.0"]), None);
    }
}
