//! The part of ONTAP's REST API that quota scopes need, as plain functions.
//!
//! Every change is a job on the array; the functions return when it has ended. Facts: ONTAP REST API 9.6 to 9.19.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::codes;
use crate::volume::array::{ArrayError, Call, Client, Fields, Kind, Reply, at};

/// The first pause between two looks at a job, and the longest.
const JOB_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Records per page of a listing.
const PAGE: &str = "1000";
/// Pages of one listing; a volume has at most 4,994 qtrees.
const PAGES: usize = 500;

/// One volume of an ONTAP cluster.
pub(super) struct Ontap {
    pub(super) client: Client,
    /// The ONTAP volume's name.
    pub(super) name: String,
    /// The SVM's name, if it is configured.
    pub(super) svm: Option<String>,
    /// How long a job may take.
    pub(super) job_patience: Duration,
    place: Mutex<Option<Arc<Place>>>,
}

/// Where the volume is on the cluster. Never changes while the volume exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) volume: String,
    pub(super) svm: String,
    pub(super) svm_name: String,
    /// Its path in the SVM's namespace, if it has one.
    pub(super) junction: Option<String>,
}

/// A tree quota rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) id: String,
    /// Bytes; nothing if unlimited.
    pub(super) limit: Option<u64>,
}

/// A line of the quota report, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) used: Option<u64>,
    pub(super) limit: Option<u64>,
}

/// Whether a reply says that the same call may succeed later.
pub(super) fn is_busy(reply: &Reply) -> bool {
    !reply.status.is_success()
        && code(at(&reply.body, "error")).is_some_and(|code| codes::BUSY.contains(&code.as_str()))
}

impl Ontap {
    pub(super) fn new(client: Client, name: String, svm: Option<String>, job_patience: Duration) -> Self {
        Ontap { client, name, svm, job_patience, place: Mutex::default() }
    }

    /// Makes a call; the body of its reply if that is a success.
    pub(super) async fn call(&self, call: Call) -> Result<Value, ArrayError> {
        let reply = self.client.send(&call).await?;
        if reply.status.is_success() {
            return Ok(reply.body);
        }
        let error = at(&reply.body, "error");
        let (code, message) = (code(error), at(error, "message").as_str().unwrap_or_default());
        let message = match self.client.tame(message) {
            empty if empty.is_empty() => format!("status {}", reply.status.as_u16()),
            message => message,
        };
        let kind = if reply.status.as_u16() == 403 || code.as_deref() == Some(codes::FORBIDDEN) {
            Kind::Forbidden(format!(
                "{message}; its role needs read access to /api/cluster/jobs and all access to \
                                     /api/storage/volumes, /api/storage/qtrees and /api/storage/quota"
            ))
        } else {
            Kind::Refused { code, message }
        };
        Err(self.client.error(call.operation, kind))
    }

    /// Makes a change and waits for its job. Replies without a job are of changes that are done.
    pub(super) async fn change(&self, call: Call) -> Result<(), ArrayError> {
        let operation = call.operation;
        let body = self.call(call).await?;
        match Fields::new(&self.client, operation, &body).raw("job.uuid") {
            Value::Null => Ok(()),
            Value::String(id) if is_id(id) => self.job(operation, id).await,
            _ => Err(Fields::new(&self.client, operation, &body).wrong("job.uuid", "the id of a job")),
        }
    }

