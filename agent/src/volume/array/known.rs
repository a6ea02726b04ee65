//! Figures of an array as they were when it last answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ArrayError;
use super::error::in_words;
use crate::error::OpError;
use crate::finding::Finding;
use crate::volume::gauge::Mounted;
use crate::volume::{Capacity, Gauge as _, Hardware, Volume};

/// The last value of something, and when it was true.
#[derive(Debug)]
pub(in crate::volume) struct Known<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known(Mutex::new(None))
    }
}

impl<T: Clone> Known<T> {
    /// Remembers a value as true now.
    pub(in crate::volume) fn keep(&self, value: &T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), value.clone()));
    }

    /// The last value and its age.
    pub(in crate::volume) fn last(&self) -> Option<(T, Duration)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|(since, value)| (value.clone(), since.elapsed()))
    }
}

/// The capacity of an array that cannot be asked: as it was the last time, else as the mount has it.
pub(in crate::volume) async fn capacity_without(
    error: &ArrayError,
    last: Option<(Capacity, Duration)>,
    volume: &Arc<Volume>,
) -> Result<Capacity, OpError> {
    match last {
        Some((capacity, age)) => {
            tracing::warn!(%error, "the capacity is told as it was {} ago", in_words(age));
            Ok(capacity)
        }
        None => {
            tracing::warn!(%error, "the capacity is told as the mount has it");
            Mounted { backend: volume.backend.name }.capacity(volume).await
        }
    }
}

/// What is told of an array that cannot be asked: degraded with the facts of the last time and their age, since files are
/// still served; unavailable if nothing was ever known.
pub(in crate::volume) fn degraded(
    error: &ArrayError,
    last: Option<(BTreeMap<String, String>, Duration)>,
) -> Hardware {
    match last {
        Some((mut metadata, age)) => {
            let age_in_seconds = age.as_secs().to_string();
            metadata.insert("figures_age_seconds".into(), age_in_seconds);
            Hardware {
                status: "degraded",
                status_info: Some(format!(
                    "{error}; the figures are {} old, files are still served",
                    in_words(age)
                )),
                metadata,
            }
        }
        None => Hardware {
            status: "unavailable",
            status_info: Some(format!("{error}; files are still served")),
            metadata: BTreeMap::new(),
        },
    }
}

/// An error as `storage-agent check` tells it.
pub(in crate::volume) fn finding(subject: &str, error: &ArrayError) -> Finding {
    Finding::problem(subject, error.to_string())
}
