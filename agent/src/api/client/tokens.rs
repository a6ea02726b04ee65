//! Replies to tokens that are refused.

use serde_json::{Map, Value};
use warp::http::StatusCode;

use crate::api::problem::Problem;
use crate::token::TokenError;

/// The reply where a token names nothing, whether it is missing or lies outside.
pub(super) fn missing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "storage/file-not-found", "File not found")
}

/// For `/download` and `/upload`: 400 that names the parameter.
pub(super) fn refusal(error: TokenError) -> Problem {
    let mut data = Map::new();
    let what = match error {
        TokenError::Claims(mistakes) => Value::Object(mistakes),
        other => format!("cannot decode the given value as JWT: {other}").into(),
    };
    data.insert("token".into(), what);
    Problem::invalid_params(data)
}

/// For `/download-archive`: a status and a code for each reason.
pub(super) fn coded_refusal(error: TokenError) -> Problem {
    let msg = error.to_string();
    match error {
        TokenError::Expired => {
            Problem::new(StatusCode::UNAUTHORIZED, "jwt-expired", "JWT token has expired.")
                .code("auth_auth_data-expired")
        }
        TokenError::Signature => Problem::new(
            StatusCode::UNAUTHORIZED,
            "jwt-invalid-signature",
            "JWT signature verification failed.",
        )
        .code("auth_auth_unauthorized"),
        TokenError::Claims(mistakes) => Problem::new(
            StatusCode::BAD_REQUEST,
            "jwt-payload-validation-error",
            "JWT payload validation failed.",
        )
        .code("auth_auth_invalid-parameters")
        .data(Value::Object(mistakes)),
        TokenError::TooLong(_) | TokenError::Malformed(_) | TokenError::NotYetValid(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "jwt-decode-error", "Failed to decode JWT token.")
                .code("auth_auth_bad-request")
        }
    }
    .msg(msg)
}
