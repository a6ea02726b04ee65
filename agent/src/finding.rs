//! What an examination found, each with its cure, as text for people or as JSON for programs.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// The service runs, but not as it should.
    Warning,
    /// The service, or a part of it, will not work.
    Problem,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// The configuration key, or the topic.
    pub subject: String,
    /// What is the case.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    fn new(grade: Grade, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { grade, subject: subject.into(), message: message.into(), cure: None }
    }

    /// All is well here.
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Ok, subject, message)
    }

    /// Good to know.
    pub fn note(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Note, subject, message)
    }

    /// The service runs, but not as it should.
    pub fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Warning, subject, message)
    }

    /// The service, or a part of it, will not work.
    pub fn problem(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Problem, subject, message)
    }

    /// Says what to do.
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

/// All that was found, in order.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

// === impl Report ===

impl Report {
    /// Puts it at the end.
    pub fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// How many of this grade there are.
    pub fn count(&self, grade: Grade) -> usize {
        self.0.iter().filter(|finding| finding.grade == grade).count()
    }

    /// Whether something will not work.
    pub fn has_problems(&self) -> bool {
        self.count(Grade::Problem) > 0
    }

    /// Prints all of it to the standard output, as one JSON object or as text that ends with a conclusion made of the
    /// numbers of problems and warnings.
    pub fn print(&self, json: bool, conclusion: impl FnOnce(usize, usize) -> String) {
        let text = if json {
            self.json()
        } else {
            let conclusion = conclusion(self.count(Grade::Problem), self.count(Grade::Warning));
            format!("{}\n{conclusion}\n", self.text())
        };
        // Nobody reads where printing fails.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    /// One line for each finding, with its cure below; coloured on a terminal.
    fn text(&self) -> String {
        let plain =
            !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        self.lines(!plain)
    }

    fn lines(&self, colored: bool) -> String {
        let width = self.0.iter().map(|finding| finding.subject.len()).max().unwrap_or(0).min(32);
        let mut text = String::new();
        for Finding { grade, subject, message, cure } in &self.0 {
            let (word, color) = match grade {
                Grade::Ok => ("ok", "\x1b[32m"),
                Grade::Note => ("note", "\x1b[36m"),
                Grade::Warning => ("warn", "\x1b[33m"),
                Grade::Problem => ("FAIL", "\x1b[1;31m"),
            };
            let (on, off) = if colored { (color, "\x1b[0m") } else { ("", "") };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{on}{word:>4}{off}  {subject:<width$}  {message}");
            if let Some(cure) = cure {
                let _ = writeln!(text, "      {:width$}  -> {cure}", "");
            }
        }
        text
    }

    /// One object with all findings.
    fn json(&self) -> String {
        let all = serde_json::json!({ "ok": !self.has_problems(), "findings": self.0 });
        format!("{all:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let problem = Finding::problem("volume.a.path", "cannot be written").cure("chown it");
        Report(vec![Finding::ok("configuration", "valid"), problem])
    }

    #[test]
    fn text_lines_up_and_counts_what_is_to_be_done() {
        assert_eq!(
            report().lines(false),
            "  ok  configuration  valid\nFAIL  volume.a.path  cannot be written\n                     -> chown it\n\
"
        );
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][1]["grade"], "problem");
        assert_eq!(json["findings"][1]["cure"], "chown it");
    }
}
