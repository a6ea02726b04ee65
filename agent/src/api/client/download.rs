//! `GET` and `HEAD /download`: a file, in ranges where asked for, or a directory as an archive.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use warp::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderValue, LAST_MODIFIED, RANGE,
};
use warp::http::{HeaderMap, Method, StatusCode};

use super::conditional::{Validators, Verdict};
use super::disposition::attachment;
use super::query::Query;
use super::range::{Asked, parse};
use super::tokens::{missing, refusal};
use super::{accel, archive};
use crate::api::body::{FileRange, OpenFile, file_reply};
use crate::api::problem::{Problem, Reply};
use crate::api::routes::empty_reply;
use crate::app::App;
use crate::error::OpError;
use crate::fs::{Dir, RelPath, Stat, is_not_regular};
use crate::jobs::blocking;
use crate::listener::{Connection, ZeroCopy};
use crate::token::DownloadClaims;
use crate::vfolder::archive::Content;
use crate::volume::{Volume, VolumeRef};

/// What a path turned out to be.
enum Found {
    File(fs::File, Stat),
    Directory(Dir),
    /// A FIFO, socket or device.
    Other,
}

/// Answers both methods.
pub(super) async fn download(
    app: Arc<App>,
    method: Method,
    headers: HeaderMap,
    connection: Option<Connection>,
    query: Query,
) -> Result<Reply, Problem> {
    let claims = app.tokens().verify_download(query.token()?).map_err(refusal)?;
    let (wants_archive, no_cache) = (query.flag("archive")?, query.flag("no_cache")?);
    let path = path(query.get("dst_dir"), &claims.relpath.0).map_err(|_| missing())?;
    let name = path
        .names()
        .last()
        .map_or_else(|| claims.vfid.dir_names()[2].clone().into(), |n| n.as_bytes().to_vec());
    let (found, volume) = find(&app, &claims, &path).await?;
    let mut reply = match found {
        Found::File(file, stat) => {
            let elsewhere = accel::location(&app, connection.as_ref(), &headers);
            if let Some(reply) = accel::redirect(elsewhere, volume.as_ref(), &claims, &path).await {
                described(reply, &name)
            } else {
                let zero_copy = connection.and_then(|connection| connection.zero_copy);
                let zero_copy = zero_copy.filter(|_| app.config().download.zero_copy);
                let file = File { open: OpenFile { file: Arc::new(file), volume }, zero_copy };
                send_file(file, &stat, &method, &headers, &name)
            }
        }
        Found::Directory(dir) if wants_archive => {
            if method == Method::HEAD {
                archive_head(&name)
            } else {
                archive::reply(&app, Content::Tree(dir), volume, &zip_name(&name))?
            }
        }
        Found::Directory(_) | Found::Other => {
            return Err(Problem::invalid("The file is not a regular file."));
        }
    };
    if no_cache {
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(reply)
}

/// `dst_dir`, despite its name, comes between the vfolder's root and the token's path.
fn path(dst_dir: Option<&[u8]>, relpath: &[u8]) -> Result<RelPath, crate::fs::PathError> {
    RelPath::parse(dst_dir.unwrap_or_default())?.join(&RelPath::parse(relpath)?)
}

/// Opens what the token names, and tells the volume that it lies on, if it lies on one. What is missing and what lies
/// outside look the same to a client.
async fn find(
    app: &Arc<App>,
    claims: &DownloadClaims,
    path: &RelPath,
) -> Result<(Found, Option<Arc<Volume>>), Problem> {
    let (volume, id) = (app.volumes.get(&claims.volume)?, claims.vfid);
    if claims.unmanaged_path.is_none()
        && let VolumeRef::Real(volume) = &volume
        && let Some((file, stat)) = volume.open_cached(&id, path)
    {
        return Ok((Found::File(file, stat), Some(Arc::clone(volume))));
    }
    let path = path.clone();
    let opened = match (unmanaged(app, claims.unmanaged_path.clone()).await?, volume) {
        (Some(root), _) => {
            let open_root = move || Dir::open_root(&root).map_err(|e| OpError::fs(e, &RelPath::root()));
            blocking(move || open(&open_root()?, &path)).await.map(|found| (found, None))
        }
        (None, VolumeRef::Real(volume)) => {
            let opened = volume.run(move |volume| open(&volume.vfolder(&id)?, &path)).await;
            opened.map(|found| (found, Some(volume)))
        }
        (None, VolumeRef::Noop) => Err(OpError::VfolderNotFound(id)),
    };
    opened.map_err(Problem::from).map_err(|problem| match problem.status() {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => missing(),
        _ => problem,
    })
}

fn open(folder: &Dir, path: &RelPath) -> Result<Found, OpError> {
    match folder.open_file(path) {
        Ok((file, stat)) => Ok(Found::File(file, stat)),
        Err(error) if is_not_regular(&error) => Ok(Found::Other),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            folder.open_dir(path).map(Found::Directory).map_err(|e| OpError::fs(e, path))
        }
        Err(error) => Err(OpError::fs(error, path)),
    }
}

