//! Time limits, sizes and counts.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::*;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_head_that_does_not_end_in_time_gets_408_and_the_connection_ends() {
    let server = start(Limits { header_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    let begun = Instant::now();
    peer.send("GET /hello HTTP/1.1\r\nHost: a\r\nX-Slow").await;
    let mut dribble = 0;
    let reply = loop {
        match timeout(Duration::from_millis(40), peer.rest()).await {
            Ok(reply) => break reply,
            Err(_) => peer.send("w").await,
        }
        dribble += 1;
        assert!(dribble < 50, "dribbling keeps the connection alive");
    };
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_peer_that_sends_nothing_is_closed_in_time() {
    let server = start(Limits { header_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    assert!(peer.rest().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn between_requests_a_connection_may_rest_longer_than_a_head_may_take() {
    let server = start(Limits { header_timeout: SHORT, keep_alive_timeout: 4 * SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    assert!(peer.ask(&get("/hello")).await.ends_with("hello"));
    sleep(2 * SHORT).await;
    assert!(peer.ask(&get("/hello")).await.ends_with("hello"));
    assert_eq!(peer.rest().await, "", "an idle connection ends without a reply");
}

#[tokio::test]
async fn the_head_of_a_later_request_has_the_same_time_limit() {
    let server = start(Limits { header_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    assert!(peer.ask(&get("/hello")).await.ends_with("hello"));
    peer.send("GET /he").await;
    assert!(peer.rest().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_gets_431() {
    let server = start(limits());
    let large = format!("GET /hello HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(16 << 10));
    let many = format!("GET /hello HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    for request in [large, many] {
        let mut peer = Peer::connect(&server).await;
        peer.send(&request).await;
        assert!(peer.reply().await.starts_with("HTTP/1.1 431 "));
    }
    let mut peer = Peer::connect(&server).await;
    assert!(peer.ask(&get(&format!("/hello?{}", "x".repeat(4 << 10)))).await.starts_with("HTTP/1.1 414 "));
    let most = format!("GET /hello HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert!(Peer::connect(&server).await.ask(&most).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_connection_too_many_gets_503_and_a_time_to_come_back() {
    let server = start(Limits { connections: 2, ..limits() });
    let mut first = Peer::connect(&server).await;
    assert!(first.ask(&get("/hello")).await.ends_with("hello"));
    let _second = Peer::connect(&server).await;
    let mut third = Peer::connect(&server).await;
    let refusal = third.rest().await;
    assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("\r\nRetry-After: 5\r\n"), "{refusal}");
    assert!(server.metrics.render().unwrap().contains(r#"connections_refused_total{api="client"} 1"#));
    assert!(first.ask(&get("/hello")).await.ends_with("hello"), "those who are in stay in");
    drop(first);
    sleep(SHORT).await;
    assert!(Peer::connect(&server).await.ask(&get("/hello")).await.ends_with("hello"));
}

#[tokio::test]
async fn one_peer_has_its_share_and_a_trusted_proxy_has_none() {
    for trusted in [false, true] {
        let limits = Limits { connections_per_peer: 1, ..limits() };
        let server = start_with(limits, None, Arc::new(move |_| trusted));
        let mut first = Peer::connect(&server).await;
        assert!(first.ask(&get("/hello")).await.ends_with("hello"));
        let mut second = Peer::connect(&server).await;
        second.send(&get("/hello")).await;
        let reply = second.rest_or_reply().await;
        assert_eq!(reply.starts_with("HTTP/1.1 503 "), !trusted, "{reply}");
    }
}

#[tokio::test]
async fn a_body_that_stops_arriving_gets_408() {
    let server = start(Limits { body_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    peer.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    let reply = peer.rest().await;
    assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains("connection: close"), "{reply}");
}

#[tokio::test]
async fn a_body_that_arrives_slowly_but_steadily_is_read() {
    let server = start(Limits { body_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    peer.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        sleep(SHORT / 3).await;
        peer.send("x").await;
    }
    assert!(peer.reply().await.ends_with("8 bytes"));
}

#[tokio::test]
async fn a_body_that_stops_after_the_reply_has_begun_breaks_the_connection_off() {
    let server = start(Limits { body_timeout: SHORT, ..limits() });
    let mut peer = Peer::connect(&server).await;
    peer.send("POST /mirror HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    let reply = peer.rest().await;
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("half"), "{reply}");
    assert!(!reply.ends_with("0\r\n\r\n"), "the reply must not look complete");
}

#[tokio::test]
async fn a_peer_that_takes_no_data_loses_its_connection() {
    let server = start(Limits { write_timeout: SHORT, connections: 1, ..limits() });
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/large")).await;
    let begun = Instant::now();
    loop {
        sleep(SHORT).await;
        let mut next = Peer::connect(&server).await;
        next.send(&get("/hello")).await;
        if next.rest_or_reply().await.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(begun.elapsed() < LONG, "the stuck connection still holds its place");
    }
}
