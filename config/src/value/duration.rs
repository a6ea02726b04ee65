//! Durations: seconds as a number, or a number with a unit.

use std::time::Duration;

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

const REMEDY: &str = "is not a duration; write seconds or a number with s, m, h, d or w, such as \"1d\"";

/// Units with a fraction and their seconds, largest first.
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Calendar units. A configured lifetime has no start date, so a month is 30 days and a year 365.
const CALENDAR: [(&str, u64); 2] = [("mo", 30 * 86_400), ("yr", 365 * 86_400)];

impl Value for Duration {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let seconds = match &node.kind {
            Kind::Integer(Some(number)) if *number < 0 => return Err(negative(node)),
            Kind::Float(number) if *number < 0.0 => return Err(negative(node)),
            Kind::Text(text) if text.trim_start().starts_with('-') => return Err(negative(node)),
            Kind::Integer(Some(number)) => u64::try_from(*number).ok().map(Duration::from_secs),
            Kind::Float(number) => Duration::try_from_secs_f64(*number).ok(),
            Kind::Text(text) => parse(text.trim()),
            _ => None,
        };
        seconds.ok_or_else(|| Wrong::new(node, REMEDY))
    }
}

fn negative(node: &Node) -> Wrong {
    Wrong::new(node, "is negative; a duration is 0 or more, such as 30 or \"1d\"")
}

fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let number = number.trim_end();
    let find =
        |units: &[(&str, u64)]| units.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
    if let Some(seconds) = find(&CALENDAR) {
        return number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs);
    }
    let seconds = if unit.is_empty() { 1 } else { find(&UNITS)? };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(seconds).map(Duration::from_secs),
        Err(_) => Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds as f64).ok(),
    }
}

/// The shortest spelling that reads back as `duration`, to the millisecond.
pub(super) fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        return format!("{:.3}s", duration.as_secs_f64());
    }
    match UNITS.iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    fn seconds(value: &str) -> Result<f64, String> {
        read::<Duration>(value).map(|duration| duration.as_secs_f64())
    }

    #[test]
    fn numbers_are_seconds_and_units_multiply() {
        let cases = [
            ("90", 90.0),
            ("1.5", 1.5),
            ("\"90\"", 90.0),
            ("\"0.5\"", 0.5),
            ("\"30s\"", 30.0),
            ("\"30m\"", 1800.0),
            ("\"1.5h\"", 5400.0),
            ("\"12h\"", 43_200.0),
            ("\"1d\"", 86_400.0),
            ("\"2w\"", 1_209_600.0),
            ("\"1mo\"", 2_592_000.0),
            ("\"1yr\"", 31_536_000.0),
            ("\" 5 m \"", 300.0),
            ("0", 0.0),
        ];
        for (value, want) in cases {
            assert_eq!(seconds(value), Ok(want), "{value}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        let bad = [
            "\"\"",
            "\"1x\"",
            "\"d\"",
            "\"-1d\"",
            "-1",
            "-0.5",
            "\"1.5mo\"",
            "\"1.2.3s\"",
            "\"inf\"",
            "\"1e3s\"",
            "nan",
            "inf",
            "true",
            "[]",
            "\"99999999999999999999w\"",
            "\"1 d 2 h\"",
            "\"1D\"",
        ];
        for value in bad {
            assert!(read::<Duration>(value).is_err(), "{value}");
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_whole_unit() {
        for (seconds, want) in
            [(0, "0s"), (59, "59s"), (90, "90s"), (120, "2m"), (86_400, "1d"), (604_800, "1w")]
        {
            assert_eq!(written(Duration::from_secs(seconds)), want);
        }
        assert_eq!(written(Duration::from_millis(1500)), "1.500s");
    }
}
