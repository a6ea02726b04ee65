//! Sessions of a FlashBlade: a token of an array user is exchanged for a session that ends when it is idle.

use std::time::Instant;

use async_trait::async_trait;
use reqwest::StatusCode;

use crate::volume::array::{ArrayError, Call, Kind, Manners, Reply, Ticket, Wire, at, header_value};

const LOG_IN: &str = "log in";
const SESSION: &str = "x-auth-token";

/// Logs in with the configured token.
pub(super) struct Sessions;

#[async_trait]
impl Manners for Sessions {
    async fn login(
        &self,
        wire: &Wire,
        spent: Option<&Ticket>,
        deadline: Instant,
    ) -> Result<Ticket, ArrayError> {
        if let Some(spent) = spent {
            // The array has few sessions; that one is over anyway if this fails.
            self.logout(wire, spent, deadline).await;
        }
        let unusable = || wire.error(LOG_IN, Kind::Setup("purity_api_token holds what no header can".into()));
        let token = header_value(wire.secret()).ok_or_else(unusable)?;
        let call = Call::post(LOG_IN, "/api/login").header("api-token", token);
        let reply = wire.exchange(&call, None, self, deadline).await?;
        match reply.status.as_u16() {
            _ if reply.status.is_success() => {}
            400..=499 => {
                let problem = format!("status {}; correct purity_api_token", reply.status.as_u16());
                return Err(wire.error(LOG_IN, Kind::Credentials(problem)));
            }
            status => {
                let message = format!("status {status}");
                return Err(wire.error(LOG_IN, Kind::Refused { code: None, message }));
            }
        }
        match reply.headers.get(SESSION).filter(|session| !session.is_empty()) {
            Some(session) => {
                let mut session = session.clone();
                session.set_sensitive(true);
                Ok(Ticket { header: (SESSION, session), renew_at: None, refresh: None })
            }
            None => {
                let problem = format!("the reply to a login has no header {SESSION}");
                Err(wire.error(LOG_IN, Kind::Malformed(problem)))
            }
        }
    }

    /// A session that is over answers 403 in REST 2.x, and so does a lack of rights.
    fn is_spent(&self, status: StatusCode) -> bool {
        matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    fn is_busy(&self, reply: &Reply) -> bool {
        let errors = at(&reply.body, "errors").as_array();
        let messages = errors.into_iter().flatten().filter_map(|error| at(error, "message").as_str());
        reply.status.is_server_error()
            && messages.into_iter().any(|message| message.contains("Server is busy"))
    }

    async fn logout(&self, wire: &Wire, ticket: &Ticket, deadline: Instant) {
        let call = Call::post("log out", "/api/logout");
        if let Err(error) = wire.exchange(&call, Some(ticket), self, deadline).await {
            tracing::debug!(%error, "a session was not closed");
        }
    }
}
