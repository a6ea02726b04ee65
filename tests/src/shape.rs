//! Exact comparison of JSON replies with expected ones that have placeholders where a value can't be known.
//!
//! Placeholders are strings: `<uuid>`, `<int>`, `<count>` (an integer of 0 or more), `<str>`, `<time>`
//! (Python's `isoformat()` of a UTC time), `<instant>` (RFC 3339), `<jwt>`, `<list>`, `<bool>`, `<any>`.
//! Keys must be the same on both sides, and lists have the same length and order.

use serde_json::Value;

/// Says where and how the reply differs, if it does.
pub fn compare(expected: &Value, actual: &Value) -> Result<(), String> {
    at("$", expected, actual)
}

fn at(path: &str, expected: &Value, actual: &Value) -> Result<(), String> {
    match (expected, actual) {
        (Value::String(text), _) if text.starts_with('<') && text.ends_with('>') => {
            match fits(text, actual) {
                true => Ok(()),
                false => Err(format!("{path} is {actual}, not {text}")),
            }
        }
        (Value::Object(want), Value::Object(have)) => {
            if let Some(key) = want.keys().find(|key| !have.contains_key(*key)) {
                return Err(format!("{path}.{key} is missing in {actual}"));
            }
            if let Some(key) = have.keys().find(|key| !want.contains_key(*key)) {
                return Err(format!("{path}.{key} is not expected: {}", have[key]));
            }
            want.iter().try_for_each(|(key, value)| at(&format!("{path}.{key}"), value, &have[key]))
        }
        (Value::Array(want), Value::Array(have)) => {
            if want.len() != have.len() {
                return Err(format!("{path} has {} items, not {}: {actual}", have.len(), want.len()));
            }
            want.iter().zip(have).enumerate().try_for_each(|(i, (w, h))| at(&format!("{path}[{i}]"), w, h))
        }
        _ if expected == actual => Ok(()),
        _ => Err(format!("{path} is {actual}, not {expected}")),
    }
}

fn fits(placeholder: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    match placeholder {
        "<any>" => true,
        "<uuid>" => is_uuid(text),
        "<int>" => value.is_i64() || value.is_u64(),
        "<count>" => value.is_u64(),
        "<bool>" => value.is_boolean(),
        "<str>" => value.is_string(),
        "<list>" => value.is_array(),
        "<time>" => is_python_time(text),
        "<instant>" => is_instant(text),
        "<jwt>" => text.split('.').count() == 3,
        other => panic!("no such placeholder: {other}"),
    }
}

/// A version 4 UUID as Python prints it: lower case, with hyphens.
fn is_uuid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    text.len() == 36
        && text.as_bytes()[14] == b'4'
        && text.bytes().enumerate().all(|(i, byte)| match hyphens.contains(&i) {
            true => byte == b'-',
            false => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// `2023-11-14T22:13:20+00:00`, or with exactly six digits after the seconds when they aren't all zero.
fn is_python_time(text: &str) -> bool {
    let Some(local) = text.strip_suffix("+00:00") else { return false };
    match local.split_once('.') {
        None => looks_like(local, "dddd-dd-ddTdd:dd:dd"),
        Some((_, "000000")) => false,
        Some((seconds, fraction)) => {
            looks_like(seconds, "dddd-dd-ddTdd:dd:dd") && looks_like(fraction, "dddddd")
        }
    }
}

fn is_instant(text: &str) -> bool {
    let local = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"));
    local.is_some_and(|local| looks_like(local.split('.').next().unwrap_or(""), "dddd-dd-ddTdd:dd:dd"))
}

fn looks_like(text: &str, picture: &str) -> bool {
    text.len() == picture.len()
        && text.chars().zip(picture.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_found_wherever_it_is() {
        let expected = json!({"a": [1, {"b": "<count>"}], "id": "<uuid>"});
        let good = json!({"a": [1, {"b": 0}], "id": "0b6c1d7e-a6f2-4d57-a1b2-c3d4e5f60718"});
        assert_eq!(compare(&expected, &good), Ok(()));
        for bad in [
            json!({"a": [1, {"b": -1}], "id": good["id"]}),
            json!({"a": [1, {"b": 0}, 2], "id": good["id"]}),
            json!({"a": [1, {"b": 0}]}),
            json!({"a": [1, {"b": 0, "c": 0}], "id": good["id"]}),
            json!({"a": [1, {"b": 0}], "id": "0b6c1d7ea6f24d57a1b2c3d4e5f60718"}),
            json!([]),
        ] {
            assert!(compare(&expected, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_those_of_isoformat() {
        for good in ["2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20.500000+00:00"] {
            assert!(is_python_time(good), "{good}");
        }
        for bad in
            ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000+00:00", "2023-11-14T22:13:20.5+00:00", ""]
        {
            assert!(!is_python_time(bad), "{bad}");
        }
    }
}
