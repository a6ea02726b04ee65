//! Error codes of ONTAP 9 that mean something to us (ONTAP REST API reference, error responses of each call).

/// The object is there already.
pub(super) const DUPLICATE: &[&str] = &["1"];
/// No object of that identity.
pub(super) const GONE: &[&str] = &["4", "5242927", "5308478", "5308545"];
/// The account's role lacks the right.
pub(super) const FORBIDDEN: &str = "6";
/// Too many requests, or too many deletions of qtrees, in progress.
pub(super) const BUSY: &[&str] = &["262160", "5242925"];
/// Quotas are on already.
pub(super) const ALREADY_ON: &[&str] = &["5308507"];
/// The volume's quota state does not allow it at the moment.
pub(super) const IN_TRANSITION: &[&str] = &["5308561"];
/// The rule is stored, but will not be in force before quotas were off and on.
pub(super) const NOT_IN_FORCE: &[&str] = &["5308567", "5308568", "5308571"];
/// The rule is deleted, but stays in force until quotas were off and on.
pub(super) const STILL_IN_FORCE: &[&str] = &["5308569", "5308572"];
/// There is no qtree for the rule.
pub(super) const NO_QTREE: &[&str] = &["5308496"];
/// The volume has as many qtrees as it can have, or another reason not to make one.
pub(super) const NOT_MADE: &[&str] = &["5242886"];
/// The limit is too large, out of range, or contradicts another one.
pub(super) const BAD_LIMIT: &[&str] = &["5308573", "5308574", "5308575"];
