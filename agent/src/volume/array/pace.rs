//! When to try again.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The pauses before the second, third and fourth attempt; there is no fifth.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// How long to wait before another attempt when `failed` of them failed; nothing when it was the last.
pub(super) fn pause(failed: usize) -> Option<Duration> {
    PAUSES.get(failed.checked_sub(1)?).map(|pause| jittered(*pause))
}

/// Longer by up to a half at random, so that those who failed together do not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().0 as u32;
    pause.mul_f64(1.0 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// What the array itself says about when to come back: `Retry-After` (RFC 9110, seconds or a date), or
/// `RateLimit-Reset` in seconds.
pub(super) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
    if let Some(text) = text(RETRY_AFTER.as_str()) {
        let date = || {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        };
        return seconds(text).or_else(date);
    }
    text("ratelimit-reset").and_then(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_few_and_further_apart_each_time() {
        let pauses: Vec<_> = (1..5).map(pause).collect();
        assert!(pauses[..3].iter().flatten().is_sorted(), "{pauses:?}");
        assert_eq!((pauses[2].is_some(), pauses[3], pause(0)), (true, None, None));
        let jitter: std::collections::BTreeSet<_> = (0..8).filter_map(|_| pause(1)).collect();
        assert!(
            jitter.len() > 1 && jitter.iter().all(|pause| *pause <= Duration::from_millis(750)),
            "{jitter:?}"
        );
    }

    #[test]
    fn the_array_says_in_seconds_or_by_a_date_when_to_come_back() {
        let asked = |name: &'static str, value: &str| {
            asked_pause(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(asked("retry-after", "7"), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let pause = asked("retry-after", &date).unwrap();
        assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(60), "{pause:?}");
        assert_eq!(asked("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("ratelimit-reset", "3"), Some(Duration::from_secs(3)));
        assert_eq!((asked("retry-after", "soon"), asked("date", "3")), (None, None));
    }
}
