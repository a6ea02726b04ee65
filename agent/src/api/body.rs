//! The bytes of a file as a reply's body.
//!
//! The file is read on the blocking pool into pooled buffers, one ahead of the connection, so that neither a
//! slow disk nor a slow client holds an async worker and memory stays flat. A body ends with an error, which
//! aborts the connection, when the file turns out shorter than announced: never with other bytes.
//!
//! Everything that sends a file calls [`file_reply`]; a body that only names the range, for the listener to
//! send without copying, has its place here too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::task::JoinHandle;
use warp::Reply as _;
use warp::http::header::{CONTENT_LENGTH, HeaderValue};

use super::problem::Reply;

/// Bytes per read: large enough that the hop between threads costs little.
const CHUNK: usize = 256 * 1024;

/// Buffers that are kept for reuse; more may exist while many downloads run.
const KEPT: usize = 64;

/// Bytes of a file, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    /// The first byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// A reply with these bytes of the file as its body, and their number as `Content-Length`.
pub fn file_reply(file: Arc<File>, range: FileRange) -> Reply {
    let mut reply = match range.length {
        0 => Reply::default(),
        _ => warp::reply::stream(chunks(file, range)).into_response(),
    };
    reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.length));
    reply
}

struct Reader {
    file: Arc<File>,
    next: u64,
    end: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    /// Begins to read the next chunk, if there is one.
    fn advance(&mut self) {
        let length = (self.end - self.next).min(CHUNK as u64);
        if length == 0 {
            return;
        }
        let (file, start) = (Arc::clone(&self.file), self.next);
        self.next += length;
        self.ahead = Some(tokio::task::spawn_blocking(move || read(&file, start, length as usize)));
    }
}

fn chunks(
    file: Arc<File>,
    range: FileRange,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let end = range.start.saturating_add(range.length);
    let mut reader = Reader { file, next: range.start, end, ahead: None };
    reader.advance();
    stream::unfold(reader, |mut reader| async move {
        let chunk = reader.ahead.take()?.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        if chunk.is_ok() {
            reader.advance();
        }
        Some((chunk, reader))
    })
}

fn read(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::take(length);
    file.read_exact_at(buffer.filled(), start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the file became shorter while it was sent")
        }
        _ => error,
    })?;
    Ok(Bytes::from_owner(buffer))
}

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer that goes back to the pool when the connection is done with it.
struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    fn take(length: usize) -> Self {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: pooled.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice()),
            length: length.min(CHUNK),
        }
    }

    fn filled(&mut self) -> &mut [u8] {
        let length = self.length;
        self.bytes.get_mut(..length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    async fn collect(file: Arc<File>, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut chunks = Box::pin(chunks(file, FileRange { start, length }));
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn every_range_gives_exactly_its_bytes() {
        let content: Vec<u8> = (0..3 * CHUNK + 17).map(|n| (n % 251) as u8).collect();
        let file = file(&content);
        for (start, length) in
            [(0, content.len()), (1, CHUNK), (CHUNK - 1, 2), (content.len() - 1, 1), (5, 2 * CHUNK + 3)]
        {
            let read = collect(Arc::clone(&file), start as u64, length as u64).await.unwrap();
            assert!(read == content[start..start + length], "{start}+{length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_shrank_ends_in_an_error() {
        let file = file(&vec![7; 2 * CHUNK]);
        file.set_len(CHUNK as u64 + 5).unwrap();
        let error = collect(file, 0, 2 * CHUNK as u64).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
