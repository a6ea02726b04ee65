//! Markers: what arrives in their place, and that nothing else than the file's bytes ever does.

use std::fs::File;
use std::io::Write as _;

use http_body_util::BodyExt;
use storage_agent::api::body::{FileRange, OpenFile, file_reply};
use storage_agent::listener::{LONGEST_MARKER, ZeroCopy};

use super::*;

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| 1 + (number % 255) as u8).collect()
}

fn file() -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content()).unwrap();
    Arc::new(file)
}

fn whole() -> FileRange {
    FileRange { start: 0, length: content().len() as u64 }
}

/// A server whose one route may use the right to send without copying. Markers are the process's, and one test takes
/// them all: so there is one such server at a time.
struct Served {
    server: Server,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

async fn serve<F>(route: F) -> Served
where
    F: Fn(Option<ZeroCopy>) -> Reply + Clone + Send + Sync + 'static,
{
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURN.lock().await;
    let routes = warp::path("file").and(warp::ext::get::<Connection>());
    let routes = routes.map(move |connection: Connection| route(connection.zero_copy));
    Served { server: start_routes(limits(), None, Arc::new(|_| false), routes.boxed()), _turn: turn }
}

async fn bytes_of(served: &Served) -> Vec<u8> {
    let mut peer = Peer::connect(&served.server).await;
    peer.send("GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LONG, peer.0.read_to_end(&mut all)).await.expect("the connection did not end");
    all
}

fn body(reply: &[u8]) -> &[u8] {
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    &reply[end + 4..]
}

#[tokio::test]
async fn the_peer_gets_the_files_bytes_for_a_marker_that_holds_none() {
    let file = file();
    let server = serve(move |zero_copy| {
        let marker = zero_copy.unwrap().marker(&file, 10..1000, 0).unwrap();
        assert!(marker.len() == 990 && marker.iter().all(|byte| *byte == 0));
        Reply::new(marker.into())
    })
    .await;
    assert!(body(&bytes_of(&server).await) == &content()[10..1000]);
}

#[tokio::test]
async fn a_marker_may_be_divided() {
    let file = file();
    let server = serve(move |zero_copy| {
        let mut first = zero_copy.unwrap().marker(&file, 0..2_000_000, 1_000_000).unwrap();
        let rest = first.split_off(1_234_567);
        let parts = [first, Bytes::from_static(b"between"), rest];
        warp::reply::stream(futures_util::stream::iter(parts.map(Ok::<_, Infallible>))).into_response()
    })
    .await;
    let reply = bytes_of(&server).await;
    let (first, rest) = (&content()[..1_234_567], &content()[1_234_567..2_000_000]);
    let sizes = [first.len(), rest.len()].map(|size| format!("{size:X}\r\n").into_bytes());
    let chunks = [&sizes[0], first, b"\r\n7\r\nbetween\r\n", &sizes[1], rest, b"\r\n0\r\n\r\n"].concat();
    assert!(body(&reply) == chunks);
}

#[tokio::test]
async fn a_body_that_something_copies_breaks_the_connection_instead_of_being_zeros() {
    let file = file();
    let server = serve(move |zero_copy| {
        let reply = file_reply(OpenFile { file: Arc::clone(&file), volume: None }, whole(), zero_copy);
        let (head, body) = reply.into_parts();
        let copy = body.map_frame(|frame| frame.map_data(|data| Bytes::copy_from_slice(&data)));
        let stream =
            futures_util::StreamExt::filter_map(http_body_util::BodyStream::new(copy), |frame| async {
                frame.map(|frame| frame.into_data().ok()).transpose()
            });
        Reply::from_parts(head, warp::reply::stream(stream).into_response().into_body())
    })
    .await;
    let reply = bytes_of(&server).await;
    assert!(!reply.windows(2).any(|two| two == [0, 0]), "zeros were sent: {} bytes", reply.len());
}

#[tokio::test]
async fn parts_in_the_wrong_order_are_not_sent() {
    let file = file();
    let server = serve(move |zero_copy| {
        let mut first = zero_copy.unwrap().marker(&file, 0..2000, 0).unwrap();
        let rest = first.split_off(1000);
        warp::reply::stream(futures_util::stream::iter([Ok::<_, Infallible>(rest), Ok(first)]))
            .into_response()
    })
    .await;
    let reply = bytes_of(&server).await;
    assert!(!reply.ends_with(b"0\r\n\r\n") && reply.len() < 1000, "{} bytes", reply.len());
}

#[tokio::test]
async fn a_marker_of_another_connection_is_not_sent() {
    let (file, kept) = (file(), Arc::new(std::sync::Mutex::new(None)));
    let server = serve(move |zero_copy| {
        let mut kept = kept.lock().unwrap();
        match kept.take() {
            Some(marker) => Reply::new(Bytes::into(marker)),
            None => {
                *kept = zero_copy.unwrap().marker(&file, 0..1000, 0);
                Reply::default()
            }
        }
    })
    .await;
    assert!(bytes_of(&server).await.starts_with(b"HTTP/1.1 200"));
    let reply = bytes_of(&server).await;
    assert!(!reply.windows(4).any(|four| four == b"\r\n\r\n") || body(&reply).is_empty());
}

#[tokio::test]
async fn the_end_of_a_file_is_not_held_back() {
    const TIMES: u32 = 20;
    /// After so long the kernel sends what waits for a full packet (TCP_CORK, tcp(7)).
    const HELD_BACK: Duration = Duration::from_millis(200);
    let file = file();
    let server = serve(move |zero_copy| {
        file_reply(OpenFile { file: Arc::clone(&file), volume: None }, whole(), zero_copy)
    })
    .await;
    let mut peer = Peer::connect(&server.server).await;
    let (begin, length) = (std::time::Instant::now(), content().len());
    for _ in 0..TIMES {
        peer.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut reply = Vec::new();
        while reply.len() < length || body(&reply).len() < length {
            assert!(peer.0.read_buf(&mut reply).await.unwrap() > 0);
        }
    }
    assert!(begin.elapsed() < TIMES * HELD_BACK, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_range_that_is_too_long_has_no_marker() {
    let file = file();
    let server = serve(move |zero_copy| {
        let most = LONGEST_MARKER as u64;
        assert!(zero_copy.as_ref().unwrap().marker(&file, 0..most + 1, 0).is_none());
        Reply::new("none".into())
    })
    .await;
    assert_eq!(body(&bytes_of(&server).await), b"none");
}

#[tokio::test]
async fn more_readers_than_there_are_markers_get_the_files_bytes() {
    let file = file();
    let hoard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let server = serve(move |zero_copy| {
        let right = zero_copy.clone().unwrap();
        let mut hoard = hoard.lock().unwrap();
        while let Some(marker) = right.marker(&file, 0..1, 0) {
            hoard.push(marker);
        }
        file_reply(OpenFile { file: Arc::clone(&file), volume: None }, whole(), zero_copy)
    })
    .await;
    assert!(body(&bytes_of(&server).await) == content());
}
