//! Tokens of a Weka cluster: short access tokens, and refresh tokens that are used up by use.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use config::Secret;
use serde_json::{Value, json};

use crate::volume::array::{ArrayError, Call, Kind, Manners, Reply, Ticket, Wire, at, header_value};

/// A token is renewed when it is good for less than this; the vendor's own client does the same.
const AHEAD: Duration = Duration::from_secs(30);
const LOG_IN: &str = "log in";

/// A local user of the cluster.
pub(super) struct Tokens {
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) organization: String,
}

#[async_trait]
impl Manners for Tokens {
    async fn login(
        &self,
        wire: &Wire,
        spent: Option<&Ticket>,
        deadline: Instant,
    ) -> Result<Ticket, ArrayError> {
        if let Some(refresh) = spent.and_then(|ticket| ticket.refresh.as_ref()) {
            let call = Call::post("renew the login", "/api/v2/login/refresh");
            let call = call.json(json!({"refresh_token": refresh.expose()}));
            let reply = wire.exchange(&call, None, self, deadline).await?;
            // A refresh token ends too, after a month or by being used by somebody else.
            if reply.status.is_success() {
                return ticket(wire, &reply.body);
            }
        }
        let call = Call::post(LOG_IN, "/api/v2/login").json(json!({
            "username": self.user, "password": self.password.expose(), "org": self.organization,
        }));
        let reply = wire.exchange(&call, None, self, deadline).await?;
        match reply.status.as_u16() {
            _ if reply.status.is_success() => ticket(wire, &reply.body),
            400 | 401 | 403 => Err(wire.error(LOG_IN, refused(&reply))),
            status => {
                Err(wire.error(LOG_IN, Kind::Refused { code: None, message: format!("status {status}") }))
            }
        }
    }
}

fn refused(reply: &Reply) -> Kind {
    let status = reply.status.as_u16();
    Kind::Credentials(format!(
        "status {status}; correct weka_username, weka_password or weka_organization, or unlock the user"
    ))
}

/// Nothing of the reply is shown: it holds the tokens.
fn ticket(wire: &Wire, body: &Value) -> Result<Ticket, ArrayError> {
    let data = at(body, "data");
    if *at(data, "password_change_required") == Value::Bool(true) {
        let problem = "the user must first be given another password than the initial one (weka_password)";
        return Err(wire.error(LOG_IN, Kind::Credentials(problem.into())));
    }
    let token = at(data, "access_token").as_str().filter(|token| !token.is_empty());
    let Some(value) = token.and_then(|token| header_value(&format!("Bearer {token}"))) else {
        return Err(wire.error(LOG_IN, Kind::Malformed("the reply to a login has no access_token".into())));
    };
    let life = at(data, "expires_in").as_u64().map(Duration::from_secs);
    let renew_at = life.and_then(|life| {
        let good_for = life.saturating_sub(AHEAD);
        Instant::now().checked_add(if good_for.is_zero() { life / 2 } else { good_for })
    });
    let refresh = at(data, "refresh_token").as_str().map(|token| Secret::new(token.to_owned()));
    Ok(Ticket { header: ("authorization", value), renew_at, refresh })
}
