//! The part of Weka's REST API v2 that quota scopes need, as plain functions.
//!
//! A quota belongs to the inode of a directory. Facts: WEKA's OpenAPI document of release 5.1, its CSI driver, and what
//! differs in releases from 3.13 on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::volume::array::{ArrayError, Call, Client, Fields, Kind, Reply, at};

/// Limits from here on mean none; clients have several maxima that they write for it.
const UNLIMITED: f64 = (1u64 << 62) as f64;
/// What the vendor's own clients send for no limit where 0 is refused.
const NO_LIMIT: u64 = i64::MAX as u64;
/// Pages of one listing.
const PAGES: usize = 100_000;
/// How long the cluster may take to account for a directory before its quota counts as set.
const ACTIVE_WITHIN: Duration = Duration::from_secs(10);

/// One file system of a cluster.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// The file system's name.
    pub(super) name: String,
    /// Whether quotas are set by the older JSON-RPC call.
    pub(super) by_rpc: bool,
    id: Mutex<Option<Arc<str>>>,
}

/// A quota, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) used: Option<u64>,
    /// Nothing if unlimited.
    pub(super) limit: Option<u64>,
}

impl Cluster {
    pub(super) fn new(client: Client, name: String, by_rpc: bool) -> Self {
        Cluster { client, name, by_rpc, id: Mutex::default() }
    }

    /// Makes a call; what its reply has under `data` if that is a success.
    pub(super) async fn call(&self, call: Call) -> Result<Value, ArrayError> {
        let operation = call.operation;
        match self.about_quota(call).await? {
            Some(data) => Ok(data),
            None => {
                let message = "there is no such quota".to_owned();
                Err(self.client.error(operation, Kind::Refused { code: None, message }))
            }
        }
    }

    /// The same for calls about a quota: nothing if the directory has none, which releases say by different statuses.
    async fn about_quota(&self, call: Call) -> Result<Option<Value>, ArrayError> {
        let mut reply = self.client.send(&call).await?;
        let message = self.message(&reply);
        if message.contains("Directory has no quota") {
            return Ok(None);
        }
        if reply.status.is_success() {
            let data = reply.body.get_mut("data").map(Value::take);
            let missing = || Fields::new(&self.client, call.operation, &reply.body).wrong("data", "there");
            return data.filter(|data| !data.is_null()).map(Some).ok_or_else(missing);
        }
        let kind = match reply.status.as_u16() {
            403 => Kind::Forbidden(format!("{message}; it needs the role ClusterAdmin, OrgAdmin or CSI")),
            404 if message.contains("Route ") => Kind::Missing(format!(
                "the cluster's release has no such call ({message}); 3.13 or later is needed"
            )),
            404 if message.contains("uid:") => {
                // The file system may have been made anew.
                *self.id.lock().await = None;
                Kind::Refused { code: None, message }
            }
            _ => Kind::Refused { code: None, message },
        };
        Err(self.client.error(call.operation, kind))
    }

    /// What the cluster says about a failure.
    fn message(&self, reply: &Reply) -> String {
        let texts = ["message", "data.error", "data"].map(|path| at(&reply.body, path).as_str());
        match texts.into_iter().flatten().next() {
            Some(text) => self.client.tame(text),
            None => format!("status {}", reply.status.as_u16()),
        }
    }

    /// The file system's id; asked once.
    pub(super) async fn id(&self) -> Result<Arc<str>, ArrayError> {
        const FIND: &str = "find the file system";
        let mut id = self.id.lock().await;
        if let Some(id) = &*id {
            return Ok(Arc::clone(id));
        }
        let all = self.call(Call::get(FIND, "/api/v2/fileSystems")).await?;
        let fields = Fields::new(&self.client, FIND, &all);
        let all = all.as_array().ok_or_else(|| fields.wrong("", "a list"))?;
        let Some(found) = all.iter().find(|fs| *at(fs, "name") == *self.name) else {
            let problem = format!(
                "there is no file system {:?} that this user sees; correct weka_fs_name or weka_organization",
                self.name
            );
            return Err(self.client.error(FIND, Kind::Missing(problem)));
        };
        let found = fields.of(found);
        let text = found.text("uid")?;
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(found.wrong("uid", "an id"));
        }
        let found: Arc<str> = text.into();
        *id = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The file system's own record.
    pub(super) async fn file_system(&self, operation: &'static str) -> Result<Value, ArrayError> {
        let path = format!("/api/v2/fileSystems/{}", self.id().await?);
        self.call(Call::get(operation, path)).await
    }

