//! `GET /download-archive`, and archives of single directories: a ZIP stream made while it is sent.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use warp::Reply as _;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};

use super::disposition::attachment;

use super::query::Query;
use super::tokens::{coded_refusal, missing};
use crate::api::problem::{Problem, Reply};
use crate::app::App;
use crate::error::OpError;
use crate::fs::RelPath;
use crate::token::ArchiveClaims;
use crate::vfolder::archive::{ArchiveLimits, Content, write};
use crate::volume::Volume;

/// Bytes handed over at once between the archive's writer and the connection.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for a slow client.
const WAITING: usize = 2;

/// Several files and directories of one vfolder.
pub(super) async fn download(app: Arc<App>, query: Query) -> Result<Reply, Problem> {
    let claims: ArchiveClaims = app.tokens().verify(query.token()?).map_err(coded_refusal)?;
    let volume = app.volumes.real(&claims.volume)?;
    let id = claims.virtual_folder_id;
    if claims.files.len() > app.config().limits.archive_files {
        let most = app.config().limits.archive_files;
        return Err(Problem::invalid(format!("more than {most} files (limit limits.archive-files)")));
    }
    let paths: Result<Vec<RelPath>, Problem> = claims.files.iter().map(|file| relative(&file.0)).collect();
    let paths = paths?;
    let content = volume
        .run(move |volume| Content::selection(volume.vfolder(&id)?, paths))
        .await
        .map_err(|error: OpError| not_found(error.into()))?;
    let name = claims.filename.unwrap_or_else(|| "archive.zip".to_owned());
    reply(&app, content, Some(volume), name.as_bytes())
}

fn relative(path: &[u8]) -> Result<RelPath, Problem> {
    let shown = String::from_utf8_lossy(path);
    RelPath::parse(path)
        .map_err(|error| Problem::invalid(format!("Path escapes vfolder boundary: {shown} ({error})")))
}

/// A missing file has the same reply as in a single download.
fn not_found(problem: Problem) -> Problem {
    if problem.is_missing_file() { missing() } else { problem }
}

/// Streams an archive of what lies on a volume or elsewhere. The number of archives at once is bounded.
pub(super) fn reply(
    app: &App,
    content: Content,
    volume: Option<Arc<Volume>>,
    name: &[u8],
) -> Result<Reply, Problem> {
    let archives = volume.as_ref().map_or(&app.archives, |volume| volume.archives());
    let Ok(permit) = Arc::clone(archives).try_acquire_owned() else {
        return Err(OpError::Busy { what: "too many archives are being made", key: "limits.archives" }.into());
    };
    let limits = ArchiveLimits {
        entries: app.config().limits.archive_entries,
        depth: app.config().limits.archive_depth,
    };
    let pieces = spawn(content, limits, permit);
    let mut reply =
        warp::reply::stream(stream::unfold((pieces, volume), |(mut pieces, volume)| async move {
            let piece = match &volume {
                Some(volume) => volume.unless_hanging(pieces.recv()).await,
                None => Ok(pieces.recv().await),
            };
            piece
                .unwrap_or_else(|hangs| Some(Err(io::Error::other(hangs))))
                .map(|piece| (piece, (pieces, volume)))
        }))
        .into_response();
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    reply.headers_mut().insert(CONTENT_DISPOSITION, attachment(name));
    Ok(reply)
}

/// Makes the archive on a thread of its own. When the client goes away, the next piece has no taker and the
/// work ends.
fn spawn(
    content: Content,
    limits: ArchiveLimits,
    permit: OwnedSemaphorePermit,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut out = Pieces { open: Vec::new(), sender: sender.clone() };
    let writing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write(&content, limits, &mut out)
    });
    // The sender is held until the writer has ended: whatever ended it, a part never looks like the whole.
    tokio::spawn(async move {
        let outcome = writing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if let Err(error) = outcome {
            if !sender.is_closed() {
                tracing::warn!(%error, "an archive could not be finished; its connection is aborted");
            }
            drop(sender.send(Err(error)).await);
        }
    });
    receiver
}

struct Pieces {
    open: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.open);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.capacity() == 0 {
            self.open.reserve_exact(PIECE);
        }
        let (now, _) = bytes.split_at(bytes.len().min(PIECE - self.open.len()));
        self.open.extend_from_slice(now);
        if self.open.len() >= PIECE {
            self.send()?;
        }
        Ok(now.len())
    }

    /// Only the archive's end is worth a piece that is not full.
    fn flush(&mut self) -> io::Result<()> {
        if self.open.is_empty() { Ok(()) } else { self.send() }
    }
}
