//! The bytes of a file as a reply's body.
//!
//! Two ways lead to the socket. Where the connection can do it, the body is made of markers, and the kernel sends the
//! file from its page cache ([`uncopied`]). Otherwise the file is read into buffers ([`buffers`]). Either way no async
//! worker waits for a disk, memory stays flat, and a body ends with an error, which aborts the connection, when the
//! file turns out shorter than announced or its volume hangs: never with other bytes.

mod buffers;
mod cache;
mod uncopied;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use warp::Reply as _;
use warp::http::header::{CONTENT_LENGTH, HeaderValue};

use super::problem::Reply;
use crate::listener::ZeroCopy;
use crate::volume::Volume;

/// Bytes of a file, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    /// The first byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// Up to this length, reading a cached file at once costs less than anything that would have to be set up.
const SHORT: usize = 32 * 1024;

/// An open file, and the volume that it lies on if it lies on one: its threads read, and it is waited for until it
/// hangs.
#[derive(Clone)]
pub struct OpenFile {
    /// The file.
    pub file: Arc<File>,
    /// The volume.
    pub volume: Option<Arc<Volume>>,
}

/// A reply with these bytes of the file as its body, and their number as `Content-Length`; uncopied where the
/// connection of the request gives the right to it.
pub fn file_reply(open: OpenFile, range: FileRange, zero_copy: Option<ZeroCopy>) -> Reply {
    let bytes = range.start..range.start.saturating_add(range.length);
    let mut reply = match (short(&open.file, range), zero_copy) {
        (Some(content), _) => Reply::new(content.into()),
        (None, Some(zero_copy)) => {
            warp::reply::stream(uncopied::parts(open, bytes, zero_copy)).into_response()
        }
        (None, None) => warp::reply::stream(buffers::chunks(open, bytes)).into_response(),
    };
    reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.length));
    reply
}

impl OpenFile {
    /// Works on the file on a thread of its volume.
    async fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = Arc::clone(&self.file);
        match &self.volume {
            Some(volume) => volume.spawn(move || work(&file)).await,
            None => spawn_blocking(move || work(&file)),
        }
    }

    /// Waits for something that the disk has a part in.
    async fn unless_hanging<T>(&self, event: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match &self.volume {
            Some(volume) => {
                volume.unless_hanging(event).await.unwrap_or_else(|hangs| Err(io::Error::other(hangs)))
            }
            None => event.await,
        }
    }
}

/// The whole of a short range, if it is in memory.
fn short(file: &File, range: FileRange) -> Option<Vec<u8>> {
    let length = usize::try_from(range.length).ok().filter(|length| *length <= SHORT)?;
    let mut content = vec![0; length];
    cache::read(file, range.start, &mut content).then_some(content)
}

/// Takes at most `most` bytes from the front of a range.
fn take(range: &mut Range<u64>, most: usize) -> Range<u64> {
    let front = range.start..range.end.min(range.start.saturating_add(most as u64));
    range.start = front.end;
    front
}
