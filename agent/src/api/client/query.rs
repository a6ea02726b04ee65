//! Query strings of the client-facing API: a token and a few options.

use percent_encoding::percent_decode;

use crate::api::params::to_bool;
use crate::api::problem::Problem;

/// The decoded pairs of a query. Names are bytes: a directory need not be UTF-8.
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Decodes `application/x-www-form-urlencoded`, in which a plus sign is a blank.
    pub(super) fn parse(raw: &str) -> Self {
        let decode = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect();
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        };
        Query(raw.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of this key.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The token; an empty one is missing.
    pub(super) fn token(&self) -> Result<&[u8], Problem> {
        match self.get("token") {
            Some(token) if !token.is_empty() => Ok(token),
            _ => Err(wrong("token", "is required")),
        }
    }

    /// A Boolean option, false when absent.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Problem> {
        let Some(value) = self.get(key) else { return Ok(false) };
        let text = String::from_utf8_lossy(value);
        to_bool(&text).ok_or_else(|| {
            wrong(key, &format!("value can't be converted to Bool: {text:?}; write true or false"))
        })
    }
}

/// The reply to a wrong option.
pub(super) fn wrong(key: &str, what: &str) -> Problem {
    let mut data = serde_json::Map::new();
    data.insert(key.to_owned(), what.into());
    Problem::invalid_params(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_repeated_keys_wins_and_bytes_are_decoded() {
        let query = Query::parse("token=a&token=b&dst_dir=x%2Fy+%FF%zz&&no_cache=1&archive=perhaps");
        assert_eq!(query.token().unwrap(), b"a");
        assert_eq!(query.get("dst_dir").unwrap(), b"x/y \xff%zz");
        assert!(query.flag("no_cache").unwrap());
        assert!(!query.flag("absent").unwrap());
        assert!(query.flag("archive").is_err());
        assert!(Query::parse("token=").token().is_err());
        assert!(Query::parse("").token().is_err());
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 8] = [b"&", b"=", b"%00", b"%", b"+", b"token=", b"%2e%2e%2f", b"archive="];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "query", &words, |bytes| {
            let raw = String::from_utf8_lossy(bytes);
            let query = Query::parse(&raw);
            if let Ok(token) = query.token() {
                assert!(!token.is_empty() && token.len() <= raw.len());
            }
            let _ = query.flag("archive");
            assert!(query.0.len() <= raw.len());
        });
    }
}
