//! What a check found, as text for people or as JSON for programs.

use std::fmt::Write as _;
use std::io::IsTerminal;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    Ok,
    Note,
    Warning,
    Problem,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    grade: Grade,
    /// The configuration key, or the topic.
    subject: String,
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Finding {
    fn new(grade: Grade, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { grade, subject: subject.into(), message: message.into(), cure: None }
    }

    /// All is well here.
    pub(super) fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Ok, subject, message)
    }

    /// Good to know.
    pub(super) fn note(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Note, subject, message)
    }

    /// The service runs, but not as it should.
    pub(super) fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Warning, subject, message)
    }

    /// The service, or a part of it, will not work.
    pub(super) fn problem(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Grade::Problem, subject, message)
    }

    /// Says what to do.
    pub(super) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

/// All that was found, in order.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    fn count(&self, grade: Grade) -> usize {
        self.0.iter().filter(|finding| finding.grade == grade).count()
    }

    pub(super) fn has_problems(&self) -> bool {
        self.count(Grade::Problem) > 0
    }

    /// One line for each finding, with its cure below; coloured on a terminal.
    pub(super) fn text(&self) -> String {
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
        let (problems, warnings) = (self.count(Grade::Problem), self.count(Grade::Warning));
        let _ = match problems {
            0 => writeln!(text, "\nThe service can run; {warnings} warning(s)."),
            _ => writeln!(text, "\n{problems} problem(s) to solve, {warnings} warning(s)."),
        };
        text
    }

    /// One object with all findings.
    pub(super) fn json(&self) -> String {
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
             \n1 problem(s) to solve, 0 warning(s).\n"
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
