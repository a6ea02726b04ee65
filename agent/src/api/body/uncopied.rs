//! A file as markers, for a connection that sends them without copying.
//!
//! A marker is given out when its part of the file is in the page cache. While it is being sent, the next part is
//! fetched from the disk if it is not there yet.

use std::io;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::task::JoinHandle;

use super::cache::{Place, fill, place};
use super::take;
use super::{OpenFile, buffers};
use crate::listener::{LONGEST_MARKER, ZeroCopy};

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// What is known of the next part.
enum Next {
    Unknown,
    Cached,
    /// It is on its way from the disk.
    Filling(JoinHandle<io::Result<()>>),
}

struct Parts {
    open: OpenFile,
    rest: Range<u64>,
    zero_copy: ZeroCopy,
    next: Next,
    /// Takes over where this way ends.
    copied: Option<Chunks>,
}

/// These bytes of the file, as markers as long as there is room for them and the file system can tell what is cached.
pub(super) fn parts(
    open: OpenFile,
    bytes: Range<u64>,
    zero_copy: ZeroCopy,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let parts = Parts { open, rest: bytes, zero_copy, next: Next::Unknown, copied: None };
    stream::unfold(parts, |mut parts| async move {
        let next = parts.next().await?;
        Some((next, parts))
    })
}

impl Parts {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(copied) = &mut self.copied {
            return copied.next().await;
        }
        if self.rest.is_empty() {
            return None;
        }
        if let Next::Unknown = self.next {
            match place(&self.open.file, &self.front()) {
                Place::Cached => {}
                Place::OnDisk => self.next = self.fill(),
                Place::Unknown => return self.copy().await,
            }
        }
        if let Next::Filling(filling) = std::mem::replace(&mut self.next, Next::Unknown)
            && let Err(error) = self.open.unless_hanging(filled(filling)).await
        {
            return Some(Err(error));
        }
        let mut rest = self.rest.clone();
        let part = take(&mut rest, LONGEST_MARKER);
        let Some(marker) = self.zero_copy.marker(&self.open.file, part, rest.end - rest.start) else {
            return self.copy().await;
        };
        self.rest = rest;
        if !self.rest.is_empty() {
            self.next = match place(&self.open.file, &self.front()) {
                Place::Cached => Next::Cached,
                Place::OnDisk => self.fill(),
                Place::Unknown => Next::Unknown,
            };
        }
        Some(Ok(marker))
    }

    fn front(&self) -> Range<u64> {
        take(&mut self.rest.clone(), LONGEST_MARKER)
    }

    fn fill(&self) -> Next {
        let (open, part) = (self.open.clone(), self.front());
        let fill = async move { open.spawn(move |file| fill(file, part)).await.await };
        Next::Filling(tokio::spawn(fill.map(|outcome| outcome.unwrap_or_else(|_| Err(other())))))
    }

    async fn copy(&mut self) -> Option<io::Result<Bytes>> {
        let rest = std::mem::replace(&mut self.rest, 0..0);
        let chunks: Chunks = Box::pin(buffers::chunks(self.open.clone(), rest));
        self.copied.insert(chunks).next().await
    }
}

async fn filled(filling: JoinHandle<io::Result<()>>) -> io::Result<()> {
    filling.await.unwrap_or_else(|_| Err(other()))
}

fn other() -> io::Error {
    io::ErrorKind::Other.into()
}