    async fn job(&self, operation: &'static str, id: &str) -> Result<(), ArrayError> {
        let deadline = Instant::now() + self.job_patience;
        let (mut pause, longest) = JOB_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(longest);
            let call = Call::get("watch a job", format!("/api/cluster/jobs/{id}"));
            let job = self.call(call.query("fields", "state,message,code,error")).await;
            let job = match job {
                Err(error) if error.has_code(codes::GONE) => {
                    let problem = format!("its job {id} is no longer known, so how it ended is not either");
                    return Err(self.client.error(operation, Kind::Job(problem)));
                }
                job => job?,
            };
            let fields = Fields::new(&self.client, operation, &job);
            let state = fields.text("state")?;
            match state {
                "success" => return Ok(()),
                "queued" | "running" | "paused" if Instant::now() < deadline => {}
                "queued" | "running" | "paused" => {
                    let seconds = self.job_patience.as_secs_f64();
                    let problem = format!("its job {id} is still {state} after {seconds} s");
                    return Err(self.client.error(operation, Kind::Job(problem)));
                }
                _ => return Err(self.client.error(operation, self.job_failure(id, &job))),
            }
        }
    }

    /// Newer releases tell it in an object, all in `code` and `message`.
    fn job_failure(&self, id: &str, job: &Value) -> Kind {
        let message = [at(job, "error.message"), at(job, "message"), at(job, "state")];
        let message = message.iter().find_map(|text| text.as_str().filter(|text| !text.is_empty()));
        let message = self.client.tame(message.unwrap_or("it failed"));
        Kind::Refused {
            code: code(at(job, "error")).or_else(|| code(job)),
            message: format!("job {id}: {message}"),
        }
    }

    /// All records of a listing, page by page.
    async fn listing(&self, call: Call) -> Result<Vec<Value>, ArrayError> {
        let operation = call.operation;
        let mut records = Vec::new();
        let mut next = Some(call);
        for _ in 0..PAGES {
            let Some(call) = next.take() else { return Ok(records) };
            let page = self.call(call).await?;
            let fields = Fields::new(&self.client, operation, &page);
            // Nothing found is said by a count of 0; without it a listing without records is not believed.
            if fields.raw("records").is_null() && fields.count("num_records")? != Some(0) {
                return Err(fields.wrong("records", "a list"));
            }
            records.extend(fields.list("records")?.iter().cloned());
            match fields.raw("_links.next.href") {
                Value::Null => return Ok(records),
                Value::String(href) if href.starts_with("/api/") => {
                    next = Some(Call::get(operation, href.clone()))
                }
                _ => return Err(fields.wrong("_links.next.href", "a path below /api")),
            }
        }
        Err(self
            .client
            .error(operation, Kind::Malformed(format!("the listing does not end after {PAGES} pages"))))
    }

    /// The record that has this name at `path`, among those that the array has selected by that name. A record without a
    /// name may be the one, so it is not passed over.
    fn named<'r>(
        &self,
        operation: &'static str,
        records: &'r [Value],
        path: &str,
        name: &str,
    ) -> Result<Option<&'r Value>, ArrayError> {
        for record in records {
            match at(record, path) {
                Value::String(found) if found == name => return Ok(Some(record)),
                Value::String(_) => {}
                _ => return Err(Fields::new(&self.client, operation, record).wrong(path, "a name")),
            }
        }
        Ok(None)
    }

    /// Where the volume is; asked once.
    pub(super) async fn place(&self) -> Result<Arc<Place>, ArrayError> {
        let mut place = self.place.lock().await;
        if let Some(place) = &*place {
            return Ok(Arc::clone(place));
        }
        let found = Arc::new(self.find_place().await?);
        *place = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The volume was not found where it was: it may have been made anew.
    async fn forget_place(&self) {
        *self.place.lock().await = None;
    }

    async fn find_place(&self) -> Result<Place, ArrayError> {
        const FIND: &str = "find the volume";
        let call = Call::get(FIND, "/api/storage/volumes").query("name", &self.name);
        let call = self.svm.iter().fold(call, |call, svm| call.query("svm.name", svm));
        let records = self.listing(call.query("fields", "nas.path,svm")).await?;
        let named: Vec<_> = records.iter().filter(|record| *at(record, "name") == *self.name).collect();
        let svm = self.svm.as_ref().map_or_else(String::new, |svm| format!(" in SVM {svm:?}"));
        let missing = |problem| Err(self.client.error(FIND, Kind::Missing(problem)));
        let volume = match *named {
            [volume] => volume,
            [] => {
                return missing(format!(
                    "there is no volume {:?}{svm} that this account sees; correct netapp_volume_name or netapp_svm_name",
                    self.name
                ));
            }
            [..] => {
                return missing(format!(
                    "{} volumes are called {:?}; name the SVM in netapp_svm_name",
                    named.len(),
                    self.name
                ));
            }
        };
        let fields = Fields::new(&self.client, FIND, volume);
        let id = |path| match fields.text(path)? {
            id if is_id(id) => Ok(id.to_owned()),
            _ => Err(fields.wrong(path, "a UUID")),
        };
        Ok(Place {
            volume: id("uuid")?,
            svm: id("svm.uuid")?,
            svm_name: fields.text("svm.name")?.to_owned(),
            junction: fields.raw("nas.path").as_str().map(str::to_owned),
        })
    }

    /// These fields of the volume.
    pub(super) async fn volume(&self, operation: &'static str, wanted: &str) -> Result<Value, ArrayError> {
        let place = self.place().await?;
        let path = format!("/api/storage/volumes/{}", place.volume);
        let volume = self.call(Call::get(operation, path).query("fields", wanted)).await;
        if volume.as_ref().is_err_and(|error| error.has_code(codes::GONE)) {
            self.forget_place().await;
        }
        volume
    }

    /// Switches the volume's quotas on or off; returns before the array has done all of it.
    pub(super) async fn switch_quotas(&self, on: bool) -> Result<(), ArrayError> {
        let path = format!("/api/storage/volumes/{}", self.place().await?.volume);
        let operation = if on { "switch quotas on" } else { "switch quotas off" };
        self.change(Call::patch(operation, path).json(json!({"quota": {"enabled": on}}))).await
    }

    /// The number of the qtree of this name.
    pub(super) async fn qtree(&self, name: &str) -> Result<Option<u64>, ArrayError> {
        const FIND: &str = "find a qtree";
        let place = self.place().await?;
        let call = Call::get(FIND, "/api/storage/qtrees").query("volume.uuid", &place.volume);
        let records = self.listing(call.query("name", quoted(name)).query("fields", "id,name")).await?;
        let found = self.named(FIND, &records, "name", name)?;
        found.map(|record| Fields::new(&self.client, FIND, record).required_count("id")).transpose()
    }

    /// Makes a qtree that belongs to this process's user and group.
    pub(super) async fn make_qtree(&self, name: &str) -> Result<(), ArrayError> {
        let place = self.place().await?;
        let (user, group) = (nix::unistd::geteuid().to_string(), nix::unistd::getegid().to_string());
        let body = json!({
            "svm": {"uuid": place.svm}, "volume": {"uuid": place.volume}, "name": name,
            "user": {"id": user}, "group": {"id": group}, "security_style": "unix", "unix_permissions": 755,
        });
        self.change(Call::post("make a qtree", "/api/storage/qtrees").json(body)).await
    }

    /// Removes a qtree with all that is in it; one that is gone is a success.
    pub(super) async fn remove_qtree(&self, number: u64) -> Result<(), ArrayError> {
        let path = format!("/api/storage/qtrees/{}/{number}", self.place().await?.volume);
        forgive(self.change(Call::delete("remove a qtree", path)).await, codes::GONE)
    }

    /// The tree rule of this qtree.
    pub(super) async fn rule(&self, qtree: &str) -> Result<Option<Rule>, ArrayError> {
        const FIND: &str = "find a quota rule";
        let place = self.place().await?;
        let call = Call::get(FIND, "/api/storage/quota/rules").query("volume.uuid", &place.volume);
        let call =
            call.query("type", "tree").query("qtree.name", quoted(qtree)).query("fields", "space,files");
        let records = self.listing(call).await?;
        let found = self.named(FIND, &records, "qtree.name", qtree)?;
        let Some(record) = found else { return Ok(None) };
        let fields = Fields::new(&self.client, FIND, record);
        match fields.text("uuid")? {
            id if is_id(id) => Ok(Some(Rule { id: id.to_owned(), limit: limit(&fields)? })),
            _ => Err(fields.wrong("uuid", "a UUID")),
        }
    }

    /// Makes a tree rule; an empty name is the default rule, for all qtrees without one of their own.
    pub(super) async fn make_rule(&self, qtree: &str, limit: Option<u64>) -> Result<(), ArrayError> {
        let place = self.place().await?;
        let mut body = json!({
            "svm": {"uuid": place.svm}, "volume": {"uuid": place.volume}, "type": "tree", "qtree": {"name": qtree},
        });
        if let (Some(limit), Some(body)) = (limit, body.as_object_mut()) {
            body.insert("space".into(), json!({"hard_limit": limit, "soft_limit": limit}));
        }
        self.change(Call::post("make a quota rule", "/api/storage/quota/rules").json(body)).await
    }

    /// Changes the limit of a rule; the array takes -1 for none.
    pub(super) async fn change_rule(&self, rule: &Rule, limit: Option<u64>) -> Result<(), ArrayError> {
        let limit = limit.map_or(json!(-1), |limit| json!(limit));
        let path = format!("/api/storage/quota/rules/{}", rule.id);
        let body = json!({"space": {"hard_limit": limit, "soft_limit": limit}});
        self.change(Call::patch("change a quota rule", path).json(body)).await
    }

    /// Removes a rule; one that is gone is a success, and so is one that stays in force until quotas are switched.
    pub(super) async fn remove_rule(&self, rule: &Rule) -> Result<(), ArrayError> {
        let path = format!("/api/storage/quota/rules/{}", rule.id);
        let removed = self.change(Call::delete("remove a quota rule", path)).await;
        forgive(forgive(removed, codes::GONE), codes::STILL_IN_FORCE)
    }

    /// The report's line of one qtree.
    pub(super) async fn report(&self, qtree: &str) -> Result<Option<Report>, ArrayError> {
        const READ: &str = "read a quota report";
        let call = self.reports(READ).await?.query("qtree.name", quoted(qtree));
        let records = self.listing(call).await?;
        let found = self.named(READ, &records, "qtree.name", qtree)?;
        found.map(|record| self.report_line(READ, record)).transpose()
    }

    /// The lines of all qtrees. A line that cannot be understood is left out, so that it fails alone.
    pub(super) async fn all_reports(&self) -> Result<HashMap<String, Report>, ArrayError> {
        const READ: &str = "read all quota reports";
        let records = self.listing(self.reports(READ).await?.query("max_records", PAGE)).await?;
        let lines = records.iter().filter_map(|record| {
            let name = at(record, "qtree.name").as_str().filter(|name| !name.is_empty())?;
            Some((name.to_owned(), self.report_line(READ, record).ok()?))
        });
        Ok(lines.collect())
    }

    async fn reports(&self, operation: &'static str) -> Result<Call, ArrayError> {
        let call = Call::get(operation, "/api/storage/quota/reports");
        let call = call.query("volume.uuid", &self.place().await?.volume).query("type", "tree");
        Ok(call.query("show_default_records", "false").query("fields", "space,files"))
    }

    fn report_line(&self, operation: &'static str, record: &Value) -> Result<Report, ArrayError> {
        let fields = Fields::new(&self.client, operation, record);
        Ok(Report { used: Some(fields.required_count("space.used.total")?), limit: limit(&fields)? })
    }
}

/// What is unlimited has no member; some releases say -1.
fn limit(fields: &Fields<'_>) -> Result<Option<u64>, ArrayError> {
    match fields.raw("space.hard_limit").as_i64() {
        Some(-1) => Ok(None),
        _ => fields.count("space.hard_limit"),
    }
}

/// A failure with one of these codes is a success.
pub(super) fn forgive(outcome: Result<(), ArrayError>, codes: &[&str]) -> Result<(), ArrayError> {
    match outcome {
        Err(error) if error.has_code(codes) => Ok(()),
        outcome => outcome,
    }
}

/// The code of an error: text in errors, a number in jobs.
fn code(error: &Value) -> Option<String> {
    match at(error, "code") {
        Value::String(code) => {
            Some(code.clone()).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
        }
        Value::Number(code) => Some(code.to_string()).filter(|code| code != "0"),
        _ => None,
    }
}

/// A UUID or the like: nothing that means something in a path.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A name as a query value. `!`, `*`, `|`, `<`, `>` and `..` are operators there unless quoted.
fn quoted(name: &str) -> String {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
