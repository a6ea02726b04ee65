//! Routes that hand out tokens: permission for a user's program to up- or download, past the manager.

use std::sync::Arc;

use serde_json::json;
use warp::http::StatusCode;

use super::super::params::Params;
use super::super::problem::{Problem, Reply};
use super::super::routes::json_reply;
use super::{Target, target};
use crate::app::App;
use crate::token::{ArchiveClaims, Claims, DownloadClaims, UploadClaims, unix_now};
use crate::vfolder::upload::SessionId;
use crate::volume::VolumeRef;

fn expiry(app: &App) -> i64 {
    let lifetime = i64::try_from(app.config().storage_proxy.session_expire.as_secs()).unwrap_or(i64::MAX);
    unix_now().saturating_add(lifetime)
}

fn signed<T: Claims>(app: &App, claims: &T) -> Result<Reply, Problem> {
    let token = app.tokens().sign(claims).map_err(|error| Problem::invalid(error.to_string()))?;
    json_reply(StatusCode::OK, &json!({ "token": token }))
}

/// `POST /folder/file/upload`: creates an upload session too.
pub(super) async fn upload(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, path, size) = (target(&mut params), params.relpath("relpath"), params.size("size"));
    let (Some(named), Some(path), Some(size)) = (named, path, size) else { return Err(params.problem()) };
    let most = app.config().storage_proxy.max_upload_size.bytes();
    if size > most {
        return Err(wrong("size", format!("{size} is more than max-upload-size allows ({most} bytes)")));
    }
    if path.is_root() {
        return Err(wrong("relpath", "the folder itself cannot be uploaded: name a file".into()));
    }
    let Target { volume, id, .. } = Target::find(&app, named)?;
    let VolumeRef::Real(volume) = volume else {
        return Err(Problem::invalid("nothing can be uploaded to an unmanaged folder"));
    };
    let (to, uploads) = (path.clone(), Arc::clone(&app.uploads));
    let session: SessionId = volume.run(move |volume| uploads.create(volume, &id, &to, size)).await?;
    signed(&app, &UploadClaims::new(volume.name.clone(), id, path.to_bytes(), session, size, expiry(&app)))
}

fn wrong(key: &str, what: String) -> Problem {
    let mut data = serde_json::Map::new();
    data.insert(key.to_owned(), what.into());
    Problem::invalid_params(data)
}

/// The root is `.` in a token.
fn dotted(path: Vec<u8>) -> Vec<u8> {
    if path.is_empty() { b".".to_vec() } else { path }
}

/// `POST /folder/file/download`. Whether the file exists is found out by the download.
pub(super) async fn download(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (named, path) = (target(&mut params), params.relpath("relpath"));
    let (archive, unmanaged) = (params.bool_or("archive", false), params.optional_string("unmanaged_path"));
    let (Some(named), Some(path), Some(_), Some(unmanaged)) = (named, path, archive, unmanaged) else {
        return Err(params.problem());
    };
    let volume = named.0.clone();
    let Target { id, .. } = Target::find(&app, named)?;
    signed(&app, &DownloadClaims::new(volume, id, dotted(path.to_bytes()), unmanaged, expiry(&app)))
}

/// `POST /folder/file/archive-download-token`.
pub(super) async fn archive(app: Arc<App>, mut params: Params) -> Result<Reply, Problem> {
    let (volume, id) = (params.string("volume"), params.vfid("virtual_folder_id"));
    let files = params.relpaths("files", app.config().limits.archive_files, false);
    let filename = params.optional_string("filename");
    let (Some(volume), Some(id), Some(files), Some(filename)) = (volume, id, files, filename) else {
        return Err(params.problem());
    };
    if let Some(problem) = filename.as_deref().and_then(unfit) {
        return Err(wrong("filename", problem.into()));
    }
    app.volumes.get(&volume)?;
    let files = files.iter().map(|path| dotted(path.to_bytes())).collect();
    signed(&app, &ArchiveClaims::new(volume, id, files, filename, expiry(&app)))
}

/// What is wrong with an archive's name.
fn unfit(name: &str) -> Option<&'static str> {
    if name.chars().count() > 255 {
        Some("is longer than 255 characters")
    } else if name.trim().is_empty() || name == "." || name == ".." {
        Some("is no file name")
    } else if name.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
        Some("holds a slash, a backslash or a control character")
    } else {
        None
    }
}
