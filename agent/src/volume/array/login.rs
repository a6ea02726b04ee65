//! What authenticates calls, and how it is renewed: once, for all who find it spent.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use config::Secret;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;

use super::call::Reply;
use super::error::{ArrayError, Kind};
use super::wire::Wire;

/// After the first refusal of the credentials; each further one doubles it. Accounts get locked by hammering.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What an array took for valid credentials.
pub(in crate::volume) struct Ticket {
    /// The header that every call carries.
    pub(in crate::volume) header: (&'static str, HeaderValue),
    /// When it should be renewed, if that is known.
    pub(in crate::volume) renew_at: Option<Instant>,
    /// What renews it without the password, if the array has that.
    pub(in crate::volume) refresh: Option<Secret>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// How one family of arrays wants to be spoken to.
#[async_trait]
pub(in crate::volume) trait Manners: Send + Sync {
    /// Obtains a ticket. `spent` is the one that the array took last, or nothing.
    async fn login(
        &self,
        wire: &Wire,
        spent: Option<&Ticket>,
        deadline: Instant,
    ) -> Result<Ticket, ArrayError>;

    /// Gives a ticket back, where the array would otherwise keep it.
    async fn logout(&self, _: &Wire, _: &Ticket, _: Instant) {}

    /// Whether this status says that the ticket is spent.
    fn is_spent(&self, status: StatusCode) -> bool {
        status == StatusCode::UNAUTHORIZED
    }

    /// Whether this reply says that the same call may succeed later, and that nothing was done.
    fn is_busy(&self, _: &Reply) -> bool {
        false
    }
}

/// HTTP Basic (RFC 7617): the credentials travel with every call, and a refusal is final.
pub(in crate::volume) struct Basic {
    /// The account.
    pub(in crate::volume) user: String,
    /// The keys of the credentials, for the error.
    pub(in crate::volume) keys: &'static str,
    /// Tells the array's "later" from its other refusals.
    pub(in crate::volume) busy: fn(&Reply) -> bool,
}

#[async_trait]
impl Manners for Basic {
    async fn login(&self, wire: &Wire, spent: Option<&Ticket>, _: Instant) -> Result<Ticket, ArrayError> {
        if spent.is_some() {
            let kind = Kind::Credentials(format!("correct {}, or unlock the account", self.keys));
            return Err(wire.error("log in", kind));
        }
        let pair = BASE64_STANDARD.encode(format!("{}:{}", self.user, wire.settings.secret.expose()));
        let value = header_value(&format!("Basic {pair}")).ok_or_else(|| {
            wire.error("log in", Kind::Setup(format!("{} hold what no header can", self.keys)))
        })?;
        Ok(Ticket { header: ("authorization", value), renew_at: None, refresh: None })
    }

    fn is_busy(&self, reply: &Reply) -> bool {
        (self.busy)(reply)
    }
}

/// A secret as the value of a header that no debug print shows.
pub(in crate::volume) fn header_value(secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The one ticket of a client.
#[derive(Default)]
pub(super) struct Session {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ticket: Option<Arc<Ticket>>,
    /// How often in a row the credentials were refused, when last, and how.
    refused: u32,
    rest: Option<(Instant, ArrayError)>,
}

impl Session {
    /// A ticket other than `spent`. Whoever comes while it is being obtained gets the same one, or the same refusal.
    pub(super) async fn ticket(
        &self,
        manners: &dyn Manners,
        wire: &Wire,
        spent: Option<&Arc<Ticket>>,
        deadline: Instant,
    ) -> Result<Arc<Ticket>, ArrayError> {
        let mut state = self.state.lock().await;
        let old = state.ticket.clone();
        if let Some(ticket) = &old {
            let is_spent = spent.is_some_and(|spent| Arc::ptr_eq(spent, ticket));
            if !is_spent && ticket.renew_at.is_none_or(|at| Instant::now() < at) {
                return Ok(Arc::clone(ticket));
            }
        }
        if let Some((until, error)) = &state.rest
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        // A refresh token is used up by its first use, successful or not.
        state.ticket = None;
        match manners.login(wire, old.as_deref(), deadline).await {
            Ok(ticket) => {
                wire.hide(&ticket);
                let ticket = Arc::new(ticket);
                state.ticket = Some(Arc::clone(&ticket));
                Ok(ticket)
            }
            Err(error) => {
                state.rest_after(&error);
                Err(error)
            }
        }
    }

    /// Takes the ticket away, to give it back.
    pub(super) async fn take(&self) -> Option<Arc<Ticket>> {
        self.state.lock().await.ticket.take()
    }

    /// The array took the ticket: earlier refusals are forgotten.
    pub(super) async fn accepted(&self) {
        let mut state = self.state.lock().await;
        (state.refused, state.rest) = (0, None);
    }
}

impl State {
    /// Those who waited for a login that failed, and whoever comes soon after, are told the same instead of trying too.
    fn rest_after(&mut self, error: &ArrayError) {
        let rest = match error.kind() {
            Kind::Credentials(_) => {
                let rest = FIRST_REST.saturating_mul(1 << self.refused.min(10)).min(LONGEST_REST);
                self.refused = self.refused.saturating_add(1);
                rest
            }
            _ => FIRST_REST / 2,
        };
        self.rest = Some((Instant::now() + rest, error.clone()));
    }
}
