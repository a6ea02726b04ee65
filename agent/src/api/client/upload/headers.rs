//! Headers of tus 1.0 and of cross-origin requests to `/upload`.

use std::time::{Duration, UNIX_EPOCH};

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{HeaderMap, StatusCode};

use crate::api::client::query::wrong;
use crate::api::problem::{Problem, Reply};
use crate::vfolder::upload::{ALGORITHMS, Checksum};

const VERSION: &str = "1.0.0";
const BODY_TYPE: &str = "application/offset+octet-stream";

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

const HEADERS: &str = "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type";
const EXPOSED: &str = "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type, \
     Upload-Expires, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm";

/// The last second that an HTTP-date can name: 9999-12-31 23:59:59.
const LAST_DATE: u64 = 253_402_300_799;

/// What a PATCH says besides its body.
pub(super) struct Patch {
    /// Where the body begins.
    pub(super) offset: u64,
    /// The body's length, unless it is chunked.
    pub(super) length: Option<u64>,
    /// The body's sum.
    pub(super) checksum: Option<Checksum>,
}

impl Patch {
    /// Reads the headers and says what is wrong with one of them.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        check_body_type(headers)?;
        Ok(Patch { offset: offset(headers)?, length: length(headers), checksum: checksum(headers)? })
    }
}

/// Refuses another version of the protocol. Programs that do not name one are served.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(TUS_RESUMABLE) {
        Some(version) if version.as_bytes().trim_ascii() != VERSION.as_bytes() => {
            let problem = Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "storage/tus-version",
                "Unsupported tus version",
            )
            .msg(format!("Tus-Resumable: {version:?} is not supported; send {VERSION}"));
            Err(problem.header(TUS_VERSION, HeaderValue::from_static(VERSION)))
        }
        _ => Ok(()),
    }
}

fn check_body_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let media_type = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    if media_type.trim_ascii().eq_ignore_ascii_case(BODY_TYPE.as_bytes()) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "storage/invalid-api-params",
        "Unsupported Media Type",
    )
    .msg(format!("Content-Type: {given:?} is not possible here; send {BODY_TYPE} or none")))
}

fn offset(headers: &HeaderMap) -> Result<u64, Problem> {
    let mut given = headers.get_all(UPLOAD_OFFSET).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(wrong("Upload-Offset", "is required, once"));
    };
    // `u64::from_str` would take a plus sign.
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("Upload-Offset", &format!("is not a number of bytes: {value:?}")))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    let Some(value) = headers.get(UPLOAD_CHECKSUM) else { return Ok(None) };
    Checksum::parse(value.as_bytes())
        .map(Some)
        .map_err(|error| wrong("Upload-Checksum", &format!("{error} (got {value:?})")))
}

/// Lets pages of any origin read the reply, and says that it is tus. Every reply of `/upload` is given this.
pub(super) fn dress(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (ACCESS_CONTROL_ALLOW_METHODS, "*"),
        (CACHE_CONTROL, "no-store"),
        (TUS_RESUMABLE, VERSION),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    reply
}

/// Adds where the upload stands and when it ends (seconds since 1970).
pub(super) fn describe(mut reply: Reply, offset: Option<u64>, size: u64, expires: i64) -> Reply {
    let headers = reply.headers_mut();
    if let Some(offset) = offset {
        headers.insert(UPLOAD_OFFSET, offset.into());
    }
    headers.insert(UPLOAD_LENGTH, size.into());
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(expires).unwrap_or(0).min(LAST_DATE));
    if let Ok(end) = HeaderValue::from_str(&httpdate::fmt_http_date(end)) {
        headers.insert(UPLOAD_EXPIRES, end);
    }
    reply
}

/// Adds what the server can do; it answers a preflight request too.
pub(super) fn discover(mut reply: Reply, request: &HeaderMap, max_size: u64) -> Reply {
    let headers = reply.headers_mut();
    for (name, value) in [
        (TUS_VERSION, VERSION),
        (HeaderName::from_static("tus-extension"), "checksum,termination,expiration"),
        (HeaderName::from_static("tus-checksum-algorithm"), ALGORITHMS),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, HEAD, PATCH, DELETE, *"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(HeaderName::from_static("tus-max-size"), max_size.into());
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok());
    if let Some(allowed) = wanted.and_then(|names| HeaderValue::from_str(&format!("{HEADERS}, {names}")).ok())
    {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::testing::headers_of;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn the_offset_is_digits_and_given_once() {
        for (given, offset) in [("0", 0), ("00012", 12), ("18446744073709551615", u64::MAX)] {
            assert_eq!(Patch::read(&headers(&[("upload-offset", given)])).unwrap().offset, offset);
        }
        for given in
            ["", "+1", "-1", "1.0", "1e3", "0x10", "1,1", "18446744073709551616", "ten", "1 2", "\u{661}"]
        {
            let refused = Patch::read(&headers(&[("upload-offset", given)])).err().unwrap();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{given:?}");
            assert!(refused.body()["data"]["Upload-Offset"].is_string(), "{given:?}");
        }
        assert!(Patch::read(&headers(&[])).is_err());
        assert!(Patch::read(&headers(&[("upload-offset", "1"), ("upload-offset", "1")])).is_err());
    }

    #[test]
    fn the_body_type_and_version_may_be_absent_but_not_wrong() {
        let status = |name, value| {
            let all = headers(&[("upload-offset", "0"), (name, value)]);
            check_version(&all)
                .and_then(|()| Patch::read(&all).map(drop))
                .err()
                .map(|problem| problem.status().as_u16())
        };
        assert_eq!(status("content-type", "application/offset+octet-stream"), None);
        assert_eq!(status("content-type", "Application/Offset+Octet-Stream; charset=x"), None);
        assert_eq!(status("content-type", "application/octet-stream"), Some(415));
        assert_eq!(status("content-type", ""), Some(415));
        assert_eq!(status("tus-resumable", "1.0.0"), None);
        assert_eq!(status("tus-resumable", "0.2.2"), Some(412));
        assert_eq!(status("upload-checksum", "md5 AAAA"), Some(400));
        assert_eq!(status("upload-checksum", "sha1"), Some(400));
    }

    #[test]
    fn the_end_of_an_upload_can_be_any_number() {
        for (expires, text) in [
            (-5, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(describe(Reply::default(), None, 1, expires).headers()[UPLOAD_EXPIRES], text);
        }
    }

    #[test]
    fn fuzzed() {
        let words: [&[u8]; 9] = [
            b"Upload-Offset: ",
            b"Upload-Checksum: sha1 ",
            b"\n",
            b",",
            b"=",
            b"+1",
            b"18446744073709551616",
            b"1.0.0",
            b"\xff",
        ];
        spoil::target(env!("CARGO_MANIFEST_DIR"), "tus-headers", &words, |text| {
            let headers = headers_of(text);
            if check_version(&headers).is_ok() {
                let version = headers.get(TUS_RESUMABLE).map(|version| version.as_bytes().trim_ascii());
                assert!(version.is_none_or(|version| version == VERSION.as_bytes()));
            }
            if let Ok(patch) = Patch::read(&headers) {
                // What was understood is what was written, whatever zeros stood before it.
                let given = headers.get(UPLOAD_OFFSET).unwrap().to_str().unwrap().trim_start_matches('0');
                assert_eq!(given, patch.offset.to_string().trim_start_matches('0'));
                let reply = describe(Reply::default(), Some(patch.offset), u64::MAX, i64::MAX);
                assert!(reply.headers().contains_key(UPLOAD_OFFSET));
            }
            let _ = discover(dress(Reply::default()), &headers, u64::MAX);
        });
    }
}
