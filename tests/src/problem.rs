//! What every error reply must have, whatever the error is.
//!
//! Managers of four generations read different parts of it (the contract's section on how managers treat
//! failures), so a test of a refusal checks all of them, not only the status.

use serde_json::Value;

use crate::http::Reply;

/// Where all problem types live.
pub const BASE: &str = "https://api.backend.ai/probs/";

/// The reply as a problem of the manager-facing API with this status, or what is wrong with it.
pub fn manager(reply: &Reply, status: u16) -> Result<Value, String> {
    let body = client(reply, status)?;
    let Some(code) = body.get("error_code") else { return Ok(body) };
    let parts: Vec<&str> = code.as_str().unwrap_or_default().split('_').collect();
    match parts.as_slice() {
        ["vfolder" | "quota-scope", operation, detail] if !operation.is_empty() && !detail.is_empty() => {
            Ok(body)
        }
        _ => Err(format!("the domain of {code} turns the status into 500 for managers since 25.15.7")),
    }
}

/// The reply as a problem of either API with this status, or what is wrong with it.
pub fn client(reply: &Reply, status: u16) -> Result<Value, String> {
    if reply.status != status {
        return Err(format!("status {}, not {status}: {}", reply.status, reply.text()));
    }
    let kind = reply.header("content-type").unwrap_or_default();
    if !["application/json", "application/problem+json"]
        .contains(&kind.split(';').next().unwrap_or("").trim())
    {
        return Err(format!("content type {kind:?}"));
    }
    let body: Value = serde_json::from_slice(&reply.body).map_err(|e| format!("not JSON: {e}"))?;
    if !body["type"].as_str().is_some_and(|text| text.starts_with(BASE) && text.len() > BASE.len()) {
        return Err(format!("no problem type in {body}"));
    }
    match ["title", "msg"].iter().find(|key| body[**key].as_str().is_none_or(str::is_empty)) {
        Some(key) => Err(format!("no {key} in {body}")),
        None => Ok(body),
    }
}

/// Checks that a refusal of wrong parameters says which one it means.
pub fn names(body: &Value, parameter: &str) -> Result<(), String> {
    let in_data = body["data"].as_object().is_some_and(|data| data.contains_key(parameter));
    let in_msg = body["msg"].as_str().is_some_and(|msg| msg.contains(parameter));
    if in_data || in_msg { Ok(()) } else { Err(format!("does not name {parameter:?}: {body}")) }
}
