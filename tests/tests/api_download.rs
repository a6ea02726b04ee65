//! Downloads of single files: ranges, conditions, names, cross-origin headers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use serde_json::json;
use storage_agent_tests::http::{Conn, Reply, Request};
use storage_agent_tests::problem;
use storage_agent_tests::site::{Dialect, Folder, Site};
use storage_agent_tests::table::Table;

fn content() -> Vec<u8> {
    (0..1000u32).map(|i| (i % 251) as u8).collect()
}

/// A file whose time is long ago, so that conditions on it can be trusted.
fn settled(folder: &Folder, name: &str) -> String {
    let path = folder.write(name, content());
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 500_000_000);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    format!("/download?token={}", folder.download_token(name))
}

/// The modification time rounded up to the second, as an IMF-fixdate.
const MODIFIED: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
const EARLIER: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const LATER: &str = "Tue, 14 Nov 2023 22:13:22 GMT";

#[test]
fn a_whole_file_has_all_headers_that_clients_need() {
    let site = Site::start();
    for dialect in [Dialect::Bare, Dialect::Scoped] {
        let folder = site.folder(dialect);
        let target = settled(&folder, "dir/data.bin");
        for method in ["GET", "HEAD"] {
            let reply = Request::new(method, &target).send(site.client).expect(200);
            for (name, value) in [
                ("Content-Type", "application/octet-stream"),
                ("Content-Length", "1000"),
                ("Accept-Ranges", "bytes"),
                ("Last-Modified", MODIFIED),
                ("Content-Disposition", "attachment;filename=\"data.bin\"; filename*=UTF-8''data.bin"),
            ] {
                assert_eq!(reply.header(name).as_deref(), Some(value), "{method} {name}");
            }
            let etag = reply.header("etag").unwrap();
            assert!(etag.starts_with('"') && etag.ends_with("-3e8\""), "nanoseconds and size in hex: {etag}");
            assert_eq!(reply.header("transfer-encoding"), None);
            assert_eq!(reply.header("content-encoding"), None);
            assert_eq!(reply.header("cache-control"), None);
            assert_eq!(reply.body, if method == "GET" { content() } else { Vec::new() });
        }
        let reply = site.get(&format!("{target}&no_cache=1"));
        assert_eq!(reply.header("cache-control").as_deref(), Some("no-store"));
        let empty = folder.write("empty", "");
        assert!(empty.exists());
        let reply = site.get(&format!("/download?token={}", folder.download_token("empty"))).expect(200);
        assert_eq!((reply.header("content-length").as_deref(), reply.body.len()), (Some("0"), 0));
    }
}

/// `200` for all of it, `206 first-last`, or `416`.
fn ranged(reply: &Reply, expected: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("{what}: {} {:?}", reply.status, reply.headers));
    match expected.split_once(' ') {
        None if expected == "200" => match reply.status == 200 && reply.body == content() {
            true => Ok("all".into()),
            false => wrong("not the whole file"),
        },
        None => {
            let told = reply.header("content-range").as_deref() == Some("bytes */1000");
            if reply.status == 416 && told && reply.body.len() < 1000 {
                Ok("416".into())
            } else {
                wrong("not 416")
            }
        }
        Some((_, range)) => {
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let told = reply.header("content-range") == Some(format!("bytes {first}-{last}/1000"));
            let length = reply.header("content-length") == Some((last + 1 - first).to_string());
            let right = reply.status == 206 && told && length && reply.body == content()[first..=last];
            if right { Ok(range.into()) } else { wrong("not that range") }
        }
    }
}