    async fn path(&self, inode: u64) -> Result<String, ArrayError> {
        Ok(format!("/api/v2/fileSystems/{}/quota/{inode}", self.id().await?))
    }

    /// The quota of a directory, if it has one.
    pub(super) async fn quota(&self, inode: u64) -> Result<Option<Quota>, ArrayError> {
        Ok(self.quota_record(inode).await?.map(|(quota, _)| quota))
    }

    /// The quota and its status.
    async fn quota_record(&self, inode: u64) -> Result<Option<(Quota, String)>, ArrayError> {
        const READ: &str = "read a quota";
        let Some(data) = self.about_quota(Call::get(READ, self.path(inode).await?)).await? else {
            return Ok(None);
        };
        let Some(record) = unwrapped(&data) else { return Ok(None) };
        let fields = Fields::new(&self.client, READ, record);
        let status = fields.raw("status").as_str().unwrap_or("ACTIVE").to_owned();
        Ok(Some((quota(&fields)?, status)))
    }

    /// All quotas of directories by inode. One that cannot be understood is left out, so that it fails alone.
    pub(super) async fn quotas(&self) -> Result<HashMap<u64, Quota>, ArrayError> {
        const READ: &str = "read all quotas";
        let path = format!("/api/v2/fileSystems/{}/quota", self.id().await?);
        let (mut quotas, mut token) = (HashMap::new(), None::<String>);
        for _ in 0..PAGES {
            let call = Call::get(READ, path.clone());
            let call = token.iter().fold(call, |call, token| call.query("next_token", token));
            let reply = self.client.send(&call).await?;
            if !reply.status.is_success() {
                return Err(self
                    .client
                    .error(READ, Kind::Refused { code: None, message: self.message(&reply) }));
            }
            let fields = Fields::new(&self.client, READ, &reply.body);
            // Releases before the list answered a map by quota id.
            let records: Vec<&Value> = match fields.raw("data") {
                Value::Object(records) => records.values().collect(),
                _ => fields.list("data")?.iter().collect(),
            };
            quotas.extend(records.into_iter().filter_map(|record| {
                let fields = fields.of(record);
                Some((fields.count("inode_id").ok()??, quota(&fields).ok()?))
            }));
            let next = match fields.raw("next_token") {
                Value::Null => return Ok(quotas),
                Value::String(next) => next.clone(),
                next => next.to_string(),
            };
            if token.as_ref() == Some(&next) {
                return Err(fields.wrong("next_token", "the token of another page"));
            }
            token = Some(next);
        }
        Err(self.client.error(READ, Kind::Malformed(format!("the listing does not end after {PAGES} pages"))))
    }

    /// Gives a directory a quota, or the one that it has another limit. `path` is from the mount point.
    pub(super) async fn set(&self, inode: u64, path: &str, limit: Option<u64>) -> Result<(), ArrayError> {
        if self.by_rpc {
            self.set_by_rpc(inode, path, limit).await?;
        } else if !self.change(inode, limit).await? {
            self.make(inode, limit).await?;
        }
        self.wait_active(inode).await
    }

    /// Whether there was a quota to change. A change works where a directory is not empty; a new quota may not.
    pub(super) async fn change(&self, inode: u64, limit: Option<u64>) -> Result<bool, ArrayError> {
        let call = Call::patch("change a quota", self.path(inode).await?);
        let changed = self.about_quota(call.clone().json(limits(limit.unwrap_or(0)))).await;
        match changed {
            Err(error) if limit.is_none() && matches!(error.kind(), Kind::Refused { .. }) => {
                Ok(self.about_quota(call.json(limits(NO_LIMIT))).await?.is_some())
            }
            changed => Ok(changed?.is_some()),
        }
    }

