//! The last warnings and errors, kept in memory for `storage-agent top`.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How many are kept.
const KEPT: usize = 20;
/// Characters of one.
const LONGEST: usize = 500;

static RECENT: Mutex<VecDeque<Complaint>> = Mutex::new(VecDeque::new());

/// A warning or an error as it was logged.
#[derive(Debug, Clone)]
pub struct Complaint {
    /// When.
    pub at: Timestamp,
    /// Whether it is an error and not a warning.
    pub is_error: bool,
    /// What was said, with its fields.
    pub text: String,
}

/// The last ones, the oldest first.
pub fn recent() -> Vec<Complaint> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Keeps them.
pub(super) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let is_error = *event.metadata().level() == Level::ERROR;
        let complaint = Complaint { at: Timestamp::now(), is_error, text: text.whole() };
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= KEPT {
            recent.pop_front();
        }
        recent.push_back(complaint);
    }
}

/// The message, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(self) -> String {
        let text = self.message + &self.fields;
        match text.char_indices().nth(LONGEST) {
            None => text,
            Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "...",
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
