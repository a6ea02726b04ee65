//! `Range` (RFC 9110 section 14.2), as the reference proxy reads it: one range of bytes, or 416.

use crate::api::body::FileRange;

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// No range, or one in a unit that is not bytes: everything.
    Everything,
    /// These bytes, cut to the file's end.
    Part(FileRange),
    /// Nothing that can be given.
    Unsatisfiable,
}

/// Reads the header's value for a file of `size` bytes.
pub(super) fn parse(value: &[u8], size: u64) -> Asked {
    let Some(set) = std::str::from_utf8(value).ok().and_then(|text| text.trim().split_once('=')) else {
        return Asked::Unsatisfiable;
    };
    let (unit, range) = set;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Everything;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Asked::Unsatisfiable };
    match (number(first), number(last)) {
        (Bound::None, Bound::At(count)) if count > 0 && size > 0 => {
            let length = count.min(size);
            Asked::Part(FileRange { start: size - length, length })
        }
        (Bound::At(start), Bound::None) if start < size => {
            Asked::Part(FileRange { start, length: size - start })
        }
        (Bound::At(start), Bound::At(last)) if start <= last && start < size => {
            Asked::Part(FileRange { start, length: last.min(size - 1) - start + 1 })
        }
        _ => Asked::Unsatisfiable,
    }
}

enum Bound {
    None,
    At(u64),
    Invalid,
}

/// Digits only. A number too large for any file is as good as the largest.
fn number(text: &str) -> Bound {
    let text = text.trim();
    if text.is_empty() {
        return Bound::None;
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Bound::Invalid;
    }
    Bound::At(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file_or_refused() {
        let part = |start, length| Asked::Part(FileRange { start, length });
        for (value, expected) in [
            ("bytes=0-9", part(0, 10)),
            ("bytes=990-", part(990, 10)),
            ("bytes=-5", part(995, 5)),
            ("bytes=-5000", part(0, 1000)),
            ("bytes=0-99999999999999999999999", part(0, 1000)),
            ("bytes=999-999", part(999, 1)),
            ("BYTES = 1-2", part(1, 2)),
            ("bytes=1000-", Asked::Unsatisfiable),
            ("bytes=5-4", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=-", Asked::Unsatisfiable),
            ("bytes=0-1,5-6", Asked::Unsatisfiable),
            ("bytes=a-b", Asked::Unsatisfiable),
            ("bytes=+1-2", Asked::Unsatisfiable),
            ("bytes=1--2", Asked::Unsatisfiable),
            ("bytes", Asked::Unsatisfiable),
            ("", Asked::Unsatisfiable),
            ("items=0-1", Asked::Everything),
        ] {
            assert_eq!(parse(value.as_bytes(), 1000), expected, "{value}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Asked::Unsatisfiable);
        assert_eq!(parse(b"bytes=-1", 0), Asked::Unsatisfiable);
        assert_eq!(parse(b"bytes=\xff", 9), Asked::Unsatisfiable);
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 8] =
            [b"bytes", b"=", b"-", b",", b"18446744073709551615", b"18446744073709551616", b" ", b"+1"];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "range", &words, |value| {
            for size in [0, 1, 1000, u64::MAX] {
                if let Asked::Part(part) = parse(value, size) {
                    assert!(part.length > 0 && part.start < size, "{part:?} of {size}");
                    assert!(
                        part.start.checked_add(part.length).is_some_and(|end| end <= size),
                        "{part:?} of {size}"
                    );
                }
            }
        });
    }
}
