use super::*;
use crate::api::text::ByteText;
use crate::vfolder::upload::SessionId;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes, really";
const SCOPED: &str = "user:5f1d9a3e-0c55-4f0e-9c1e-2b8f5b1c7d10/0b6c1d7ea6f24d57a1b2c3d4e5f60718";
const END: i64 = 4_102_444_800;

// Written by PyJWT 2.15.1 with SECRET.
const PY_UPLOAD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcCI6InVwbG9hZCIsInZvbHVtZSI6ImxvY2FsIiwidmZpZCI6InVzZXI6NWYxZDlhM2UtMGM1NS00ZjBlLTljMWUtMmI4ZjViMWM3ZDEwLzBiNmMxZDdlYTZmMjRkNTdhMWIyYzNkNGU1ZjYwNzE4IiwicmVscGF0aCI6ImhcdTAwZTlsbG8vXHVkY2ZmLmJpbiIsInNlc3Npb24iOiIwMDExMjIzMzQ0NTU2Njc3ODg5OWFhYmJjY2RkZWVmZiIsInNpemUiOjEwNDg1NzYsImV4cCI6NDEwMjQ0NDgwMH0.EmWw7zW6guSmc5FXiogs3dtVWOiJVOEDN8xjL0veGLg";
const PY_DOWNLOAD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcCI6ImRvd25sb2FkIiwidm9sdW1lIjoibG9jYWwiLCJ2ZmlkIjoiMGI2YzFkN2VhNmYyNGQ1N2ExYjJjM2Q0ZTVmNjA3MTgiLCJyZWxwYXRoIjoiLiIsImV4cCI6NDEwMjQ0NDgwMH0.sB2Gz7OYZbMoZqpdb_6KjpPOLctKdY7FTs4SdsVty2U";
const PY_ARCHIVE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcGVyYXRpb24iOiJkb3dubG9hZCIsInZvbHVtZSI6ImxvY2FsIiwidmlydHVhbF9mb2xkZXJfaWQiOiJ1c2VyOjVmMWQ5YTNlLTBjNTUtNGYwZS05YzFlLTJiOGY1YjFjN2QxMC8wYjZjMWQ3ZWE2ZjI0ZDU3YTFiMmMzZDRlNWY2MDcxOCIsImZpbGVzIjpbImEudHh0IiwiZFx1MDBlZnIiXSwiZmlsZW5hbWUiOm51bGwsImV4cCI6NDEwMjQ0NDgwMH0.VjLHpe9Ch_P9I8YXI1UB2hQoZwd_LLwHO3EpBtsz9Ds";
const PY_HS512: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJvcCI6ImRvd25sb2FkIiwidm9sdW1lIjoibG9jYWwiLCJ2ZmlkIjoiMGI2YzFkN2VhNmYyNGQ1N2ExYjJjM2Q0ZTVmNjA3MTgiLCJyZWxwYXRoIjoiLiIsImV4cCI6NDEwMjQ0NDgwMH0.5MCFAgGngH-McIpEdjSj9ltyDNrOtSekh1cp52SQBX3padmcjTD655N4xTfbORgLlFH_68256DygT44q0aGhnQ";
const PY_NONE: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJvcCI6ImRvd25sb2FkIiwidm9sdW1lIjoibG9jYWwiLCJ2ZmlkIjoiMGI2YzFkN2VhNmYyNGQ1N2ExYjJjM2Q0ZTVmNjA3MTgiLCJyZWxwYXRoIjoiLiIsImV4cCI6NDEwMjQ0NDgwMH0.";

fn tokens() -> Tokens {
    Tokens::new(SECRET, 8192)
}

fn session() -> SessionId {
    SessionId::parse(b"00112233445566778899aabbccddeeff").unwrap()
}

fn upload() -> UploadClaims {
    let relpath = "héllo/".bytes().chain(*b"\xff.bin").collect();
    UploadClaims::new("local".into(), SCOPED.parse().unwrap(), relpath, session(), 1_048_576, END)
}

fn download() -> DownloadClaims {
    let id = "0b6c1d7ea6f24d57a1b2c3d4e5f60718".parse().unwrap();
    DownloadClaims::new("local".into(), id, b".".to_vec(), None, END)
}

fn archive() -> ArchiveClaims {
    let files = vec![b"a.txt".to_vec(), "dïr".into()];
    ArchiveClaims::new("local".into(), SCOPED.parse().unwrap(), files, None, END)
}

/// A token whose claims are this JSON text, whatever it says.
fn signed(claims: &str) -> Vec<u8> {
    let message = format!("{}.{}", base64(HEADER), base64(claims.as_bytes()));
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}").into_bytes()
}

/// The claims of a good download token with one of them replaced; nothing removes it.
fn download_with(key: &str, value: Option<&str>) -> Vec<u8> {
    let mut claims = serde_json::to_value(download()).unwrap();
    match value {
        Some(json) => claims[key] = serde_json::from_str(json).unwrap(),
        None => drop(claims.as_object_mut().unwrap().remove(key)),
    }
    signed(&claims.to_string())
}