#[test]
fn ranges_are_answered_as_the_table_says() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = settled(&folder, "data");
    let mut table = Table::new("ranges of a file of 1,000 bytes");
    for (range, expected) in [
        ("bytes=0-9", "206 0-9"),
        ("bytes=0-0", "206 0-0"),
        ("bytes=990-", "206 990-999"),
        ("bytes=0-", "206 0-999"),
        ("bytes=-5", "206 995-999"),
        ("bytes=-5000", "206 0-999"),
        ("bytes=500-5000", "206 500-999"),
        ("bytes=999-999", "206 999-999"),
        ("bytes=5-18446744073709551615", "206 5-999"),
        ("bytes=1000-", "416"),
        ("bytes=5000-6000", "416"),
        ("bytes=9-5", "416"),
        ("bytes=-0", "416"),
        ("bytes=0-1,5-6", "416"),
        ("bytes=", "416"),
        ("bytes=a-b", "416"),
        ("bytes=--5", "416"),
        ("bytes=18446744073709551616-", "416"),
        ("bytes=-18446744073709551616", "206 0-999"),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = Request::new(method, &target).header("Range", range).send(site.client);
            let outcome = match method {
                "HEAD" if matches!(reply.status, 200 | 206 | 416) && reply.body.is_empty() => {
                    Ok(reply.status.to_string())
                }
                "HEAD" => Err(format!("{}", reply.status)),
                _ if range.contains("-18446744073709551616") && reply.status == 416 => ranged(&reply, "416"),
                _ => ranged(&reply, expected),
            };
            table.row(format!("{method} {range}"), outcome);
        }
    }
    for unit in ["items=0-9", "Bytes 0-9", "0-9"] {
        let reply = Request::new("GET", &target).header("Range", unit).send(site.client);
        let outcome = ranged(&reply, "200").or_else(|_| ranged(&reply, "416"));
        table.row(unit, outcome);
    }
    table.finish();
}

#[test]
fn conditions_are_answered_as_the_table_says() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = settled(&folder, "data");
    let etag = site.get(&target).header("etag").unwrap();
    let weak = format!("W/{etag}");
    let list = format!("\"other\", {etag}");
    let range = ("Range", "bytes=0-9");
    let mut table = Table::new("conditional requests");
    for (headers, status) in [
        (vec![range, ("If-Range", MODIFIED)], 206),
        (vec![range, ("If-Range", EARLIER)], 200),
        (vec![range, ("If-Range", &etag)], 206),
        (vec![range, ("If-Range", "\"other\"")], 200),
        (vec![range, ("If-Range", &weak)], 200),
        (vec![range, ("If-Range", "nonsense")], 200),
        (vec![("If-None-Match", &etag)], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", &list)], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", "\"other\"")], 200),
        (vec![("If-None-Match", "\"other\""), ("If-Modified-Since", LATER)], 200),
        (vec![("If-Modified-Since", MODIFIED)], 304),
        (vec![("If-Modified-Since", LATER)], 304),
        (vec![("If-Modified-Since", EARLIER)], 200),
        (vec![("If-Modified-Since", "nonsense")], 200),
        (vec![("If-Match", &etag)], 200),
        (vec![("If-Match", &list)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", &weak)], 412),
        (vec![("If-Match", "\"other\"")], 412),
        (vec![("If-Unmodified-Since", MODIFIED)], 200),
        (vec![("If-Unmodified-Since", EARLIER)], 412),
        (vec![("If-Match", &etag), range], 206),
        (vec![("If-None-Match", &etag), range], 304),
    ] {
        let reply = Request::new("GET", &target).headers(&headers).send(site.client);
        let right = reply.status == status
            && (status != 304 || (reply.body.is_empty() && reply.header("etag").as_ref() == Some(&etag)))
            && (status != 200 || reply.body == content())
            && (status != 206 || reply.body == content()[..10]);
        let seen = format!("{} {} bytes", reply.status, reply.body.len());
        table
            .row(format!("{headers:?}"), if right { Ok(seen) } else { Err(format!("{seen}, not {status}")) });
    }
    table.finish();
}

#[test]
fn a_resumed_download_never_mixes_two_files() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = settled(&folder, "data");
    let first = site.get(&target);
    let resume = |validator: &str| {
        Request::new("GET", &target)
            .header("Range", "bytes=500-")
            .header("If-Range", validator)
            .send(site.client)
    };
    let (date, etag) = (first.header("last-modified").unwrap(), first.header("etag").unwrap());
    assert_eq!((resume(&date).status, resume(&etag).status), (206, 206));
    // A change within the same second keeps the date; a fresh file's date can't be trusted.
    folder.write("data", vec![b'y'; 1000]);
    let fresh = site.get(&target).header("last-modified").unwrap();
    for validator in [&date, &etag, &fresh] {
        let reply = resume(validator);
        assert_eq!((reply.status, reply.body.len()), (200, 1000), "{validator}");
    }
}

#[test]
fn a_sibling_with_gz_is_never_sent_instead() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("data.gz", "compressed");
    folder.write("data.br", "compressed");
    let target = settled(&folder, "data");
    let reply = Request::new("GET", &target)
        .header("Accept-Encoding", "gzip, br, deflate")
        .send(site.client)
        .expect(200);
    assert_eq!((reply.header("content-encoding"), reply.body), (None, content()));
}

