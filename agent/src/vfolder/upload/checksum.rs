//! The tus extension "checksum": the sum that a client states for the body of one PATCH.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1::Digest as _;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// The algorithms as `Tus-Checksum-Algorithm` names them.
pub const ALGORITHMS: &str = "sha1,sha256,crc32c";

/// Why a header `Upload-Checksum` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChecksumError {
    /// Not "algorithm, blank, sum in base64".
    #[error("is not an algorithm, a blank and a checksum in base64")]
    Malformed,
    /// An algorithm that is not offered.
    #[error("names an unknown algorithm; offered are {ALGORITHMS}")]
    Algorithm,
    /// The sum has not the length that the algorithm gives.
    #[error("has a checksum of the wrong length for its algorithm")]
    Length,
}

/// A stated sum, and the sum of what has been seen so far.
#[derive(Clone)]
pub struct Checksum {
    state: State,
    stated: Vec<u8>,
}

#[derive(Clone)]
enum State {
    Sha1(Sha1),
    Sha256(Sha256),
    Crc32c(u32),
}

impl Checksum {
    /// Reads the header's value.
    pub fn parse(header: &[u8]) -> Result<Self, ChecksumError> {
        let header = std::str::from_utf8(header).map_err(|_| ChecksumError::Malformed)?;
        let (algorithm, sum) = header.trim().split_once(' ').ok_or(ChecksumError::Malformed)?;
        let (state, length) = match algorithm.to_ascii_lowercase().as_str() {
            "sha1" => (State::Sha1(Sha1::new()), 20),
            "sha256" => (State::Sha256(Sha256::new()), 32),
            "crc32c" => (State::Crc32c(0), 4),
            _ => return Err(ChecksumError::Algorithm),
        };
        let stated = BASE64_STANDARD.decode(sum.trim()).map_err(|_| ChecksumError::Malformed)?;
        if stated.len() == length { Ok(Checksum { state, stated }) } else { Err(ChecksumError::Length) }
    }

    /// Adds bytes that follow those seen so far.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha1(sha1) => sha1.update(bytes),
            State::Sha256(sha256) => sha256.update(bytes),
            State::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
        }
    }

    /// Whether what was seen has the stated sum.
    pub(super) fn matches(self) -> bool {
        let sum = match self.state {
            State::Sha1(sha1) => sha1.finalize().to_vec(),
            State::Sha256(sha256) => sha256.finalize().to_vec(),
            State::Crc32c(sum) => sum.to_be_bytes().to_vec(),
        };
        sum.ct_eq(&self.stated).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_recognises_its_own_sum_of_hello_world_only() {
        // From sha1sum(1), sha256sum(1) and RFC 3720 B.4's polynomial, of "hello world".
        for header in [
            "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "sha256 uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=",
            "crc32c yZRlqg==",
        ] {
            let mut good = Checksum::parse(header.as_bytes()).unwrap();
            let mut bad = good.clone();
            good.update(b"hello ");
            good.update(b"world");
            bad.update(b"hello_world");
            assert!(good.matches(), "{header}");
            assert!(!bad.matches(), "{header}");
        }
    }

    #[test]
    fn what_is_no_checksum_is_refused_by_its_reason() {
        for (header, error) in [
            (&b""[..], ChecksumError::Malformed),
            (b"sha1", ChecksumError::Malformed),
            (b"sha1 ", ChecksumError::Malformed),
            (b"sha1 ???", ChecksumError::Malformed),
            (b"sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0= x", ChecksumError::Malformed),
            (b"\xff\xfe", ChecksumError::Malformed),
            (b"md5 XrY7u+Ae7tCTyyK7j1rNww==", ChecksumError::Algorithm),
            (b" AAAA", ChecksumError::Malformed),
            (b"sha256 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", ChecksumError::Length),
            (b"crc32c AAAA", ChecksumError::Length),
        ] {
            assert_eq!(Checksum::parse(header).err(), Some(error), "{}", header.escape_ascii());
        }
    }
}
