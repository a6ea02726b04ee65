//! File names in JSON.
//!
//! A name is bytes, JSON strings are Unicode. Python (PEP 383, `surrogateescape`) writes a byte that is not
//! part of valid UTF-8 as the lone surrogate U+DC80..U+DCFF, and managers and clients hand such strings back
//! unchanged. This module reads and writes that form, so that every name on disk can be listed, downloaded
//! and deleted.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A string of JSON as bytes, with escaped bytes turned back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteText(pub Vec<u8>);

impl<'de> Deserialize<'de> for ByteText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = ByteText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<ByteText, E> {
                Ok(ByteText(unescape(bytes)))
            }

            fn visit_str<E>(self, text: &str) -> Result<ByteText, E> {
                Ok(ByteText(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl Serialize for ByteText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => escaped(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer),
        }
    }
}

/// Lone surrogates arrive as three bytes, ED B2 80 .. ED B3 BF ("WTF-8"). Each stands for one byte.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match rest {
            [0xed, high @ (0xb2 | 0xb3), low @ 0x80..=0xbf, tail @ ..] => {
                out.push(((high & 0x01) << 6) | (low & 0x3f) | 0x80);
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
            [] => return out,
        }
    }
}

fn escaped(bytes: &[u8]) -> serde_json::Result<Box<RawValue>> {
    let mut json = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = serde_json::to_string(chunk.valid())?;
        json.push_str(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default());
        for byte in chunk.invalid() {
            json.push_str(&format!("\\udc{byte:02x}"));
        }
    }
    json.push('"');
    RawValue::from_string(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_survives_the_way_through_json() {
        for name in [
            &b"plain"[..],
            "héllo \u{1f980}".as_bytes(),
            b"\xff\x80a\xc3",
            b"\"quoted\"\\\n\xfe",
            b"\"\xff\"",
            b"",
        ] {
            let json = serde_json::to_string(&ByteText(name.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<ByteText>(&json).unwrap().0, name, "{json}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_written_as_python_writes_it() {
        assert_eq!(serde_json::to_string(&ByteText(b"a\xffb".to_vec())).unwrap(), r#""a\udcffb""#);
    }

    #[test]
    fn only_strings_are_taken() {
        for json in ["1", "null", "[1]", "{}", "true"] {
            assert!(serde_json::from_str::<ByteText>(json).is_err(), "{json}");
        }
    }
}
