//! Sizes in bytes as people write them in configuration files and as managers send them: `100g`, `1.5 KiB`, `2_000`.
//!
//! The grammar is Backend.AI's `BinarySize`, so every scale is a power of 1024 whether or not it is spelled with an
//! `i`. Unlike it, a bare `12b` or `12 bytes` is accepted, and a size is always finite, not negative and at most
//! 2^63-1, the largest offset a file can have on Linux.

use std::fmt;
use std::str::FromStr;

/// The largest size: 2^63-1 bytes, the largest `off_t`.
pub const MAX: u64 = i64::MAX as u64;

/// A number of bytes, at most [`MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BinarySize(u64);

/// Why a text or number is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Nothing but blanks.
    Empty,
    /// `inf` and its longer forms.
    Infinite,
    /// Below zero.
    Negative,
    /// Above [`MAX`].
    TooLarge,
    /// A fraction of a byte, such as `1.5` without a scale.
    Fraction,
    /// Neither a number nor a number with a scale.
    Malformed,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SizeError::Empty => {
                "is empty; write a number of bytes or a number with k, m, g, t or p, such as \"100g\""
            }
            SizeError::Infinite => "is infinite; write a finite size such as \"100g\"",
            SizeError::Negative => "is negative; a size is 0 or more",
            SizeError::TooLarge => "is too large; the largest size is 2^63-1 bytes",
            SizeError::Fraction => {
                "has a fraction of a byte; write a whole number or add a scale such as \"1.5k\""
            }
            SizeError::Malformed => {
                "is not a size; write a number of bytes or a number with k, m, g, t or p, such as \"100g\""
            }
        })
    }
}

impl std::error::Error for SizeError {}

/// Endings that change nothing, in the order in which they are tried.
const ENDINGS: [&str; 6] = ["ibytes", "ibyte", "ib", "bytes", "byte", "b"];

/// The scales by their position: `k` is 2^10, `y` is 2^80.
const SCALES: &str = "kmgtpezy";

/// Unit names for printing. [`MAX`] stays below 8 EiB, so no larger one is needed.
const UNITS: [(u32, &str); 6] =
    [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];

impl BinarySize {
    /// A size of `bytes`, or `TooLarge` above [`MAX`].
    pub const fn new(bytes: u64) -> Result<Self, SizeError> {
        if bytes > MAX { Err(SizeError::TooLarge) } else { Ok(Self(bytes)) }
    }

    /// `n` KiB; for constants.
    pub const fn kib(n: u32) -> Self {
        Self((n as u64) << 10)
    }

    /// `n` MiB; for constants.
    pub const fn mib(n: u32) -> Self {
        Self((n as u64) << 20)
    }

    /// `n` GiB; for constants.
    pub const fn gib(n: u32) -> Self {
        Self((n as u64) << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<i128> for BinarySize {
    type Error = SizeError;

    fn try_from(bytes: i128) -> Result<Self, SizeError> {
        if bytes < 0 {
            return Err(SizeError::Negative);
        }
        u64::try_from(bytes).map_err(|_| SizeError::TooLarge).and_then(Self::new)
    }
}

impl FromStr for BinarySize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text: String = text.trim().chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
        match text.as_str() {
            "" => return Err(SizeError::Empty),
            "inf" | "infinite" | "infinity" => return Err(SizeError::Infinite),
            _ => {}
        }
        let (number, shift) = split_scale(strip_ending(&text));
        let number = number.trim_end();
        match number.strip_prefix('-').map(|positive| scaled(positive, shift)) {
            None => scaled(number, shift),
            Some(Err(SizeError::Malformed)) => Err(SizeError::Malformed),
            Some(_) => Err(SizeError::Negative),
        }
    }
}

fn strip_ending(text: &str) -> &str {
    ENDINGS.iter().find_map(|ending| text.strip_suffix(ending)).unwrap_or(text)
}

/// Takes the scale letter off the end; without one the shift is 0.
fn split_scale(text: &str) -> (&str, u32) {
    for (letter, shift) in SCALES.chars().zip((10..).step_by(10)) {
        if let Some(number) = text.strip_suffix(letter) {
            return (number, shift);
        }
    }
    (text, 0)
}

/// `number` times 2^`shift`, truncated to whole bytes; exact for any number of decimals.
fn scaled(number: &str, shift: u32) -> Result<BinarySize, SizeError> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + decimals.len() == 0 || !digits(whole) || !digits(decimals) {
        return Err(SizeError::Malformed);
    }
    if shift == 0 && decimals.bytes().any(|digit| digit != b'0') {
        return Err(SizeError::Fraction);
    }
    let unit = 1u128 << shift;
    // From the last decimal to the first: truncating at every step equals truncating once at the end.
    let part = decimals.bytes().rev().fold(0, |below, digit| (u128::from(digit - b'0') * unit + below) / 10);
    let whole = whole.trim_start_matches('0');
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| SizeError::TooLarge)? };
    let bytes =
        whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(part)).ok_or(SizeError::TooLarge)?;
    u64::try_from(bytes).map_err(|_| SizeError::TooLarge).and_then(BinarySize::new)
}