#[test]
fn tokens_that_python_wrote_are_read() {
    assert_eq!(tokens().verify(PY_UPLOAD.as_bytes()), Ok(upload()));
    assert_eq!(tokens().verify(PY_DOWNLOAD.as_bytes()), Ok(download()));
    assert_eq!(tokens().verify(PY_ARCHIVE.as_bytes()), Ok(archive()));
}

#[test]
fn our_tokens_begin_like_pythons_and_come_back_unchanged() {
    let tokens = tokens();
    let token = tokens.sign(&upload()).unwrap();
    assert_eq!(token.split('.').next(), PY_UPLOAD.split('.').next());
    assert_eq!(tokens.verify(token.as_bytes()), Ok(upload()));
    assert_eq!(tokens.verify(tokens.sign(&download()).unwrap().as_bytes()), Ok(download()));
    assert_eq!(tokens.verify(tokens.sign(&archive()).unwrap().as_bytes()), Ok(archive()));
}

#[test]
fn no_kind_passes_for_another() {
    let tokens = tokens();
    let refused = |refusal: TokenError| match refusal {
        TokenError::Claims(claims) => claims.keys().cloned().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert!(
        refused(tokens.verify::<DownloadClaims>(PY_UPLOAD.as_bytes()).unwrap_err()).contains(&"op".into())
    );
    assert!(
        refused(tokens.verify::<UploadClaims>(PY_DOWNLOAD.as_bytes()).unwrap_err()).contains(&"op".into())
    );
    assert!(
        refused(tokens.verify::<DownloadClaims>(PY_ARCHIVE.as_bytes()).unwrap_err()).contains(&"op".into())
    );
    let archive = refused(tokens.verify::<ArchiveClaims>(PY_DOWNLOAD.as_bytes()).unwrap_err());
    assert!(archive.contains(&"operation".into()), "{archive:?}");
}

#[test]
fn only_hs256_with_our_key_counts() {
    let tokens = tokens();
    let verify = |token: &str| tokens.verify::<DownloadClaims>(token.as_bytes()).unwrap_err();
    assert!(matches!(verify(PY_HS512), TokenError::Malformed(_)));
    assert!(matches!(verify(PY_NONE), TokenError::Malformed(_)));
    let other = Tokens::new(b"another secret, also longer than 32 bytes", 8192);
    assert_eq!(other.verify::<DownloadClaims>(PY_DOWNLOAD.as_bytes()), Err(TokenError::Signature));
    let mut parts: Vec<&str> = PY_DOWNLOAD.split('.').collect();
    parts[1] = PY_UPLOAD.split('.').nth(1).unwrap();
    assert_eq!(verify(&parts.join(".")), TokenError::Signature);
}

#[test]
fn critical_extensions_are_refused_because_none_is_known() {
    let tokens = tokens();
    let header = base64(br#"{"alg":"HS256","crit":["b64"],"b64":true}"#);
    let message = format!("{header}.{}", PY_DOWNLOAD.split('.').nth(1).unwrap());
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    let token = format!("{message}.{signature}");
    let refused = tokens.verify::<DownloadClaims>(token.as_bytes());
    assert_eq!(refused, Err(TokenError::Malformed("Unsupported critical extension")));
}

#[test]
fn what_is_no_token_is_malformed_and_never_a_panic() {
    for text in ["", ".", "..", "...", "a.b.c", "x", "eyJ.eyJ.sig", "\u{0}.\u{0}.\u{0}", "🦀.🦀.🦀"] {
        let refusal = tokens().verify::<DownloadClaims>(text.as_bytes()).unwrap_err();
        assert!(matches!(refusal, TokenError::Malformed(_)), "{text:?}: {refusal:?}");
    }
    for cut in 0..PY_DOWNLOAD.len() {
        assert!(tokens().verify::<DownloadClaims>(&PY_DOWNLOAD.as_bytes()[..cut]).is_err(), "{cut}");
    }
    for claims in ["[]", "1", "null", "\"x\"", "{", "", &"[".repeat(3000)] {
        assert!(tokens().verify::<DownloadClaims>(&signed(claims)).is_err(), "{claims}");
    }
}

#[test]
fn a_token_lasts_until_its_end_without_leeway() {
    let token = tokens().sign(&download()).unwrap();
    let at = |now| tokens().verify_at::<DownloadClaims>(token.as_bytes(), now);
    assert_eq!(at(END - 1), Ok(download()));
    assert_eq!(at(END), Err(TokenError::Expired));
    assert_eq!(at(END + 1), Err(TokenError::Expired));
}

#[test]
fn a_token_without_end_or_before_its_beginning_is_refused() {
    let verify = |key, value| tokens().verify::<DownloadClaims>(&download_with(key, value));
    for (key, value) in [
        ("exp", None),
        ("exp", Some("null")),
        ("exp", Some("\"x\"")),
        ("exp", Some("1e300")),
        ("iat", Some("\"x\"")),
    ] {
        match verify(key, value) {
            Err(TokenError::Claims(claims)) => assert!(claims.contains_key(key), "{claims:?}"),
            other => panic!("{key}={value:?}: {other:?}"),
        }
    }
    assert_eq!(verify("nbf", Some("99999999999")), Err(TokenError::NotYetValid("nbf")));
    assert_eq!(verify("iat", Some("99999999999.5")), Err(TokenError::NotYetValid("iat")));
    assert!(verify("iat", Some("1.5")).is_ok());
    assert!(verify("aud", Some("[\"someone\"]")).is_ok(), "other claims are ignored");
    assert_eq!(verify("exp", Some("4102444800.75")).map(|claims| claims.exp), Ok(END));
}

#[test]
fn each_wrong_claim_is_named() {
    for (key, value) in [
        ("op", "\"upload\""),
        ("op", "1"),
        ("volume", "\"\""),
        ("volume", "null"),
        ("vfid", "\"../..\""),
        ("relpath", "\"\""),
        ("relpath", "[\"a\"]"),
        ("unmanaged_path", "5"),
    ] {
        match tokens().verify::<DownloadClaims>(&download_with(key, Some(value))) {
            Err(TokenError::Claims(claims)) => assert_eq!(claims.keys().collect::<Vec<_>>(), [key]),
            other => panic!("{key}={value}: {other:?}"),
        }
    }
    for session in ["", "00112233445566778899AABBCCDDEEFF", "../../../../../../../etc/passwd00", "00"] {
        let mut named = upload();
        named.relpath = ByteText(b"f".to_vec());
        let mut claims = serde_json::to_value(named).unwrap();
        claims["session"] = session.into();
        let refusal = tokens().verify::<UploadClaims>(&signed(&claims.to_string()));
        assert!(matches!(refusal, Err(TokenError::Claims(_))), "{session}: {refusal:?}");
    }
    let mut none = archive();
    none.files.clear();
    assert!(matches!(
        tokens().verify::<ArchiveClaims>(tokens().sign(&none).unwrap().as_bytes()),
        Err(TokenError::Claims(_))
    ));
}

#[test]
fn the_length_limit_holds_for_both_directions() {
    let short = Tokens::new(SECRET, 200);
    assert_eq!(short.verify::<UploadClaims>(PY_UPLOAD.as_bytes()), Err(TokenError::TooLong(200)));
    assert_eq!(short.sign(&upload()), Err(TokenError::TooLong(200)));
    let mut long = download();
    long.relpath = ByteText(vec![0xff; 4096]);
    assert_eq!(tokens().sign(&long), Err(TokenError::TooLong(8192)));
}

#[test]
fn a_download_token_that_was_read_before_is_read_again_until_it_expires_and_no_other_passes_for_it() {
    let tokens = tokens();
    let token = tokens.sign(&download()).unwrap().into_bytes();
    for now in [END - 2, END - 1] {
        assert_eq!(tokens.verify_download_at(&token, now).as_deref(), Ok(&download()));
    }
    assert_eq!(tokens.verify_download_at(&token, END), Err(TokenError::Expired));
    let mut forged = token.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(tokens.verify_download_at(&forged, END - 1).is_err());
    assert!(tokens.downloads.get(&forged).is_none());
}

#[test]
fn fuzzed() {
    let good = [PY_UPLOAD, PY_DOWNLOAD, PY_ARCHIVE].map(|token| token.as_bytes().to_vec());
    let others = [PY_HS512, PY_NONE].map(|token| token.as_bytes().to_vec());
    let all: Vec<_> = good.iter().cloned().chain(others).collect();
    let claims: Vec<Vec<u8>> = spoil::corpus(env!("CARGO_MANIFEST_DIR"), "claims");
    let words: [&[u8]; 9] =
        [b".", b"=", b"eyJhbGciOiJub25lIn0", b"\"exp\":1e99", b"null", b"\"..\"", b"\\udcff", b"[]", b"-1"];
    let tokens = tokens();
    spoil::fuzz("token", |chance| {
        // Nobody without the key makes a token.
        let forged = chance.spoil(&all, &words);
        let accepted = tokens.verify::<UploadClaims>(&forged).is_ok()
            || tokens.verify::<DownloadClaims>(&forged).is_ok()
            || tokens.verify::<ArchiveClaims>(&forged).is_ok();
        assert!(!accepted || good.contains(&forged), "{:?}", String::from_utf8_lossy(&forged));
        // And what somebody with the key says is still judged.
        let token = signed(&String::from_utf8_lossy(&chance.spoil(&claims, &words)));
        let _ = tokens.verify::<UploadClaims>(&token);
        let _ = tokens.verify::<ArchiveClaims>(&token);
        if let Ok(claims) = tokens.verify::<DownloadClaims>(&token) {
            assert!(tokens.sign(&claims).is_ok_and(|again| tokens.verify(again.as_bytes()) == Ok(claims)));
        }
    });
}
