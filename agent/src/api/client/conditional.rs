//! Conditional requests (RFC 9110 section 13): which state of a file a client has, and what follows from it.

use std::time::{Duration, SystemTime};

use warp::http::HeaderMap;
use warp::http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

use crate::fs::Stat;

/// A file that changed this lately may change again within the same second of its date.
const SETTLED: Duration = Duration::from_secs(2);

/// What identifies the state of a file to clients.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// The strong `ETag`, with its quotation marks.
    pub(super) etag: String,
    /// The time of the last change, rounded up to the second, in seconds since 1970.
    seconds: u64,
    /// Whether the last change is old enough for its date to identify it.
    settled: bool,
}

/// What the conditions of a request lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request goes on.
    Proceed,
    /// 304: the client has it already.
    NotModified,
    /// 412: the file is not in the state that the client wants.
    Failed,
}

impl Validators {
    pub(super) fn of(stat: &Stat, now: SystemTime) -> Self {
        let modified = stat.mtime;
        let seconds = u64::try_from(modified.secs).unwrap_or(0) + u64::from(modified.nanos > 0);
        let mtime_ns = i128::from(modified.secs) * 1_000_000_000 + i128::from(modified.nanos);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = i128::try_from(since.as_nanos()).unwrap_or(0) - mtime_ns;
        Validators {
            etag: format!("\"{mtime_ns:x}-{:x}\"", stat.size),
            seconds,
            settled: age >= i128::try_from(SETTLED.as_nanos()).unwrap_or(0),
        }
    }

    /// The value of `Last-Modified`.
    pub(super) fn last_modified(&self) -> String {
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds))
    }

    /// Judges the preconditions in the order of RFC 9110 section 13.2.2.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Verdict {
        if let Some(tags) = text(headers, IF_MATCH) {
            if !self.listed(tags, false) {
                return Verdict::Failed;
            }
        } else if date(headers, IF_UNMODIFIED_SINCE).is_some_and(|date| self.seconds > date) {
            return Verdict::Failed;
        }
        if let Some(tags) = text(headers, IF_NONE_MATCH) {
            if self.listed(tags, true) {
                return Verdict::NotModified;
            }
        } else if date(headers, IF_MODIFIED_SINCE).is_some_and(|date| self.seconds <= date) {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// Whether a `Range` may be honoured: there is no `If-Range`, or it names exactly this state.
    pub(super) fn range_applies(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else { return true };
        match value.to_str().map(str::trim) {
            Ok(tag) if tag.starts_with('"') => tag == self.etag,
            Ok(_) => self.settled && date(headers, IF_RANGE).is_some_and(|date| self.seconds <= date),
            Err(_) => false,
        }
    }

    /// Whether a list of tags holds ours; weak ones count only where `weak` comparison is meant.
    fn listed(&self, tags: &str, weak: bool) -> bool {
        tags.split(',').map(str::trim).any(|tag| {
            let strong = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || strong == self.etag
        })
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A date in seconds since 1970; what is no date is as good as absent.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    let date = httpdate::parse_http_date(text(headers, name)?).ok()?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::testing::headers_of;

    const AT: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
    const BEFORE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

    fn validators(age: u64) -> Validators {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("f"), "0123456789").unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        std::fs::File::open(place.path().join("f")).unwrap().set_modified(modified).unwrap();
        let dir = crate::fs::Dir::open_root(place.path()).unwrap();
        let stat = dir.stat(&crate::fs::Name::new(b"f").unwrap()).unwrap();
        Validators::of(&stat, modified + Duration::from_secs(age))
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_date_is_rounded_up_and_the_tag_holds_time_and_size() {
        let state = validators(100);
        assert_eq!(state.last_modified(), AT);
        assert_eq!(state.etag, format!("\"{:x}-a\"", 1_700_000_000_000_000_005u64));
    }

    #[test]
    fn preconditions_lead_to_304_and_412_as_the_standard_says() {
        let state = validators(100);
        let (own, weak) = (state.etag.clone(), format!("W/{}", state.etag));
        for (pairs, expected) in [
            (vec![], Verdict::Proceed),
            (vec![(IF_NONE_MATCH, own.as_str())], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, weak.as_str())], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"other\"")], Verdict::Proceed),
            (vec![(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, AT)], Verdict::Proceed),
            (vec![(IF_MODIFIED_SINCE, AT)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, BEFORE)], Verdict::Proceed),
            (vec![(IF_MODIFIED_SINCE, "rubbish")], Verdict::Proceed),
            (vec![(IF_MATCH, own.as_str())], Verdict::Proceed),
            (vec![(IF_MATCH, "\"a\", *")], Verdict::Proceed),
            (vec![(IF_MATCH, weak.as_str())], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, AT)], Verdict::Proceed),
        ] {
            assert_eq!(state.judge(&headers(&pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_range_holds_for_the_state_that_the_client_has_and_no_other() {
        let state = validators(100);
        assert!(state.range_applies(&headers(&[])));
        assert!(state.range_applies(&headers(&[(IF_RANGE, AT)])));
        assert!(state.range_applies(&headers(&[(IF_RANGE, &state.etag)])));
        for other in [BEFORE, "\"other\"", "W/\"x\"", "rubbish", ""] {
            assert!(!state.range_applies(&headers(&[(IF_RANGE, other)])), "{other}");
        }
    }

    #[test]
    fn a_file_that_changed_just_now_has_no_date_to_rely_on() {
        let state = validators(1);
        assert!(!state.range_applies(&headers(&[(IF_RANGE, AT)])));
        assert!(state.range_applies(&headers(&[(IF_RANGE, &state.etag)])));
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 8] =
            [b"*", b"W/", b"\"", b",", b"If-Range: ", b"If-None-Match: ", b"GMT", b"99999"];
        let ours =
            Validators { etag: "\"179739f2b1c3a400-3e8\"".into(), seconds: 1_700_000_001, settled: true };
        spoil::target(env!("CARGO_MANIFEST_DIR"), "conditions", &words, |text| {
            let headers = headers_of(text);
            let verdict = ours.judge(&headers);
            let named = |name: HeaderName| headers.contains_key(name);
            let cause = match verdict {
                Verdict::Proceed => true,
                Verdict::NotModified => named(IF_NONE_MATCH) || named(IF_MODIFIED_SINCE),
                Verdict::Failed => named(IF_MATCH) || named(IF_UNMODIFIED_SINCE),
            };
            assert!(cause, "{verdict:?} without its header");
            // A part is only given of exactly this state.
            if let Some(tag) = headers.get(IF_RANGE).and_then(|value| value.to_str().ok())
                && ours.range_applies(&headers)
            {
                let tag = tag.trim();
                assert!(tag == ours.etag || httpdate::parse_http_date(tag).is_ok(), "{tag:?}");
            }
        });
    }
}
