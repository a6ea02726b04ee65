//! JSON Web Tokens made and read by hand (RFC 7515, RFC 7519), so that tests can forge every part of one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// A token as the agent makes it: HS256 with this secret.
pub fn sign(claims: &Value, secret: &str) -> String {
    forge(&json!({"alg": "HS256", "typ": "JWT"}), claims, secret)
}

/// A token with any header. The signature is HMAC-SHA256 whatever the header says.
pub fn forge(header: &Value, claims: &Value, secret: &str) -> String {
    from_parts(header.to_string().as_bytes(), claims.to_string().as_bytes(), secret)
}

/// A token of any bytes, JSON or not.
pub fn from_parts(header: &[u8], claims: &[u8], secret: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac(&signed, secret)))
}

/// The header and the claims of a token whose signature is right.
pub fn open(token: &str, secret: &str) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "a token has three parts: {token}");
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    assert_eq!(signature, mac(&format!("{}.{}", parts[0], parts[1]), secret), "wrong signature: {token}");
    let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(parts[0]), json(parts[1]))
}

fn mac(text: &str, secret: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_equals_the_one_that_pyjwt_makes() {
        // What PyJWT prints for jwt.encode({"a": 1}, "secret", algorithm="HS256").
        let token =
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoxfQ.57TF7smP9XDhIexBqPC-F1toZReYZLWb_YRU5tv0sxM";
        assert_eq!(sign(&json!({"a": 1}), "secret"), token);
        assert_eq!(open(token, "secret").1, json!({"a": 1}));
    }
}
