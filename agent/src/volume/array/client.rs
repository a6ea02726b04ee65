//! A client of one array: calls with credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use config::{Secret, Volume};
use reqwest::StatusCode;

use super::call::{Call, Reply};
use super::error::{ArrayError, Kind};
use super::login::{Manners, Session};
use super::tls::Trust;
use super::wire::Wire;

/// How long a call may take with all its attempts, unless configured.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long taking leave may take.
const LEAVE: Duration = Duration::from_secs(2);

/// What a client is made from.
pub(in crate::volume) struct Settings {
    /// The volume's name, for errors and metrics.
    pub(in crate::volume) volume: String,
    /// What the names of the backend's options begin with: `netapp`, `purity`, `weka`.
    pub(in crate::volume) keys: &'static str,
    /// The option that turns verification of certificates off.
    pub(in crate::volume) verify: &'static str,
    /// URLs of the same array.
    pub(in crate::volume) endpoints: Vec<String>,
    /// Whose certificate is taken.
    pub(in crate::volume) trust: Trust,
    /// The password or token. It is taken out of whatever the array says.
    pub(in crate::volume) secret: Secret,
    /// How long a call may take with all its attempts.
    pub(in crate::volume) patience: Duration,
}

impl Settings {
    /// The settings that all backends share, from the options that begin with `keys`. `verify` is the option that can
    /// turn verification off.
    pub(in crate::volume) fn of(
        volume: &Volume,
        keys: &'static str,
        endpoint: &str,
        secret: &str,
        verify: &'static str,
    ) -> Self {
        let options = &volume.options;
        let option = |name: &str| format!("{keys}_{name}");
        let trust = match (options.text(&option("cert_fingerprint")), options.path(&option("ca_file"))) {
            (Some(fingerprint), _) => Trust::Pinned(fingerprint.to_owned()),
            (None, Some(path)) => Trust::Authorities(path.to_owned()),
            (None, None) if options.boolean(verify) == Some(false) => Trust::Anybody,
            (None, None) => Trust::System,
        };
        let endpoints = options.text(endpoint).unwrap_or_default();
        Settings {
            volume: volume.name.clone(),
            keys,
            verify,
            endpoints: endpoints
                .split(',')
                .map(|url| url.trim().to_owned())
                .filter(|url| !url.is_empty())
                .collect(),
            trust,
            secret: options.secret(secret).cloned().unwrap_or_default(),
            patience: options.duration(&option("request_timeout")).unwrap_or(PATIENCE),
        }
    }
}

/// A client of one array, for the life of the process.
pub(in crate::volume) struct Client {
    volume: String,
    /// Or why there is none: the volume is served nevertheless.
    wire: Result<Wire, String>,
    manners: Box<dyn Manners>,
    session: Session,
    /// Whether credentials were refused since they were last taken.
    troubled: AtomicBool,
}

impl Client {
    /// A client that will log in when first used. What is wrong with the settings is logged, and told by every call.
    pub(in crate::volume) fn new(settings: Settings, manners: Box<dyn Manners>) -> Self {
        let volume = settings.volume.clone();
        if settings.trust == Trust::Anybody {
            let (keys, verify) = (settings.keys, settings.verify);
            tracing::warn!(
                volume,
                "{verify} is false, so credentials of the array go to whoever answers; set {keys}_ca_file or \
                 {keys}_cert_fingerprint instead"
            );
        }
        if settings.endpoints.iter().any(|url| url.starts_with("http:")) {
            tracing::warn!(volume, "the array's endpoint is http: credentials travel in the open; use https");
        }
        let wire = Wire::new(settings);
        if let Err(error) = &wire {
            tracing::error!(volume, "the array cannot be called, files are served nevertheless: {error}");
        }
        Client { volume, wire, manners, session: Session::default(), troubled: AtomicBool::new(false) }
    }

    /// A failure of `operation`.
    pub(in crate::volume) fn error(&self, operation: &'static str, kind: Kind) -> ArrayError {
        ArrayError::new(&self.volume, operation, kind)
    }

    /// A text of the array as it may be shown.
    pub(in crate::volume) fn tame(&self, text: &str) -> String {
        match &self.wire {
            Ok(wire) => wire.tame(text),
            Err(_) => super::error::tame(text, &[]),
        }
    }

    /// Makes a call. Whatever status comes back is the caller's to judge, but for refused credentials.
    pub(in crate::volume) async fn send(&self, call: &Call) -> Result<Reply, ArrayError> {
        let wire =
            self.wire.as_ref().map_err(|error| self.error(call.operation, Kind::Setup(error.clone())))?;
        let deadline = Instant::now() + wire.settings.patience;
        let ticket = self.ticket(wire, None, deadline).await?;
        let reply = wire.exchange(call, Some(&ticket), &*self.manners, deadline).await?;
        if !self.manners.is_spent(reply.status) {
            self.accepted().await;
            return Ok(reply);
        }
        self.troubled.store(true, Ordering::Relaxed);
        let ticket = self.ticket(wire, Some(&ticket), deadline).await?;
        let reply = wire.exchange(call, Some(&ticket), &*self.manners, deadline).await?;
        match reply.status {
            StatusCode::UNAUTHORIZED => {
                let problem = "a login succeeded, but the call after it was refused".to_owned();
                Err(self.error(call.operation, Kind::Credentials(problem)))
            }
            _ => {
                self.accepted().await;
                Ok(reply)
            }
        }
    }

    /// Gives back what the array would otherwise keep for this client.
    pub(in crate::volume) async fn close(&self) {
        if let (Ok(wire), Some(ticket)) = (&self.wire, self.session.take().await) {
            let leave = self.manners.logout(wire, &ticket, Instant::now() + LEAVE);
            // Whether it succeeds or not, the service ends.
            let _ = tokio::time::timeout(LEAVE, leave).await;
        }
    }

    async fn ticket(
        &self,
        wire: &Wire,
        spent: Option<&Arc<super::login::Ticket>>,
        deadline: Instant,
    ) -> Result<Arc<super::login::Ticket>, ArrayError> {
        let ticket = self.session.ticket(&*self.manners, wire, spent, deadline).await;
        if ticket.is_err() {
            self.troubled.store(true, Ordering::Relaxed);
        }
        ticket
    }

    /// Takes the session's lock only after trouble.
    async fn accepted(&self) {
        if self.troubled.swap(false, Ordering::Relaxed) {
            self.session.accepted().await;
        }
    }
}
