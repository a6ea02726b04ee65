//! Why the server is of no use at the moment, in words for who operates the agent.
//!
//! What a server says goes to the log, so it is made one short line; and what it says of a login never does, because an
//! error may repeat what it was sent.

use redis::{ErrorKind, RedisError};
use thiserror::Error;

use super::etcd::EtcdError;
use super::server::PATIENCE;

/// Most characters of what a server says.
const LONGEST: usize = 200;

/// Why the server is of no use at the moment.
#[derive(Debug, Error)]
pub(super) enum ServerError {
    /// It cannot be reached, refuses the login, or answers with an error.
    #[error("{address}: {reason}")]
    Server { address: String, reason: String },
    /// It is there, but only repeats what another says.
    #[error("{0} is a replica; events go to a primary")]
    Replica(String),
    /// No Sentinel knows the primary.
    #[error("no Sentinel names the primary of {service:?}; the last said: {reason}")]
    NoPrimary { service: String, reason: String },
    /// Etcd does not say where it is.
    #[error("the server's address could not be read from etcd: {0}")]
    Etcd(#[from] EtcdError),
    /// The file with the authority's certificate cannot be read.
    #[error("events.tls-ca-file: {0}")]
    Authority(std::io::Error),
}

/// How a server was spoken to.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// By TLS.
    pub(super) tls: bool,
    /// The keys of the configuration that the login is from.
    pub(super) login: &'static str,
}

impl Manner {
    /// What went wrong.
    pub(super) fn failed(self, address: &str, error: &RedisError) -> ServerError {
        ServerError::Server { address: address.to_owned(), reason: self.reason(error) }
    }

    fn reason(self, error: &RedisError) -> String {
        let said = error.to_string();
        if error.is_timeout() {
            let tls = if self.tls { "; does it speak TLS?" } else { "" };
            format!("no answer within {} s{tls}", PATIENCE.as_secs())
        } else if error.kind() == ErrorKind::AuthenticationFailed {
            format!("it refuses the login; look at {}", self.login)
        } else if said.contains("Authentication required") {
            format!("it wants a login; give {}", self.login)
        } else if error.kind() == ErrorKind::Parse {
            "what answers there is no Valkey or Redis, or wants TLS".into()
        } else {
            one_line(&said)
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use redis::RedisError;

    use super::*;

    const PLAIN: Manner = Manner { tls: false, login: "events.user and events.password" };

    #[test]
    fn silence_is_told_as_such() {
        let silent = RedisError::from(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        assert_eq!(PLAIN.reason(&silent), "no answer within 3 s");
        assert_eq!(Manner { tls: true, ..PLAIN }.reason(&silent), "no answer within 3 s; does it speak TLS?");
    }

    #[test]
    fn of_a_login_nothing_is_repeated() {
        let echoed = "unknown command 'AUTH', with args beginning with: 's3cret'";
        let refused = RedisError::from((ErrorKind::AuthenticationFailed, "refused", echoed.to_owned()));
        assert_eq!(PLAIN.reason(&refused), "it refuses the login; look at events.user and events.password");
    }

    #[test]
    fn what_a_server_says_is_one_short_line() {
        let said = format!("\u{1b}[31m\n{}", "x".repeat(1000));
        let reason = PLAIN.reason(&RedisError::from((ErrorKind::Client, "said", said)));
        assert_eq!(reason.chars().count(), LONGEST);
        assert!(!reason.chars().any(char::is_control), "{reason:?}");
    }
}