#[test]
fn hostile_names_cannot_split_the_header() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let mut table = Table::new("Content-Disposition");
    for (name, ascii, percent) in [
        (&b"plain.txt"[..], "plain.txt", "plain.txt"),
        (b"with blank.txt", "with blank.txt", "with%20blank.txt"),
        (b"quo\"te", "quo\\\"te", "quo%22te"),
        (b"back\\slash", "backslash", "back%5Cslash"),
        (b"cr\rlf\n\tX: y", "crlfX: y", "cr%0Dlf%0A%09X%3A%20y"),
        (b"\x7fdel\x1besc", "delesc", "%7Fdel%1Besc"),
        ("한글.txt".as_bytes(), ".txt", "%ED%95%9C%EA%B8%80.txt"),
        ("naïve".as_bytes(), "nave", "na%C3%AFve"),
        (b"bad\xffbyte", "badbyte", "bad%FFbyte"),
        (b"a%20b'c(d)*;=,", "a%20b'c(d)*;=,", "a%2520b%27c%28d%29%2A%3B%3D%2C"),
        (b"tilde~dash-dot._", "tilde~dash-dot._", "tilde~dash-dot._"),
    ] {
        fs::write(folder.path.join(OsStr::from_bytes(name)), "x").unwrap();
        folder.own();
        // Any byte that is no UTF-8 goes into the token as a lone surrogate, which needs the raw JSON.
        let text: String = name.utf8_chunks().fold(String::new(), |text, chunk| {
            let valid = serde_json::to_string(chunk.valid()).unwrap();
            let invalid: String = chunk.invalid().iter().map(|byte| format!("\\udc{byte:02x}")).collect();
            text + valid.trim_start_matches('"').strip_suffix('"').unwrap_or_default() + &invalid
        });
        let text = if name.contains(&b'"') { "quo\\\"te".to_owned() } else { text };
        let claims = format!(
            r#"{{"op":"download","volume":"local","vfid":"{}","relpath":"{text}","exp":{}}}"#,
            folder.vfid,
            storage_agent_tests::site::now() + 60
        );
        let secret = storage_agent_tests::settings::TOKEN_SECRET;
        let token = storage_agent_tests::jwt::from_parts(
            br#"{"alg":"HS256","typ":"JWT"}"#,
            claims.as_bytes(),
            secret,
        );
        let reply = site.get(&format!("/download?token={token}"));
        let expected = format!("attachment;filename=\"{ascii}\"; filename*=UTF-8''{percent}");
        let found =
            reply.header("content-disposition").unwrap_or(format!("{} {}", reply.status, reply.text()));
        let case = name.escape_ascii().to_string();
        table
            .row(case, if found == expected { Ok(found) } else { Err(format!("{found} is not {expected}")) });
    }
    table.finish();
}

#[test]
fn dst_dir_is_put_between_the_root_and_the_path() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    folder.write("sub/a b/file", "below");
    folder.write("file", "top");
    folder.link("inside", "sub");
    let token = folder.download_token("file");
    for (dst_dir, body) in
        [("", "top"), (".", "top"), ("sub%2Fa%20b", "below"), ("sub/a+b", "below"), ("inside/a%20b", "below")]
    {
        let reply = site.get(&format!("/download?token={token}&dst_dir={dst_dir}")).expect(200);
        assert_eq!(reply.text(), body, "dst_dir={dst_dir}");
    }
    problem::client(&site.get(&format!("/download?token={token}&dst_dir=none")), 404).unwrap();
}