/// A directory of the host that a token names instead of the vfolder: only below a root that the operator listed.
async fn unmanaged(app: &Arc<App>, path: Option<String>) -> Result<Option<PathBuf>, OpError> {
    let (app, Some(path)) = (Arc::clone(app), path) else { return Ok(None) };
    let resolve = move || {
        let resolved = fs::canonicalize(Path::new(&path)).ok()?;
        let config = app.config();
        let allowed = &config.download.unmanaged_roots;
        allowed.iter().any(|root| resolved.starts_with(root)).then_some(resolved)
    };
    blocking(move || Ok(resolve())).await
}

/// An open file and the way that it can take to the client.
struct File {
    open: OpenFile,
    zero_copy: Option<ZeroCopy>,
}

impl File {
    fn reply(self, range: FileRange) -> Reply {
        file_reply(self.open, range, self.zero_copy)
    }
}

fn send_file(file: File, stat: &Stat, method: &Method, headers: &HeaderMap, name: &[u8]) -> Reply {
    let validators = Validators::of(stat, SystemTime::now());
    let whole = FileRange { start: 0, length: stat.size };
    let mut reply = match validators.judge(headers) {
        Verdict::NotModified => empty_reply(StatusCode::NOT_MODIFIED),
        Verdict::Failed => empty_reply(StatusCode::PRECONDITION_FAILED),
        Verdict::Proceed if method == Method::HEAD => {
            let mut reply = Reply::default();
            reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(stat.size));
            reply
        }
        Verdict::Proceed => match asked(headers, &validators, stat.size) {
            Asked::Everything => file.reply(whole),
            Asked::Part(range) => part(file, range, stat.size),
            Asked::Unsatisfiable => {
                let mut reply = empty_reply(StatusCode::RANGE_NOT_SATISFIABLE);
                insert(&mut reply, CONTENT_RANGE, &format!("bytes */{}", stat.size));
                reply
            }
        },
    };
    insert(&mut reply, ETAG, &validators.etag);
    insert(&mut reply, LAST_MODIFIED, &validators.last_modified());
    reply.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    described(reply, name)
}

fn described(mut reply: Reply, name: &[u8]) -> Reply {
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    reply.headers_mut().insert(CONTENT_DISPOSITION, attachment(name));
    reply
}

fn asked(headers: &HeaderMap, validators: &Validators, size: u64) -> Asked {
    match headers.get(RANGE) {
        Some(value) if validators.range_applies(headers) => parse(value.as_bytes(), size),
        _ => Asked::Everything,
    }
}

fn part(file: File, range: FileRange, size: u64) -> Reply {
    let mut reply = file.reply(range);
    *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
    let last = (range.start + range.length).saturating_sub(1);
    insert(&mut reply, CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    reply
}

fn insert(reply: &mut Reply, name: warp::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

fn zip_name(name: &[u8]) -> Vec<u8> {
    [name, b".zip"].concat()
}

fn archive_head(name: &[u8]) -> Reply {
    let mut reply = Reply::default();
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    reply.headers_mut().insert(CONTENT_DISPOSITION, attachment(&zip_name(name)));
    reply
}
