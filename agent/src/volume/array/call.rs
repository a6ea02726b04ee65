//! One call to an array and its reply.

use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// A call, before anybody knows to which address and with which credentials.
#[derive(Debug, Clone)]
pub(in crate::volume) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(&'static str, reqwest::header::HeaderValue)>,
    /// What it is for, in words that complete "while asked to ..."; also the label of its metrics.
    pub(in crate::volume) operation: &'static str,
    /// Whether doing it twice is as good as once.
    pub(super) repeatable: bool,
}

/// What came back.
#[derive(Debug)]
pub(in crate::volume) struct Reply {
    /// The status; neither a redirect nor one that was worth another try.
    pub(in crate::volume) status: StatusCode,
    /// The headers.
    pub(in crate::volume) headers: HeaderMap,
    /// The body; null for an empty one.
    pub(in crate::volume) body: Value,
}

impl Call {
    fn new(method: Method, operation: &'static str, path: impl Into<String>, repeatable: bool) -> Self {
        let (query, headers) = (Vec::new(), Vec::new());
        Call { method, path: path.into(), query, body: None, headers, operation, repeatable }
    }

    /// Reads `path`, which starts with a slash.
    pub(in crate::volume) fn get(operation: &'static str, path: impl Into<String>) -> Self {
        Call::new(Method::GET, operation, path, true)
    }

    /// Creates something. Never repeated, unless it is certain that nothing was done.
    pub(in crate::volume) fn post(operation: &'static str, path: impl Into<String>) -> Self {
        Call::new(Method::POST, operation, path, false)
    }

    /// Sets something to a value.
    pub(in crate::volume) fn put(operation: &'static str, path: impl Into<String>) -> Self {
        Call::new(Method::PUT, operation, path, true)
    }

    /// Changes something to a value.
    pub(in crate::volume) fn patch(operation: &'static str, path: impl Into<String>) -> Self {
        Call::new(Method::PATCH, operation, path, true)
    }

    /// Removes something; that it is gone already must be a success to the caller.
    pub(in crate::volume) fn delete(operation: &'static str, path: impl Into<String>) -> Self {
        Call::new(Method::DELETE, operation, path, true)
    }

    /// Adds a query parameter.
    pub(in crate::volume) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Gives it a JSON body.
    pub(in crate::volume) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds a header.
    pub(in crate::volume) fn header(
        mut self,
        name: &'static str,
        value: reqwest::header::HeaderValue,
    ) -> Self {
        self.headers.push((name, value));
        self
    }
}