/// `1 byte`, `1023 bytes`, `1.5 MiB`: the largest unit that fits, at most two decimals rounded half to even.
impl fmt::Display for BinarySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((shift, unit)) = UNITS.iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} {}", self.0, if self.0 == 1 { "byte" } else { "bytes" });
        };
        let hundredths = rounded(u128::from(self.0) * 100, *shift);
        write!(f, "{}", hundredths / 100)?;
        match hundredths % 100 {
            0 => {}
            rest if rest % 10 == 0 => write!(f, ".{}", rest / 10)?,
            rest => write!(f, ".{rest:02}")?,
        }
        write!(f, " {unit}")
    }
}

/// `value` / 2^`shift`, rounded half to even.
fn rounded(value: u128, shift: u32) -> u128 {
    let (quotient, rest, half) = (value >> shift, value & ((1 << shift) - 1), 1u128 << (shift - 1));
    if rest > half || (rest == half && quotient % 2 == 1) { quotient + 1 } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, SizeError> {
        text.parse::<BinarySize>().map(BinarySize::bytes)
    }

    #[test]
    fn every_spelling_of_a_scale_is_binary() {
        for text in ["100g", "100G", "100GiB", "100 GB", "100gb", " 100 gibytes ", "1_00g", "0100.00g"] {
            assert_eq!(bytes(text), Ok(107_374_182_400), "{text:?}");
        }
        for (shift, scale) in (10..=60).step_by(10).zip("kmgtpe".chars()) {
            assert_eq!(bytes(&format!("1{scale}")), Ok(1 << shift), "{scale}");
        }
    }

    #[test]
    fn plain_numbers_are_bytes() {
        for (text, want) in [
            ("0", 0),
            ("2_000", 2000),
            ("1024.000000", 1024),
            ("12 bytes", 12),
            ("12b", 12),
            ("12bytes", 12),
            ("1byte", 1),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn fractions_of_a_scale_truncate_to_whole_bytes() {
        assert_eq!(bytes("1.5k"), Ok(1536));
        assert_eq!(bytes(".5k"), Ok(512));
        assert_eq!(bytes("0.0001k"), Ok(0));
        assert_eq!(bytes("0.3333333333333333333333333333333333333333333g"), Ok(357_913_941));
        assert_eq!(bytes("0.001z"), Ok(1_180_591_620_717_411_303));
    }

    #[test]
    fn what_is_not_a_size_says_why() {
        use SizeError::*;
        let cases = [
            ("", Empty),
            ("  ", Empty),
            ("inf", Infinite),
            ("Infinity", Infinite),
            ("INFINITE", Infinite),
            ("-1", Negative),
            ("-1.5g", Negative),
            ("-x", Malformed),
            ("1.5", Fraction),
            ("1.5 bytes", Fraction),
            ("k", Malformed),
            ("b", Malformed),
            ("1x", Malformed),
            ("1kk", Malformed),
            ("1.2.3k", Malformed),
            ("0x10", Malformed),
            ("1 0k", Malformed),
            ("१k", Malformed),
            ("8e", TooLarge),
            ("9223372036854775808", TooLarge),
            ("1y", TooLarge),
            ("99999999999999999999999999999999999999999999", TooLarge),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text), Err(want), "{text:?}");
        }
        assert_eq!(bytes("9223372036854775807"), Ok(MAX));
    }

    #[test]
    fn numbers_outside_the_range_are_refused() {
        assert_eq!(BinarySize::try_from(-1i128), Err(SizeError::Negative));
        assert_eq!(BinarySize::try_from(i128::from(MAX) + 1), Err(SizeError::TooLarge));
        assert_eq!(BinarySize::try_from(i128::from(MAX)).map(BinarySize::bytes), Ok(MAX));
    }

    #[test]
    fn sizes_print_with_at_most_two_decimals() {
        let cases = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536 << 10, "1.5 MiB"),
            (100 << 30, "100 GiB"),
            (1024 + 10, "1.01 KiB"),
            (MAX, "8 EiB"),
            (1152, "1.12 KiB"),
            (1664, "1.62 KiB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(BinarySize(bytes).to_string(), want);
        }
    }

    #[test]
    fn a_printed_whole_size_reads_back_as_itself() {
        for shift in 0..63 {
            let size = BinarySize(1 << shift);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