    async fn make(&self, inode: u64, limit: Option<u64>) -> Result<(), ArrayError> {
        let call = Call::put("make a quota", self.path(inode).await?);
        let made = self.call(call.clone().json(limits(limit.unwrap_or(0)))).await;
        match made {
            Err(error) if limit.is_none() && matches!(error.kind(), Kind::Refused { .. }) => {
                self.call(call.json(limits(NO_LIMIT))).await.map(drop)
            }
            made => made.map(drop),
        }
    }

    /// The limit is not fully accounted before the quota is active. A directory that holds much is not waited for.
    async fn wait_active(&self, inode: u64) -> Result<(), ArrayError> {
        let deadline = Instant::now() + ACTIVE_WITHIN;
        let mut pause = Duration::from_millis(100);
        loop {
            let status = self.quota_record(inode).await?.map(|(_, status)| status);
            match status.as_deref() {
                None | Some("ACTIVE") => return Ok(()),
                Some("ERROR") => {
                    let problem = "the cluster could not account for the directory (status ERROR)".to_owned();
                    return Err(self.client.error("make a quota", Kind::Job(problem)));
                }
                Some(status) if Instant::now() >= deadline => {
                    let status = self.client.tame(status);
                    tracing::warn!(inode, status, "a quota is not active yet; it will be");
                    return Ok(());
                }
                Some(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn set_by_rpc(&self, inode: u64, path: &str, limit: Option<u64>) -> Result<(), ArrayError> {
        const SET: &str = "set a quota by JSON-RPC";
        let mut params = json!({"activate": true, "inode_context": inode, "path": path});
        if let (Some(limit), Some(params)) = (limit, params.as_object_mut()) {
            params.insert("hard_limit_bytes".into(), limit.into());
            params.insert("soft_limit_bytes".into(), limit.into());
        }
        let body = json!({"id": 1, "jsonrpc": "2.0", "method": "set_directory_quota", "params": params});
        let reply = self.client.send(&Call::post(SET, "/api/v1").json(body)).await?;
        let error = at(&reply.body, "error");
        if reply.status.is_success() && error.is_null() {
            return Ok(());
        }
        let message =
            at(error, "message").as_str().map_or_else(|| self.message(&reply), |text| self.client.tame(text));
        let code = at(error, "code").as_i64().map(|code| code.to_string());
        Err(self.client.error(SET, Kind::Refused { code, message }))
    }

    /// Removes a quota; that there is none is a success.
    pub(super) async fn remove(&self, inode: u64) -> Result<(), ArrayError> {
        self.about_quota(Call::delete("remove a quota", self.path(inode).await?)).await.map(drop)
    }
}

fn limits(limit: u64) -> Value {
    json!({"hard_limit_bytes": limit, "soft_limit_bytes": limit, "grace_seconds": 0})
}

/// The record itself; older releases wrapped it into an object by quota id. Nothing for an empty one.
fn unwrapped(data: &Value) -> Option<&Value> {
    let members = data.as_object().filter(|members| !members.is_empty())?;
    match members.values().next() {
        Some(inner) if members.len() == 1 && inner.is_object() => Some(inner),
        _ => Some(data),
    }
}

fn quota(fields: &Fields<'_>) -> Result<Quota, ArrayError> {
    let used = match (fields.count("total_bytes")?, fields.count("used_bytes")?) {
        (Some(used), _) | (None, Some(used)) => Some(used),
        (None, None) => match (fields.count("data_blocks")?, fields.count("metadata_blocks")?) {
            (Some(data), Some(metadata)) => {
                data.checked_add(metadata).and_then(|blocks| blocks.checked_mul(4096))
            }
            _ => None,
        },
    };
    let limit = match fields.raw("hard_limit_bytes").as_f64() {
        Some(limit) if limit >= UNLIMITED => None,
        _ => fields.count("hard_limit_bytes")?.filter(|limit| *limit > 0),
    };
    Ok(Quota { used, limit })
}