#[test]
fn pages_of_other_origins_can_read_replies_and_errors() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = settled(&folder, "data");
    let origin = "https://webui.example.com";
    let missing = format!("/download?token={}", folder.download_token("none"));
    for (target, status) in [
        ("/", 200),
        (&target[..], 200),
        (&missing[..], 404),
        ("/download", 400),
        ("/download-archive?token=x", 400),
    ] {
        let reply = Request::new("GET", target).header("Origin", origin).send(site.client).expect(status);
        let allowed = reply.header("access-control-allow-origin").unwrap();
        assert!(allowed == origin || allowed == "*", "{target}: {allowed}");
        let exposed = reply.header("access-control-expose-headers").unwrap().to_lowercase();
        for name in [
            "content-disposition",
            "content-length",
            "content-range",
            "accept-ranges",
            "last-modified",
            "etag",
        ] {
            assert!(exposed.contains(name), "{target}: {name} in {exposed}");
        }
        if allowed == origin {
            assert!(reply.header("vary").unwrap_or_default().to_lowercase().contains("origin"), "{target}");
        }
        let plain = Request::new("GET", target).send(site.client);
        assert_eq!(
            plain.header("access-control-allow-origin"),
            None,
            "{target}: only when there is an origin"
        );
    }
    for path in ["/", "/download", "/download-archive"] {
        let ask = |method: Option<&str>| {
            let request = Request::new("OPTIONS", path)
                .header("Origin", origin)
                .header("Access-Control-Request-Headers", "x-one,range");
            method
                .map_or(request.clone(), |method| request.header("Access-Control-Request-Method", method))
                .send(site.client)
        };
        let preflight = ask(Some("GET"));
        assert!(matches!(preflight.status, 200 | 204) && preflight.body.is_empty(), "{path}");
        assert!(preflight.header("access-control-allow-methods").unwrap().contains("GET"));
        let allowed = preflight.header("access-control-allow-headers").unwrap().to_lowercase();
        assert!(allowed.contains("x-one") && allowed.contains("range"), "{path}: {allowed}");
        assert_eq!(ask(None).status, 403, "{path}: no method asked for");
        assert_eq!(ask(Some("DELETE")).status, 403, "{path}: a method that isn't offered");
    }
}

#[test]
fn many_requests_share_a_connection() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let target = settled(&folder, "data");
    let mut conn = Conn::open(site.client).unwrap();
    let range = Request::new("GET", &target).header("Range", "bytes=10-19");
    let wrong = Request::new("GET", "/download?token=x");
    let all = [
        Request::new("GET", &target).bytes(),
        wrong.bytes(),
        range.bytes(),
        Request::new("HEAD", &target).bytes(),
        Request::new("GET", "/none").bytes(),
        range.bytes(),
    ];
    conn.write(&all.concat()).unwrap();
    let statuses: Vec<(u16, usize)> = ["GET", "GET", "GET", "HEAD", "GET", "GET"]
        .iter()
        .map(|method| conn.reply_to(method).unwrap())
        .map(|reply| (reply.status, if reply.status < 300 { reply.body.len() } else { 0 }))
        .collect();
    assert_eq!(statuses, [(200, 1000), (400, 0), (206, 10), (200, 0), (404, 0), (206, 10)]);
}

#[test]
fn a_file_of_many_megabytes_arrives_whole_and_in_any_part() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let big: Vec<u8> = (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    folder.write("big", &big);
    let target = format!("/download?token={}", folder.download_token("big"));
    assert!(site.get(&target).expect(200).body == big);
    let mut conn = Conn::open(site.client).unwrap();
    for (first, last) in
        [(0usize, 0usize), (4_194_303, 4_194_305), (1, 8_999_999), (8_388_607, 8_999_998), (100, 5_000_000)]
    {
        let request = Request::new("GET", &target).header("Range", format!("bytes={first}-{last}"));
        let reply = conn.exchange(&request);
        assert!(reply.status == 206 && reply.body == big[first..=last], "{first}-{last}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection() {
    let site = Site::start();
    let folder = site.folder(Dialect::Scoped);
    let path = folder.write("big", "");
    fs::File::options().write(true).open(&path).unwrap().set_len(256 << 20).unwrap();
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&Request::new("GET", &format!("/download?token={}", folder.download_token("big"))).bytes())
        .unwrap();
    let head = conn.reply_head().unwrap();
    assert_eq!(head.header("content-length").unwrap(), (256 << 20).to_string());
    conn.read_exact(1 << 20).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    let rest = conn.read_exact(255 << 20);
    assert!(rest.is_err(), "a short file is never padded up to its announced length");
    site.get("/").expect(200);
}

#[test]
fn a_token_works_again_and_on_another_start_of_the_agent() {
    let mut site = Site::start();
    let target = settled(&site.folder(Dialect::Scoped), "data");
    site.get(&target).expect(200);
    site.kill();
    site.launch();
    site.get(&target).expect(200);
    assert_eq!(json!(site.get(&target).body.len()), json!(1000));
}
