//! What a token of each kind says: one operation on one path of one vfolder, until a time.
//!
//! Names in it are bytes ([`ByteText`]). Paths are kept as they were given: whether they are possible is
//! decided when they are joined with the request's `dst_dir`.

use common::id::VfolderId;
use serde::Serialize;

use crate::api::params::Params;
use crate::api::text::ByteText;
use crate::vfolder::upload::SessionId;

/// A kind of token.
pub trait Claims: Sized + Serialize {
    /// Reads the claims of this kind and notes every one that is missing or wrong.
    fn read(claims: &mut Params) -> Option<Self>;
}

/// Permission to upload one file (`op` = `upload`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadClaims {
    op: &'static str,
    /// The volume's name.
    pub volume: String,
    /// The vfolder.
    #[serde(serialize_with = "as_text")]
    pub vfid: VfolderId,
    /// Where the file goes, from the vfolder's root (or from `dst_dir`).
    pub relpath: ByteText,
    /// The upload session.
    #[serde(serialize_with = "as_text")]
    pub session: SessionId,
    /// The file's size in bytes.
    pub size: u64,
    /// When the token ends, in seconds since 1970.
    pub exp: i64,
}

/// Permission to download one file or directory (`op` = `download`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadClaims {
    op: &'static str,
    /// The volume's name.
    pub volume: String,
    /// The vfolder.
    #[serde(serialize_with = "as_text")]
    pub vfid: VfolderId,
    /// The file or directory, from the vfolder's root (or from `dst_dir`).
    pub relpath: ByteText,
    /// Written for old proxies and ignored by all; the request decides.
    pub archive: bool,
    /// A directory of the host that stands in for the vfolder, where the configuration allows it.
    pub unmanaged_path: Option<String>,
    /// When the token ends, in seconds since 1970.
    pub exp: i64,
}

/// Permission to download several files and directories as one archive (`operation` = `download`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveClaims {
    operation: &'static str,
    /// The volume's name.
    pub volume: String,
    /// The vfolder.
    #[serde(serialize_with = "as_text")]
    pub virtual_folder_id: VfolderId,
    /// The files and directories, from the vfolder's root; at least one.
    pub files: Vec<ByteText>,
    /// The archive's name for the client.
    pub filename: Option<String>,
    /// When the token ends, in seconds since 1970.
    pub exp: i64,
}

fn as_text<T: ToString, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

// === impl UploadClaims ===

impl UploadClaims {
    const OP: &'static str = "upload";

    /// Claims for the session that was created for the file.
    pub fn new(
        volume: String,
        vfid: VfolderId,
        relpath: Vec<u8>,
        session: SessionId,
        size: u64,
        exp: i64,
    ) -> Self {
        UploadClaims { op: Self::OP, volume, vfid, relpath: ByteText(relpath), session, size, exp }
    }
}

impl Claims for UploadClaims {
    fn read(claims: &mut Params) -> Option<Self> {
        let op = literal(claims, "op", Self::OP);
        let volume = claims.string("volume");
        let vfid = claims.vfid("vfid");
        let relpath = path(claims, "relpath");
        let session = session(claims, "session");
        let size = claims.typed("size", "a number of bytes");
        let exp = seconds(claims, "exp");
        Some(UploadClaims {
            op: op?,
            volume: volume?,
            vfid: vfid?,
            relpath: relpath?,
            session: session?,
            size: size?,
            exp: exp?,
        })
    }
}

// === impl DownloadClaims ===

impl DownloadClaims {
    const OP: &'static str = "download";

    /// Claims for a file or directory of a vfolder.
    pub fn new(
        volume: String,
        vfid: VfolderId,
        relpath: Vec<u8>,
        unmanaged_path: Option<String>,
        exp: i64,
    ) -> Self {
        let relpath = ByteText(relpath);
        DownloadClaims { op: Self::OP, volume, vfid, relpath, archive: false, unmanaged_path, exp }
    }
}

impl Claims for DownloadClaims {
    fn read(claims: &mut Params) -> Option<Self> {
        let op = literal(claims, "op", Self::OP);
        let volume = claims.string("volume");
        let vfid = claims.vfid("vfid");
        let relpath = path(claims, "relpath");
        let archive = claims.bool_or("archive", false);
        let unmanaged_path = claims.optional_string("unmanaged_path");
        let exp = seconds(claims, "exp");
        Some(DownloadClaims {
            op: op?,
            volume: volume?,
            vfid: vfid?,
            relpath: relpath?,
            archive: archive?,
            unmanaged_path: unmanaged_path?,
            exp: exp?,
        })
    }
}

// === impl ArchiveClaims ===

impl ArchiveClaims {
    const OPERATION: &'static str = "download";

    /// Claims for several entries of a vfolder.
    pub fn new(
        volume: String,
        virtual_folder_id: VfolderId,
        files: Vec<Vec<u8>>,
        filename: Option<String>,
        exp: i64,
    ) -> Self {
        let files = files.into_iter().map(ByteText).collect();
        ArchiveClaims { operation: Self::OPERATION, volume, virtual_folder_id, files, filename, exp }
    }
}

impl Claims for ArchiveClaims {
    fn read(claims: &mut Params) -> Option<Self> {
        let operation = literal(claims, "operation", Self::OPERATION);
        let volume = claims.string("volume");
        let virtual_folder_id = claims.vfid("virtual_folder_id");
        let files = paths(claims, "files");
        let filename = claims.optional_string("filename");
        let exp = seconds(claims, "exp");
        Some(ArchiveClaims {
            operation: operation?,
            volume: volume?,
            virtual_folder_id: virtual_folder_id?,
            files: files?,
            filename: filename?,
            exp: exp?,
        })
    }
}

// === readers of single claims ===

fn literal(claims: &mut Params, key: &str, expected: &'static str) -> Option<&'static str> {
    let given = claims.string(key)?;
    if given == expected {
        Some(expected)
    } else {
        claims.wrong(key, format!("is not {expected:?}: {given:?}"))
    }
}

fn path(claims: &mut Params, key: &str) -> Option<ByteText> {
    let path: ByteText = claims.typed(key, "a string")?;
    if path.0.is_empty() { claims.wrong(key, "blank value is not allowed") } else { Some(path) }
}

fn paths(claims: &mut Params, key: &str) -> Option<Vec<ByteText>> {
    let paths: Vec<ByteText> = claims.typed(key, "a list of strings")?;
    if paths.is_empty() || paths.iter().any(|path| path.0.is_empty()) {
        return claims.wrong(key, "name at least one path, and no empty one");
    }
    Some(paths)
}

fn session(claims: &mut Params, key: &str) -> Option<SessionId> {
    let text = claims.string(key)?;
    match SessionId::parse(text.as_bytes()) {
        Some(session) => Some(session),
        None => claims.wrong(key, format!("is not 32 lower-case hexadecimal digits: {text:?}")),
    }
}

/// A point in time (RFC 7519 "NumericDate") in whole seconds since 1970, cut off as PyJWT does.
pub(super) fn seconds(claims: &mut Params, key: &str) -> Option<i64> {
    let number: serde_json::Number = claims.typed(key, "a number of seconds since 1970")?;
    match (number.as_i64(), number.as_f64()) {
        (Some(seconds), _) => Some(seconds),
        (None, Some(seconds)) if seconds.abs() < 1e15 => Some(seconds as i64),
        _ => claims.wrong(key, format!("is no time: {number}")),
    }
}
