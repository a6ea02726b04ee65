//! Requests and replies: the part of the client that touches the network.
//!
//! It knows nothing of logins. One call may take several attempts, all within one deadline; attempts at the same array are
//! bounded in number, whoever makes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::call::{Call, Reply};
use super::client::Settings;
use super::error::{ArrayError, Kind, tame};
use super::login::{Manners, Ticket};
use super::{metrics, pace, tls};

/// The longest reply, in bytes; listings are read page by page, so none is near.
const LONGEST: usize = 8 << 20;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Requests to one array at once; vendors' own clients keep to 20 for all volumes together.
const AT_ONCE: usize = 8;

/// Tokens that are kept out of texts: those of the last few logins.
const HIDDEN: usize = 16;

/// The way to one array.
pub(in crate::volume) struct Wire {
    http: reqwest::Client,
    /// At least one, and each with the path `/`.
    endpoints: Vec<Url>,
    /// The one that answered last.
    current: AtomicUsize,
    at_once: Semaphore,
    refused: tls::Refused,
    /// Tokens that were issued lately, to be taken out of whatever the array says.
    issued: Mutex<VecDeque<String>>,
    pub(super) settings: Settings,
}

/// An attempt that gave no reply to go on with.
struct Failed {
    error: ArrayError,
    outcome: &'static str,
    again: Again,
}

/// Whether another attempt may help.
enum Again {
    /// No.
    No,
    /// The array has done nothing, so any call may be repeated; it may have said when.
    Undone(Option<Duration>),
    /// Nobody knows what was done.
    Unknown(Option<Duration>),
}

