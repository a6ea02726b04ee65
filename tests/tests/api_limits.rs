//! What a peer may use up before it is refused: headers, time, connections.

use std::time::{Duration, Instant};

use storage_agent_tests::http::{Conn, Reply, Request};
use storage_agent_tests::site::{Dialect, Site};

#[test]
fn headers_that_are_too_large_or_too_many_are_refused() {
    let site = Site::start();
    let large = Request::new("GET", "/").header("X-Large", "x".repeat(64 << 10));
    let many = (0..200).fold(Request::new("GET", "/"), |request, i| request.header(&format!("X-{i}"), "x"));
    let long = Request::new("GET", &format!("/?x={}", "x".repeat(100 << 10)));
    for (what, request, allowed) in
        [("large", large, &[431][..]), ("many", many, &[431]), ("long URL", long, &[414, 431])]
    {
        for api in [site.client, site.manager] {
            let reply = request.try_send(api).unwrap_or_else(|e| panic!("{what}: no reply: {e}"));
            assert!(allowed.contains(&reply.status), "{what}: {}", reply.status);
        }
    }
    let fits = Request::new("GET", "/").header("X-Fits", "x".repeat(12 << 10));
    fits.send(site.client).expect(200);
}

#[test]
fn requests_that_are_no_http_end_the_connection() {
    let site = Site::start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for api in [site.client, site.manager] {
            let mut conn = Conn::open(api).unwrap();
            conn.write(bytes).unwrap();
            let first: std::io::Result<Reply> = conn.reply_to("GET");
            let refused = first.as_ref().map_or(true, |reply| reply.status >= 400);
            assert!(refused, "{}: {first:?}", bytes.escape_ascii());
        }
    }
    site.get("/").expect(200);
}

#[test]
fn both_lengths_at_once_never_smuggle_a_request() {
    let site = Site::start();
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let first = conn.reply_to("POST").unwrap();
    assert!(first.status >= 400);
    // RFC 9112 section 6.1: either refuse it, or take the chunks and close.
    if let Ok(second) = conn.reply_to("GET") {
        assert_eq!(second.json()["type"], "client-facing");
    }
}

#[test]
fn a_peer_that_sends_no_header_is_dropped() {
    let site = Site::with(|settings| {
        settings.set("limits", "header-timeout", "\"1s\"");
    });
    for api in [site.client, site.manager] {
        for bytes in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let begin = Instant::now();
            let mut conn = Conn::open(api).unwrap();
            conn.write(bytes).unwrap();
            let _reply: std::io::Result<Reply> = conn.reply_to("GET");
            assert!(begin.elapsed() < Duration::from_secs(5), "{bytes:?} holds a connection");
        }
    }
}

#[test]
fn a_body_that_stops_arriving_frees_its_session() {
    let site = Site::with(|settings| {
        settings.set("limits", "body-idle-timeout", "\"1s\"");
    });
    let folder = site.folder(Dialect::Scoped);
    let target = format!("/upload?token={}", folder.upload_token("up.bin", 10));
    let request = Request::new("PATCH", &target).header("Upload-Offset", "0").body("0123456789");
    let mut conn = Conn::open(site.client).unwrap();
    conn.write(&request.head()).unwrap();
    conn.write(b"01234").unwrap();
    let begin = Instant::now();
    let reply: std::io::Result<Reply> = conn.reply_to("PATCH");
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status >= 400));
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let head = Request::new("HEAD", &target).send(site.client).expect(200);
    assert_eq!(head.header("upload-offset").as_deref(), Some("5"), "what arrived is kept");
}

#[test]
fn one_peer_gets_no_more_connections_than_its_share() {
    let site = Site::with(|settings| {
        settings.set("limits", "connections-per-peer", "4").set("limits", "trusted-proxies", "[]");
    });
    let served = |conn: &mut Conn| {
        conn.write(&Request::new("GET", "/").bytes()).is_ok()
            && conn.reply_to("GET").is_ok_and(|reply| reply.status == 200)
    };
    std::thread::sleep(Duration::from_millis(200));
    let mut open: Vec<Conn> = (0..4).map(|_| Conn::open(site.client).unwrap()).collect();
    assert!(open.iter_mut().all(served));
    assert!(!served(&mut Conn::open(site.client).unwrap()), "the fifth is refused");
    open.pop();
    std::thread::sleep(Duration::from_millis(200));
    assert!(served(&mut Conn::open(site.client).unwrap()), "its place can be taken");
}

#[test]
fn idle_connections_do_not_slow_others_down() {
    let site = Site::start();
    let idle: Vec<Conn> = (0..200)
        .map(|_| {
            let mut conn = Conn::open(site.client).unwrap();
            conn.write(b"GET / HTTP/1.1\r\nX-Slow").unwrap();
            conn
        })
        .collect();
    let begin = Instant::now();
    (0..100).for_each(|_| drop(site.get("/").expect(200)));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?} beside {} idle peers",
        begin.elapsed(),
        idle.len()
    );
}
