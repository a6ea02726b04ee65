//! A file read into buffers: at once while it is in the page cache, and one chunk ahead of the connection, on the
//! blocking pool, from where it is not.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::task::JoinHandle;

use super::{OpenFile, cache, take};

/// Bytes per read: large enough that the hop between threads costs little.
pub(super) const CHUNK: usize = 256 * 1024;

/// Buffers that are kept for reuse; more may exist while many downloads run.
const KEPT: usize = 64;

type Chunk = io::Result<Bytes>;

struct Reader {
    open: OpenFile,
    rest: Range<u64>,
    ahead: Option<JoinHandle<Chunk>>,
}

impl Reader {
    async fn next(&mut self) -> Option<Chunk> {
        if self.ahead.is_none() {
            let chunk = self.take()?;
            if let Some(bytes) = read_cached(&self.open.file, &chunk) {
                return Some(Ok(bytes));
            }
            self.rest.start = chunk.start;
        }
        let open = self.open.clone();
        Some(open.unless_hanging(self.read()).await)
    }

    /// The next chunk from the disk; the one after it is being read when this one is there.
    async fn read(&mut self) -> Chunk {
        if self.ahead.is_none() {
            self.advance().await;
        }
        let Some(ahead) = self.ahead.take() else { return Ok(Bytes::new()) };
        let chunk = ahead.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        self.advance().await;
        Ok(chunk)
    }

    /// Begins to read the next chunk, if there is one.
    async fn advance(&mut self) {
        if let Some(chunk) = self.take() {
            self.ahead = Some(self.open.spawn(move |file| read(file, &chunk)).await);
        }
    }

    fn take(&mut self) -> Option<Range<u64>> {
        (!self.rest.is_empty()).then(|| take(&mut self.rest, CHUNK))
    }
}

/// These bytes of the file.
pub(super) fn chunks(open: OpenFile, bytes: Range<u64>) -> impl Stream<Item = Chunk> + Send + Sync + 'static {
    let reader = Reader { open, rest: bytes, ahead: None };
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|chunk| (chunk, reader)) })
}

fn read(file: &File, chunk: &Range<u64>) -> Chunk {
    let mut buffer = Buffer::take((chunk.end - chunk.start) as usize);
    buffer.read(file, chunk.start)?;
    Ok(Bytes::from_owner(buffer))
}

/// A chunk without waiting for it, if all of it is in the page cache.
fn read_cached(file: &File, chunk: &Range<u64>) -> Option<Bytes> {
    let mut buffer = Buffer::take((chunk.end - chunk.start) as usize);
    cache::read(file, chunk.start, buffer.filled()).then(|| Bytes::from_owner(buffer))
}

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer that goes back to the pool when the connection is done with it.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// A buffer of this length, at most [`CHUNK`].
    pub(super) fn take(length: usize) -> Self {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: pooled.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice()),
            length: length.min(CHUNK),
        }
    }

    fn filled(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }

    /// Fills it from this place of the file.
    pub(super) fn read(&mut self, file: &File, start: u64) -> io::Result<()> {
        file.read_exact_at(self.filled(), start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), "the file became shorter while it was sent")
            }
            _ => error,
        })
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
    use std::sync::Arc;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    async fn collect(file: Arc<File>, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut chunks = Box::pin(chunks(OpenFile { file, volume: None }, start..start + length));
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