impl Wire {
    /// Prepares connections; none is opened yet. An error names the key that is wrong.
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        let endpoints =
            settings.endpoints.iter().map(|text| endpoint(text)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(format!("{}_endpoint is empty", settings.keys));
        }
        let refused = Arc::new(Mutex::new(None));
        let tls = tls::client_config(&settings.trust, Arc::clone(&refused))
            .map_err(|error| format!("{}_ca_file: {error}", settings.keys))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(30))
            .user_agent(concat!("storage-agent/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|error| chain(&error))?;
        let at_once = Semaphore::new(AT_ONCE);
        let (current, issued) = (AtomicUsize::new(0), Mutex::default());
        Ok(Wire { http, endpoints, current, at_once, refused, issued, settings })
    }

    /// A failure of `operation`.
    pub(in crate::volume) fn error(&self, operation: &'static str, kind: Kind) -> ArrayError {
        ArrayError::new(&self.settings.volume, operation, kind)
    }

    /// The configured password or token.
    pub(in crate::volume) fn secret(&self) -> &str {
        self.settings.secret.expose()
    }

    /// A text of the array as it may be shown.
    pub(in crate::volume) fn tame(&self, text: &str) -> String {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<_> = issued.iter().map(String::as_str).chain([self.secret()]).collect();
        tame(text, &secrets)
    }

    /// Never shows what this ticket is made of.
    pub(super) fn hide(&self, ticket: &Ticket) {
        let header = ticket.header.1.to_str().ok().and_then(|value| value.split_whitespace().next_back());
        let refresh = ticket.refresh.as_ref().map(config::Secret::expose);
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.extend(header.into_iter().chain(refresh).map(str::to_owned));
        let over = issued.len().saturating_sub(HIDDEN);
        issued.drain(..over);
    }

    /// Makes a call and reads its reply, in as many attempts as it takes and may. Statuses that say more than "later" are
    /// replies like any other.
    pub(in crate::volume) async fn exchange(
        &self,
        call: &Call,
        ticket: Option<&Ticket>,
        manners: &dyn Manners,
        deadline: Instant,
    ) -> Result<Reply, ArrayError> {
        let mut failed = 0;
        loop {
            let failure = match self.attempt(call, ticket, manners, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            failed += 1;
            let asked = match failure.again {
                Again::Undone(asked) => asked,
                Again::Unknown(asked) if call.repeatable => asked,
                Again::Unknown(_) | Again::No => return Err(failure.error),
            };
            let Some(pause) = pace::pause(failed) else { return Err(failure.error) };
            let pause = asked.map_or(pause, pace::jittered);
            if Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, counted and timed.
    async fn attempt(
        &self,
        call: &Call,
        ticket: Option<&Ticket>,
        manners: &dyn Manners,
        deadline: Instant,
    ) -> Result<Reply, Failed> {
        let late = || Failed {
            error: self.error(call.operation, self.too_slow()),
            outcome: "timeout",
            again: Again::No,
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        let Ok(Ok(_turn)) = tokio::time::timeout(left(), self.at_once.acquire()).await else {
            return Err(late());
        };
        let begun = Instant::now();
        let reply = tokio::time::timeout(left(), self.once(call, ticket, manners)).await;
        let reply = reply.unwrap_or_else(|_| Err(late()));
        let outcome = match &reply {
            Ok(reply) if reply.status.is_success() => "ok",
            Ok(_) => "refused",
            Err(failed) => failed.outcome,
        };
        let took = begun.elapsed();
        metrics::count(&self.settings.volume, call.operation, outcome, took);
        let status = reply.as_ref().map_or(0, |reply| reply.status.as_u16());
        tracing::debug!(
            volume = self.settings.volume,
            method = %call.method,
            path = call.path,
            status,
            outcome,
            ms = took.as_millis(),
            "array call: {}",
            call.operation
        );
        reply
    }

    async fn once(
        &self,
        call: &Call,
        ticket: Option<&Ticket>,
        manners: &dyn Manners,
    ) -> Result<Reply, Failed> {
        let number = self.current.load(Ordering::Relaxed);
        let sent = self.request(call, ticket, number).send().await;
        let response = sent.map_err(|error| {
            // The next attempt goes elsewhere, if there is an elsewhere.
            let next = (number + 1) % self.endpoints.len();
            let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
            self.not_sent(call, &error)
        })?;
        if response.status().is_redirection() {
            return Err(self.redirected(call, &response));
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = self.read(call, response).await?;
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.iter().all(u8::is_ascii_whitespace) => Value::Null,
            // An error page of something between here and the array.
            Err(_) if !status.is_success() => Value::Null,
            Err(error) => return Err(self.not_json(call, status, content_type, &error)),
        };
        let reply = Reply { status, headers, body };
        let busy = matches!(status.as_u16(), 429 | 502..=504) || manners.is_busy(&reply);
        if busy { Err(self.busy(call, &reply)) } else { Ok(reply) }
    }

    fn request(&self, call: &Call, ticket: Option<&Ticket>, number: usize) -> reqwest::RequestBuilder {
        let mut url = self.endpoints.get(number).or(self.endpoints.first()).cloned();
        if let Some(url) = &mut url {
            let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
            url.set_path(path);
            url.set_query(Some(query).filter(|query| !query.is_empty()));
            if !call.query.is_empty() {
                url.query_pairs_mut().extend_pairs(&call.query);
            }
        }
        let url = url.map_or_else(String::new, String::from);
        let mut request = self.http.request(call.method.clone(), url).header(ACCEPT, "application/json");
        for (name, value) in call.headers.iter().chain(ticket.map(|ticket| &ticket.header)) {
            request = request.header(*name, value.clone());
        }
        match &call.body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            None => request,
        }
    }

    async fn read(&self, call: &Call, mut response: Response) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| Failed {
                error: self.error(
                    call.operation,
                    Kind::Unreachable(format!("its reply broke off: {}", chain(&error))),
                ),
                outcome: "unreachable",
                again: Again::Unknown(None),
            })?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if bytes.len() + chunk.len() > LONGEST {
                let problem = "its reply is longer than 8 MiB".to_owned();
                return Err(self.malformed(call, problem));
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    fn not_sent(&self, call: &Call, error: &reqwest::Error) -> Failed {
        let (kind, again) = match tls::refusal(error, &self.refused, self.settings.keys) {
            Some(reason) => (Kind::Untrusted(reason), Again::No),
            None if error.is_connect() => (Kind::Unreachable(chain(error)), Again::Undone(None)),
            None => (Kind::Unreachable(chain(error)), Again::Unknown(None)),
        };
        Failed { error: self.error(call.operation, kind), outcome: "unreachable", again }
    }

    fn redirected(&self, call: &Call, response: &Response) -> Failed {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let problem = format!(
            "it redirects to {}, which is not followed, since credentials would go there; if that is the array, correct {}_endpoint",
            self.tame(to),
            self.settings.keys
        );
        self.malformed(call, problem)
    }

    fn not_json(
        &self,
        call: &Call,
        status: StatusCode,
        content_type: &str,
        error: &serde_json::Error,
    ) -> Failed {
        let shown = self.tame(content_type);
        let problem = if shown.contains("json") {
            format!("its reply (status {}) is not valid JSON: {error}", status.as_u16())
        } else {
            let keys = self.settings.keys;
            format!(
                "its reply (status {}) is {shown:?} instead of JSON; is {keys}_endpoint the address of its REST API?",
                status.as_u16()
            )
        };
        self.malformed(call, problem)
    }

    fn malformed(&self, call: &Call, problem: String) -> Failed {
        let error = self.error(call.operation, Kind::Malformed(problem));
        Failed { error, outcome: "malformed", again: Again::No }
    }

    fn busy(&self, call: &Call, reply: &Reply) -> Failed {
        let status = reply.status;
        let kind = Kind::Busy(format!("it answered with status {}", status.as_u16()));
        let asked = pace::asked_pause(&reply.headers);
        // These are refused before anything is done; a gateway's 502 or 504 may come after.
        let again = match status.as_u16() {
            502 | 504 => Again::Unknown(asked),
            _ => Again::Undone(asked),
        };
        Failed { error: self.error(call.operation, kind), outcome: "busy", again }
    }

    fn too_slow(&self) -> Kind {
        Kind::Unreachable(format!("no complete reply within {} s", self.settings.patience.as_secs_f64()))
    }
}

/// An address of the configuration, without a path and without the credentials that some write into it.
fn endpoint(text: &str) -> Result<Url, String> {
    let mut url: Url = text.trim().parse().map_err(|error| format!("the endpoint is no URL: {error}"))?;
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| "the endpoint is no URL of a host".to_owned())?;
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// An error with its causes, which reqwest leaves to the reader.
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.last().is_some_and(|last| last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    // The first part repeats the URL.
    let from = usize::from(parts.len() > 1);
    parts.get(from..).unwrap_or_default().join(": ")
}
