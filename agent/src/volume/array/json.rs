//! Reading replies field by field, believing nothing.

use serde_json::Value;

use super::{ArrayError, Client, Kind};

/// The first number that is none of a size, rate or time that can be.
const BEYOND: f64 = (1u64 << 63) as f64;

/// The value at a path of keys with dots between them; null where there is none.
pub(in crate::volume) fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// A JSON value of a reply, with what is needed to complain about it.
#[derive(Clone, Copy)]
pub(in crate::volume) struct Fields<'a> {
    client: &'a Client,
    operation: &'static str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    /// The value as the reply to `operation`.
    pub(in crate::volume) fn new(client: &'a Client, operation: &'static str, value: &'a Value) -> Self {
        Fields { client, operation, value }
    }

    /// The value at a path of keys with dots between them; null where there is none.
    pub(in crate::volume) fn raw(&self, path: &str) -> &'a Value {
        at(self.value, path)
    }

    /// The same complaints about a part of it.
    pub(in crate::volume) fn of(&self, value: &'a Value) -> Self {
        Fields { value, ..*self }
    }

    /// A text of the reply as it may be shown.
    pub(in crate::volume) fn tame(&self, text: &str) -> String {
        self.client.tame(text)
    }

    /// That `path` is not as it must be.
    pub(in crate::volume) fn wrong(&self, path: &str, wanted: &str) -> ArrayError {
        let problem = match self.raw(path) {
            Value::Null => format!("{path:?} is missing; it should be {wanted}"),
            found => format!("{path:?} is {}, not {wanted}", self.client.tame(&found.to_string())),
        };
        self.client.error(self.operation, Kind::Malformed(problem))
    }

    /// A text that has to be there.
    pub(in crate::volume) fn text(&self, path: &str) -> Result<&'a str, ArrayError> {
        let text = self.raw(path).as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| self.wrong(path, "a text"))
    }

    /// A list; a missing one is empty.
    pub(in crate::volume) fn list(&self, path: &str) -> Result<&'a [Value], ArrayError> {
        match self.raw(path) {
            Value::Null => Ok(&[]),
            Value::Array(items) => Ok(items),
            _ => Err(self.wrong(path, "a list")),
        }
    }

    /// A count of bytes or things, as a number or as decimal digits; nothing where it is absent or null. What does not
    /// fit into 63 bits is no size of anything that exists.
    pub(in crate::volume) fn count(&self, path: &str) -> Result<Option<u64>, ArrayError> {
        let number = match self.raw(path) {
            Value::Null => return Ok(None),
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(digits) => digits.parse().ok(),
            _ => None,
        };
        match number.filter(|number| i64::try_from(*number).is_ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(path, "a whole number from 0 to 2^63-1")),
        }
    }

    /// A count that has to be there.
    pub(in crate::volume) fn required_count(&self, path: &str) -> Result<u64, ArrayError> {
        self.count(path)?.ok_or_else(|| self.wrong(path, "a whole number"))
    }

    /// A figure that may have a fraction; 0 where it is absent or null.
    pub(in crate::volume) fn figure(&self, path: &str) -> Result<f64, ArrayError> {
        match self.raw(path) {
            Value::Null => Ok(0.0),
            Value::Number(number) => match number.as_f64().filter(|figure| (0.0..BEYOND).contains(figure)) {
                Some(figure) => Ok(figure),
                None => Err(self.wrong(path, "a number from 0 to 2^63-1")),
            },
            _ => Err(self.wrong(path, "a number")),
        }
    }

    /// A figure rounded to a whole number.
    pub(in crate::volume) fn rounded(&self, path: &str) -> Result<u64, ArrayError> {
        Ok(self.figure(path)?.round() as u64)
    }
}

/// A number that is written with a fraction or an exponent but is whole.
fn whole(number: f64) -> Option<u64> {
    ((0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}
