//! The access log.

use std::io;
use std::sync::Mutex;

use storage_agent::listener::ACCESS_TARGET;
use tracing::subscriber::DefaultGuard;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Captures what this thread logs; the tests' runtime has no other.
    fn capture() -> (Lines, DefaultGuard) {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn all(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The one line about a request, once it is there.
    async fn access(&self) -> String {
        for _ in 0..100 {
            let all = self.all();
            let found: Vec<_> =
                all.lines().filter(|line| line.contains(&format!(" {ACCESS_TARGET}: "))).collect();
            if let [line] = found[..] {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not one access line in\n{}", self.all());
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_without_its_query() {
    let (lines, _guard) = Lines::capture();
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    let request = "POST /echo?token=SECRETTOKEN HTTP/1.1\r\nHost: a\r\nAuthorization: SECRETHEADER\r\n\
                   X-BackendAI-Storage-Auth-Token: SECRETHEADER\r\nUser-Agent: tusd\x1b[2J\"x\r\n\
                   X-Forwarded-For: 203.0.113.9\r\nX-Request-Id: r-1\r\nContent-Length: 4\r\n\r\nbody";
    // A control character in a header is refused by the parser; what it lets through is escaped.
    let reply = peer.ask(&request.replace('\x1b', "\u{e9}")).await;
    assert!(reply.ends_with("4 bytes"), "{reply}");
    let line = lines.access().await;
    for part in [
        r#"api="client""#,
        "method=POST",
        r#"path="/echo""#,
        "status=200",
        "bytes_in=4",
        "bytes_out=7",
        "ms=",
        r#"request_id="r-1""#,
        "peer=127.0.0.1:",
        r#"tusd\\xc3\\xa9[2J\\x22x"#,
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains("203.0.113.9"), "a stranger's word about addresses is not repeated: {line}");
    assert!(!lines.all().contains("SECRET"), "{}", lines.all());
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_the_address() {
    let (lines, _guard) = Lines::capture();
    let server = start_with(limits(), None, Arc::new(|address| address.is_loopback()));
    let mut peer = Peer::connect(&server).await;
    peer.ask("GET /hello HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").await;
    assert!(lines.access().await.contains(r#"forwarded_for="203.0.113.9""#));
}

#[tokio::test]
async fn the_line_comes_when_the_reply_is_over_and_says_if_it_was_broken_off() {
    let (lines, _guard) = Lines::capture();
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/large")).await;
    let mut piece = [0; 1000];
    peer.0.read_exact(&mut piece).await.unwrap();
    assert!(!lines.all().contains("path=\"/large\""), "{}", lines.all());
    drop(peer);
    let line = lines.access().await;
    assert!(line.contains("aborted=true") && line.contains("status=200"), "{line}");
}

#[tokio::test]
async fn a_complete_reply_is_not_called_aborted() {
    let (lines, _guard) = Lines::capture();
    let server = start(limits());
    let mut peer = Peer::connect(&server).await;
    peer.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let line = lines.access().await;
    assert!(!line.contains("aborted") && line.contains("bytes_out=0"), "{line}");
}
