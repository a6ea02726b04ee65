//! Request ids: what joins a client's complaint, a proxy's log and ours.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use hyper::header::HeaderMap;

use super::exchange::REQUEST_ID;

const LONGEST: usize = 64;

/// The id that came with a request if it is sane, or a new one.
pub(super) fn of(headers: &HeaderMap) -> Arc<str> {
    match headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()) {
        Some(id) if is_sane(id) => id.into(),
        _ => fresh(),
    }
}

fn is_sane(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    !id.is_empty() && id.len() <= LONGEST && id.bytes().all(plain)
}

/// A number that is random per process and counts up: unique at one site, and no secret.
fn fresh() -> Arc<str> {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{number:06x}", *START & 0xffff_ffff).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(sent: &'static str) -> Arc<str> {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, sent.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(&*id_for("b3f1c2-77_x.y:z"), "b3f1c2-77_x.y:z");
    }

    #[test]
    fn an_id_with_blanks_quotes_or_of_great_length_is_replaced() {
        for sent in ["a b", "a\"b", "", "0123456789012345678901234567890123456789012345678901234567890123x"] {
            let id = id_for(sent);
            assert_ne!(&*id, sent);
            assert!(is_sane(&id), "{id}");
        }
    }

    #[test]
    fn two_requests_get_two_ids() {
        assert_ne!(fresh(), fresh());
    }
}
