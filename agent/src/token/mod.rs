//! The tokens that give a user's program access to one path of one vfolder.
//!
//! They are JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, as PyJWT writes and reads them, so that
//! proxies which share the secret honour each other's tokens. The manager-facing API signs them, the
//! client-facing API verifies them. There is no other key, algorithm or kind than those named here.

mod claims;
mod hmac;
mod recent;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;

pub use self::claims::{ArchiveClaims, Claims, DownloadClaims, UploadClaims};
use self::recent::Recent;
use crate::api::params::Params;

/// The header as PyJWT writes it, byte for byte.
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// How deep claims may be nested; ours are flat, foreign ones are ignored.
const CLAIMS_DEPTH: usize = 8;

/// Why a token is refused. The texts are PyJWT's where it has one; none contains a part of the token.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TokenError {
    /// Longer than the limit, in bytes.
    #[error("The token is longer than {0} bytes (limit limits.token-size)")]
    TooLong(usize),
    /// Not a JWT, or one of another algorithm.
    #[error("{0}")]
    Malformed(&'static str),
    /// Signed with another key, or changed since.
    #[error("Signature verification failed")]
    Signature,
    /// Its time is over.
    #[error("Signature has expired")]
    Expired,
    /// Its time has not come: the claim's name.
    #[error("The token is not yet valid ({0})")]
    NotYetValid(&'static str),
    /// It says something else than a token of this kind: each claim's name and what is wrong with it.
    #[error("the claims do not fit")]
    Claims(Map<String, Value>),
}

/// Signs and verifies. Neither it nor anything in it prints the key.
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    max_length: usize,
    downloads: Recent<DownloadClaims>,
}

impl Tokens {
    /// Tokens of the storage proxies that share `secret`; none is longer than `max_length` bytes.
    pub fn new(secret: &[u8], max_length: usize) -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            // Only this module uses the JWT crate, and it gets here once: nothing can be installed already.
            let _installed = hmac::PROVIDER.install_default();
        });
        let (signing, verifying) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Tokens { signing, verifying, max_length, downloads: Recent::default() }
    }

    /// Makes a token. Fails when very long names would make it longer than clients could send back.
    pub fn sign<T: Claims>(&self, claims: &T) -> Result<String, TokenError> {
        let unwritable = TokenError::Malformed("the claims cannot be written as a token");
        let payload = serde_json::to_vec(claims).map_err(|_| unwritable.clone())?;
        let message = format!("{}.{}", base64(HEADER), base64(&payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, Algorithm::HS256)
            .map_err(|_| unwritable)?;
        let token = format!("{message}.{signature}");
        if token.len() > self.max_length { Err(TokenError::TooLong(self.max_length)) } else { Ok(token) }
    }

    /// Reads a token that claims to be of kind `T` and valid now.
    pub fn verify<T: Claims>(&self, token: &[u8]) -> Result<T, TokenError> {
        self.verify_at(token, unix_now())
    }

    /// Reads a token that permits a download now.
    pub fn verify_download(&self, token: &[u8]) -> Result<Arc<DownloadClaims>, TokenError> {
        self.verify_download_at(token, unix_now())
    }

    fn verify_download_at(&self, token: &[u8], now: i64) -> Result<Arc<DownloadClaims>, TokenError> {
        if let Some(claims) = self.downloads.get(token) {
            return if claims.exp <= now { Err(TokenError::Expired) } else { Ok(claims) };
        }
        let claims = Arc::new(self.verify_at(token, now)?);
        self.downloads.put(token, &claims);
        Ok(claims)
    }

    fn verify_at<T: Claims>(&self, token: &[u8], now: i64) -> Result<T, TokenError> {
        if token.len() > self.max_length {
            return Err(TokenError::TooLong(self.max_length));
        }
        let read = jsonwebtoken::decode::<Box<RawValue>>(token, &self.verifying, &signature_only())
            .map_err(|error| refusal(error.kind()))?;
        // RFC 7515 section 4.1.11: who does not know a critical extension must refuse the token.
        if read.header.crit.is_some() {
            return Err(TokenError::Malformed("Unsupported critical extension"));
        }
        let mut claims = Params::parse(read.claims.get().as_bytes(), CLAIMS_DEPTH)
            .map_err(|_| TokenError::Malformed("Invalid payload string: must be a json object"))?;
        check_times(&mut claims, now)?;
        let read = T::read(&mut claims);
        let mistakes = claims.into_mistakes();
        match read {
            Some(read) if mistakes.is_empty() => Ok(read),
            _ => Err(TokenError::Claims(mistakes)),
        }
    }
}

/// Times are compared by [`check_times`], in the way and with the texts of PyJWT.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// `exp` is required; `nbf` and `iat` must have come where they are there. No leeway.
fn check_times(claims: &mut Params, now: i64) -> Result<(), TokenError> {
    for key in ["iat", "nbf"] {
        if claims.has(key) && claims::seconds(claims, key).is_some_and(|from| from > now) {
            return Err(TokenError::NotYetValid(key));
        }
    }
    match claims::seconds(claims, "exp") {
        Some(exp) if exp <= now => Err(TokenError::Expired),
        _ => Ok(()),
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidToken => TokenError::Malformed("Not enough segments"),
        ErrorKind::InvalidAlgorithm => TokenError::Malformed("The specified alg value is not allowed"),
        ErrorKind::Base64(_) => TokenError::Malformed("Invalid padding or characters"),
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => TokenError::Malformed("Invalid header or payload string"),
        _ => TokenError::Malformed("Invalid token"),
    }
}

fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
