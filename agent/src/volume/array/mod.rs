//! The client layer under all backends that speak to an array's own REST API.
//!
//! A vendor's client says which calls it makes and what their replies mean. All else is here and the same for all: TLS
//! and whom to trust, limits of time and size, what may be repeated, one login for all who need it, counting, and errors
//! that tell an operator which key to change. No reply of an array is believed: it is bounded, and read field by field.

mod call;
mod client;
mod error;
mod json;
mod known;
mod login;
pub(crate) mod metrics;
mod pace;
mod sweep;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod turns;
mod wire;

pub(super) use self::call::{Call, Reply};
pub(super) use self::client::{Client, Settings};
pub use self::error::ArrayError;
pub(super) use self::error::Kind;
pub(super) use self::json::{Fields, at};
pub(super) use self::known::{Known, capacity_without, degraded, finding};
pub(super) use self::login::{Basic, Manners, Ticket, header_value};
pub(super) use self::sweep::Sweep;
pub(crate) use self::tls::pinned_to;
pub(super) use self::turns::Turns;
pub(super) use self::wire::Wire;
