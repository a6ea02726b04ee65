//! `Content-Disposition` for any file name (RFC 6266, RFC 8187), in the exact form of the reference proxy.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use warp::http::HeaderValue;

/// What stays as it is in the extended form.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// The header's value. Control characters and what is not ASCII are left out of the plain form, and stand
/// percent-encoded in the extended one, so that no name can end the header.
pub(super) fn attachment(name: &[u8]) -> HeaderValue {
    let mut plain = String::new();
    for byte in name.iter().filter(|byte| (b' '..=b'~').contains(byte) && **byte != b'\\') {
        if *byte == b'"' {
            plain.push('\\');
        }
        plain.push(char::from(*byte));
    }
    let extended = percent_encode(name, KEPT);
    let value = format!("attachment;filename=\"{plain}\"; filename*=UTF-8''{extended}");
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_gives_one_header_of_the_contracts_form() {
        for (name, expected) in [
            (&b"train.py"[..], r#"attachment;filename="train.py"; filename*=UTF-8''train.py"#),
            ("dö c.txt".as_bytes(), r#"attachment;filename="d c.txt"; filename*=UTF-8''d%C3%B6%20c.txt"#),
            (b"a\"b", r#"attachment;filename="a\"b"; filename*=UTF-8''a%22b"#),
            (b"a\r\nX: y\\", r#"attachment;filename="aX: y"; filename*=UTF-8''a%0D%0AX%3A%20y%5C"#),
            (b"\xff\x00", r#"attachment;filename=""; filename*=UTF-8''%FF%00"#),
        ] {
            assert_eq!(attachment(name).to_str().unwrap(), expected);
        }
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 8] = [b"\r\n", b"\"", b"\\", b";", b"filename*=", b"\0", b"%", b"''"];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "names", &words, |name| {
            let value = attachment(name);
            let text = value.to_str().unwrap();
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
            let inside = text.strip_prefix("attachment;filename=\"").unwrap();
            // The quoted string (RFC 9110 section 5.6.4) ends where the extended form begins, and not before.
            let mut characters = inside.char_indices();
            let end = loop {
                match characters.next().unwrap() {
                    (_, '\\') => drop(characters.next()),
                    (at, '"') => break at,
                    _ => {}
                }
            };
            let extended = inside[end..].strip_prefix("\"; filename*=UTF-8''").unwrap();
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(extended).collect();
            assert_eq!(decoded, name, "the extended form is the name");
        });
    }
}
