//! What each request gets, whatever its route.

use super::*;

#[tokio::test]
async fn requests_follow_each_other_on_one_connection_also_pipelined() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    for _ in 0..3 {
        assert!(peer.ask(&get("/hello")).await.ends_with("hello"));
    }
    peer.send(
        &(get("/hello") + &get("/hello") + "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    )
    .await;
    assert_eq!(peer.rest().await.matches("hello").count(), 3);
}

#[tokio::test]
async fn a_reply_names_the_server_and_a_fresh_id() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    let (one, two) = (peer.ask(&get("/hello")).await, peer.ask(&get("/hello")).await);
    let id =
        |reply: &str| reply.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    assert_ne!(id(&one), id(&two));
    assert!(one.contains("\r\nserver: storage-agent\r\n"));
}

#[tokio::test]
async fn a_sane_id_is_kept_and_known_to_the_handler() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    let reply = peer.ask("GET /peer HTTP/1.1\r\nHost: a\r\nX-Request-Id: outer-17\r\n\r\n").await;
    assert!(reply.contains("x-request-id: outer-17\r\n") && reply.ends_with(" false outer-17"), "{reply}");
    let own = peer.0.local_addr().unwrap().to_string();
    assert!(reply.contains(&own), "{reply}");
}

#[tokio::test]
async fn a_panic_ends_its_request_only() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    let reply = peer.ask(&get("/panic")).await;
    assert!(reply.starts_with("HTTP/1.1 500 ") && reply.contains("application/problem+json"), "{reply}");
    assert!(!reply.contains("on purpose"), "what went wrong inside is for the log");
    assert!(peer.ask(&get("/hello")).await.ends_with("hello"));
    assert!(server.metrics.render().unwrap().contains("request_panics_total 1"));
}

#[tokio::test]
async fn a_panic_midway_through_a_reply_breaks_it_off() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/broken")).await;
    let reply = peer.rest().await;
    assert!(!reply.ends_with("0\r\n\r\n"), "the reply must not look complete: {reply}");
    assert!(Peer::connect(&server).await.ask(&get("/hello")).await.ends_with("hello"));
}

#[tokio::test]
async fn an_early_refusal_reaches_a_peer_that_is_still_sending() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await;
    // What the kernel's buffers take; the rest stays unsent, as with a client that hears the refusal.
    for _ in 0..100 {
        if timeout(Duration::from_millis(20), peer.0.write_all(&[0; 20_000])).await.is_err() {
            break;
        }
    }
    let reply = peer.rest().await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn a_peer_that_closed_its_sending_side_gets_its_reply() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/slow")).await;
    peer.0.shutdown().await.unwrap();
    let reply = peer.rest().await;
    assert_eq!(
        reply.matches('x').count() - reply.split("\r\n\r\n").next().unwrap().matches('x').count(),
        20 * 4096
    );
}

#[tokio::test]
async fn what_is_not_http_gets_400() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send("\x16\x03\x01 not http\r\n\r\n").await;
    assert!(peer.rest().await.starts_with("HTTP/1.1 400 "));
}
