//! How the service ends.

use storage_agent::listener::Stage;

use super::*;

#[tokio::test]
async fn a_transfer_in_progress_is_completed_and_then_the_service_ends() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/slow")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.advance(Stage::Draining);
    let reply = peer.rest().await;
    assert!(reply.ends_with("0\r\n\r\n"), "the reply is complete");
    drop(peer);
    timeout(LONG, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_end_at_once_and_no_new_ones_are_accepted() {
    let server = start(limits());
    let mut used = Peer::connect(&server).await;
    assert!(used.ask(&get("/hello")).await.ends_with("hello"));
    let mut fresh = Peer::connect(&server).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.advance(Stage::Draining);
    assert_eq!(used.rest().await, "");
    assert_eq!(fresh.rest().await, "");
    drop((used, fresh));
    timeout(Duration::from_secs(1), server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn an_upload_in_progress_is_received_to_its_end() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.advance(Stage::Draining);
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send("half").await;
    let reply = peer.rest().await;
    assert!(reply.ends_with("8 bytes") && reply.contains("connection: close"), "{reply}");
}

#[tokio::test]
async fn what_is_left_at_the_last_stage_is_broken_off() {
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/slow")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.advance(Stage::Draining);
    server.stop.advance(Stage::Aborting);
    timeout(Duration::from_millis(400), server.task).await.unwrap().unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = peer.0.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the reply must not look complete");
}
