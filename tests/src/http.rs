//! An HTTP/1.1 client that hides nothing: requests are bytes, replies are read as RFC 9112 frames them.
//!
//! Tests need requests that no ordinary client sends (two offsets, half a body, a body that lies about its
//! length) and want to see each header of the reply, so this is a socket and a parser, without a library.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a test waits for bytes that the server owes it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request before it becomes bytes.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    chunked: bool,
    framed: bool,
}

impl Request {
    /// A request without a body. `target` goes onto the request line as it is.
    pub fn new(method: &str, target: &str) -> Self {
        Request {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
            framed: false,
        }
    }

    /// Adds a header, also one that is there already.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Adds several headers.
    pub fn headers(self, headers: &[(&str, &str)]) -> Self {
        headers.iter().fold(self, |request, (name, value)| request.header(name, value))
    }

    /// Sets the body and announces its length, unless a header given earlier does so.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.framed = true;
        self
    }

    /// Sets the body and sends it in chunks of at most 64 KiB.
    pub fn chunked(mut self, body: impl AsRef<[u8]>) -> Self {
        self.chunked = true;
        self.body(body)
    }

    /// Sets a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// The request line and the headers, with the blank line after them.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let has = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        let mut line = |name: &str, value: &[u8]| {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        if !has("host") {
            line("Host", b"storage.example.com");
        }
        self.headers.iter().for_each(|(name, value)| line(name, value));
        if self.chunked {
            line("Transfer-Encoding", b"chunked");
        } else if self.framed && !has("content-length") {
            line("Content-Length", self.body.len().to_string().as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The whole request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.head();
        if self.chunked {
            for chunk in self.body.chunks(65536) {
                all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                all.extend_from_slice(chunk);
                all.extend_from_slice(b"\r\n");
            }
            all.extend_from_slice(b"0\r\n\r\n");
        } else {
            all.extend_from_slice(&self.body);
        }
        all
    }

    /// Sends it over a new connection and reads the reply.
    pub fn send(&self, server: SocketAddr) -> Reply {
        self.try_send(server).unwrap_or_else(|e| panic!("no reply to {} {}: {e}", self.method, self.target))
    }

    /// Sends it over a new connection. A server may answer and close before it has read everything, so a
    /// failed write counts only if no reply follows.
    pub fn try_send(&self, server: SocketAddr) -> io::Result<Reply> {
        let mut conn = Conn::open(server)?;
        let written = conn.write(&self.bytes());
        let reply = conn.reply_to(&self.method);
        if reply.is_err() { written.and(reply) } else { reply }
    }
}

/// A reply: what the server said, in order.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names and values as they came.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body with its framing removed.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing announced. Half a body is half a body.
    pub complete: bool,
}

impl Reply {
    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status, showing the reply if it is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected reply: {:?} {}", self.headers, self.text());
        self
    }
}

/// A connection that stays open until it is dropped.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Conn {
    /// Connects.
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Conn { stream, pending: Vec::new() })
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the sending half; the server sees the end of the stream.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Sends a request and reads the reply; the connection stays open.
    pub fn exchange(&mut self, request: &Request) -> Reply {
        self.write(&request.bytes()).unwrap();
        self.reply_to(&request.method).unwrap()
    }

    /// Reads the final reply to a request of this method, passing over interim ones.
    pub fn reply_to(&mut self, method: &str) -> io::Result<Reply> {
        loop {
            let mut reply = self.reply_head()?;
            if reply.status >= 200 {
                self.read_body(&mut reply, method)?;
                return Ok(reply);
            }
        }
    }

    /// Reads one status line and its headers: an interim reply, or the beginning of a final one.
    pub fn reply_head(&mut self) -> io::Result<Reply> {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed without a reply",
                ));
            }
        };
        let head: Vec<u8> = self.pending.drain(..end + 4).collect();
        parse_head(&head).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed reply head"))
    }

    /// Reads exactly this many bytes of a body, raw.
    pub fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.pending.drain(..count).collect())
    }

    /// Whether the server ends the connection before `within` passes, sending nothing more.
    pub fn is_closed(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let ended = match self.fill() {
            Ok(count) => count == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ended
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 65536];
        let count = self.stream.read(&mut buffer)?;
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn read_body(&mut self, reply: &mut Reply, method: &str) -> io::Result<()> {
        if method == "HEAD" || matches!(reply.status, 204 | 304) {
            return Ok(());
        }
        if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(reply);
        }
        let announced = reply.header("content-length").map(|value| value.parse::<usize>().unwrap());
        while announced.is_none_or(|length| self.pending.len() < length) {
            match self.fill() {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let length = announced.unwrap_or(self.pending.len());
        reply.complete = self.pending.len() >= length;
        reply.body = self.pending.drain(..length.min(self.pending.len())).collect();
        Ok(())
    }

    fn read_chunks(&mut self, reply: &mut Reply) -> io::Result<()> {
        while let Ok(line) = self.line() {
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("chunk size {line:?}")))?;
            let Ok(chunk) = self.read_exact(size) else { break };
            reply.body.extend_from_slice(&chunk);
            let Ok(_) = self.read_exact(2) else { break };
            if size == 0 {
                return Ok(());
            }
        }
        reply.complete = false;
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.read_exact(1)?);
        }
        Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
    }
}

fn parse_head(head: &[u8]) -> Option<Reply> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let status = first.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?.to_owned();
        headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
    }
    Some(Reply { status, headers, body: Vec::new(), complete: true })
}
