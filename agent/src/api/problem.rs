//! Error replies: problem documents (RFC 9457) with the keys that Backend.AI managers and clients read.
//!
//! Managers of four generations read different keys (`msg`, `error_code`, the status alone), so every reply
//! carries all of them. The domain of a code decides what the newest managers make of the status: whatever
//! concerns a caller's mistake stays in the domain `vfolder` or has no code at all.

use std::io;

use serde_json::{Map, Value, json};
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use warp::reply::Response;

use crate::error::OpError;

/// A reply of either API.
pub type Reply = Response;

const BASE: &str = "https://api.backend.ai/probs/";

/// What a reply says of a failed file operation: the key `errno` (or null) and the key `paths`.
#[derive(Debug)]
struct FsDetail {
    errno: Option<i32>,
    paths: Vec<String>,
}

/// An error reply before it is rendered. One pointer, since every result carries room for it.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    code: Option<&'static str>,
    msg: String,
    data: Option<Value>,
    fs: Option<FsDetail>,
    extra: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of this status. `kind` is the part of the type's URI after `.../probs/`; `msg` is what
    /// managers up to 25.11 show to the user and defaults to the title.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Problem(Box::new(Parts {
            status,
            kind,
            title,
            code: None,
            msg: title.to_owned(),
            data: None,
            fs: None,
            extra: Vec::new(),
            headers: Vec::new(),
        }))
    }

    /// Parameters that failed validation. `data` maps each parameter's name to what is wrong with it.
    pub fn invalid_params(data: Map<String, Value>) -> Self {
        let msg =
            data.iter().map(|(name, what)| format!("{name}: {}", plain(what))).collect::<Vec<_>>().join("; ");
        let mut problem = Problem::invalid(msg);
        problem.0.data = Some(Value::Object(data));
        problem
    }

    /// Parameters that contradict each other or the state of things.
    pub fn invalid(msg: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "storage/invalid-api-params", "Invalid API parameters").msg(msg)
    }

    /// A failure that is nobody's mistake outside. `msg` must not tell paths of the host or secrets.
    pub fn internal(msg: impl Into<String>) -> Self {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage/generic", "Storage Proxy Error").msg(msg)
    }

    /// Says it in a sentence.
    pub fn msg(mut self, msg: impl Into<String>) -> Self {
        self.0.msg = msg.into();
        self
    }

    /// Adds the code: `<domain>_<operation>_<detail>`, each known to managers.
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Adds details under `data`.
    pub fn data(mut self, data: Value) -> Self {
        self.0.data = Some(data);
        self
    }

    /// Adds a key of its own to the body, for replies that have one by contract.
    pub fn extra(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.extra.push((key, value.into()));
        self
    }

    /// Adds a header to the reply.
    pub fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }

    /// The status that the reply will have.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Whether it says that a named file does not exist.
    pub fn is_missing_file(&self) -> bool {
        self.0.fs.as_ref().is_some_and(|fs| fs.errno == Some(nix::libc::ENOENT))
    }

    /// The same problem with another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    fn fs(mut self, errno: Option<i32>, paths: Vec<String>) -> Self {
        self.0.fs = Some(FsDetail { errno, paths });
        self
    }

    /// The JSON object of the reply.
    pub fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("type".into(), format!("{BASE}{}", self.0.kind).into());
        body.insert("title".into(), self.0.title.into());
        if let Some(code) = self.0.code {
            body.insert("error_code".into(), code.into());
        }
        body.insert("msg".into(), self.0.msg.as_str().into());
        if let Some(data) = &self.0.data {
            body.insert("data".into(), data.clone());
        }
        if let Some(fs) = &self.0.fs {
            body.insert("errno".into(), json!(fs.errno));
            body.insert("paths".into(), json!(fs.paths));
        }
        for (key, value) in &self.0.extra {
            body.insert((*key).to_owned(), value.clone());
        }
        body
    }

    /// Renders the reply.
    pub fn reply(self) -> Reply {
        let body = Value::Object(self.body()).to_string();
        let mut reply = Response::new(body.into());
        *reply.status_mut() = self.0.status;
        let content_type = if self.0.fs.is_some() {
            "application/json; charset=utf-8"
        } else {
            "application/problem+json; charset=utf-8"
        };
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in self.0.headers {
            reply.headers_mut().insert(name, value);
        }
        reply
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl From<OpError> for Problem {
    fn from(error: OpError) -> Self {
        let msg = error.to_string();
        match error {
            OpError::UnknownVolume(_) => {
                Problem::new(StatusCode::BAD_REQUEST, "storage/volume/invalid", "Invalid Volume").msg(msg)
            }
            OpError::VolumeUnavailable { .. } => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage/volume/not-initialized",
                "Volume Not Initialized",
            )
            .header(warp::http::header::RETRY_AFTER, HeaderValue::from_static("5"))
            .msg(msg),
            OpError::VfolderNotFound(_) => {
                Problem::new(StatusCode::NOT_FOUND, "storage/vfolder/not-found", "VFolder Not Found")
                    .code("vfolder_read_not-found")
                    .msg(msg)
            }
            OpError::ScopeNotFound(_) => {
                Problem::new(StatusCode::NOT_FOUND, "storage/quota/scope/not-found", "Quota Scope Not Found")
                    .code("quota-scope_read_not-found")
                    .msg(msg)
            }
            OpError::ScopeExists(_) => Problem::new(
                StatusCode::CONFLICT,
                "storage/quota/scope/already-exists",
                "Quota Scope Already Exists",
            )
            .code("quota-scope_create_already-exists")
            .msg(msg),
            OpError::ScopeNotEmpty(_) => Problem::new(
                StatusCode::CONFLICT,
                "storage/quota-directory-not-empty",
                "Quota Directory Not Empty",
            )
            .code("quota-scope_purge_conflict")
            .msg(msg),
            OpError::QuotaConfig => bad_limit(msg),
            OpError::Array(error) if error.is_bad_limit() => bad_limit(msg),
            OpError::QuotaFailed(_) => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "storage/quota/command-failed",
                "Quota Command Failed",
            )
            .code("quota-scope_execute_internal-error")
            .msg(msg),
            OpError::Unsupported { .. } => Problem::new(
                StatusCode::BAD_REQUEST,
                "storage/unsupported-operation",
                "Unsupported operation by the storage backend",
            )
            .msg(msg),
            OpError::Subpath { path, .. } => {
                Problem::new(StatusCode::BAD_REQUEST, "storage/subpath/invalid", "Invalid Subpath")
                    .code("vfolder_access_invalid-parameters")
                    .data(json!({ "subpath": path }))
                    .msg(msg)
            }
            OpError::Fs { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => read_only(),
            OpError::Fs { source, paths } => fs_problem(&source, msg, paths),
            OpError::Refused { paths, .. } => {
                Problem::new(StatusCode::BAD_REQUEST, "storage/fs/refused", "Filesystem Operation Refused")
                    .code("vfolder_access_invalid-parameters")
                    .msg(msg)
                    .fs(None, paths)
            }
            OpError::Busy { .. } => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage/busy", "Storage server is busy")
                    .header(warp::http::header::RETRY_AFTER, HeaderValue::from_static("5"))
                    .msg(msg)
            }
            OpError::NoMetric(_) => {
                Problem::new(StatusCode::NOT_FOUND, "storage/metric-not-found", "Metric Not Found")
                    .code("storage-proxy_read_not-found")
                    .msg(msg)
            }
            OpError::Array(error) => {
                let temporary = error.is_temporary();
                let status = if temporary {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                let problem = Problem::new(status, "storage/external/failed", "External Operation Failed")
                    .code("storage-proxy_request_unreachable")
                    .msg(msg);
                let later = HeaderValue::from_static("5");
                if temporary { problem.header(warp::http::header::RETRY_AFTER, later) } else { problem }
            }
            OpError::NoSpaceForClone { .. } | OpError::Inside => Problem::internal(msg),
            OpError::Cancelled | OpError::TimedOut => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "storage/execution/failed",
                "Operation Given Up",
            )
            .msg(msg),
        }
    }
}

/// The file system of a volume took itself out of service, or was mounted so; only somebody at its host can change that.
pub(crate) fn read_only() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage/volume/read-only", "Volume Is Read-Only")
        .header(warp::http::header::RETRY_AFTER, HeaderValue::from_static("60"))
        .msg("the file system of the volume can be read only at the moment")
}

fn bad_limit(msg: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "storage/quota/config/invalid", "Invalid Quota Config")
        .code("quota-scope_update_invalid-parameters")
        .msg(msg)
}

/// A failed file operation: 400 with the error number, as every manager expects it. Uploads answer a full
/// disk or quota with 507 instead.
fn fs_problem(source: &io::Error, msg: String, paths: Vec<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "storage/fs/failed", "Filesystem Operation Failed")
        .code("vfolder_access_invalid-parameters")
        .msg(msg)
        .fs(source.raw_os_error(), paths)
}
