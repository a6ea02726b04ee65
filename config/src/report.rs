//! What is told to the operator about a configuration: the mistakes that stop the start and the notices that do not.
//!
//! Reading never stops at a mistake. Every reader adds to one [`Report`], so that a person corrects a file in one go.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// A mistake, with what the operator needs to correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// The line in it, from 1; `None` for what is missing or concerns no line.
    pub line: Option<usize>,
    /// The dotted key path such as `api.client.service-addr`; empty when the file as a whole is meant.
    pub key: String,
    /// The value that was found. Never a secret, and `None` when there is none to show.
    pub value: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All mistakes of one configuration. It displays as one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The mistakes in the order of the file; never empty.
    pub problems: Vec<Problem>,
    /// What else should be told, because the unknown spelling of a key explains why it is missing.
    pub notices: Vec<Notice>,
}

/// Something that the operator should know but that does not stop the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The configuration file.
    pub file: PathBuf,
    /// The line in it, from 1, if it concerns one.
    pub line: Option<usize>,
    /// The dotted key path; empty when the file as a whole is meant.
    pub key: String,
    /// What sort of notice it is.
    pub kind: NoticeKind,
    /// One sentence for the operator.
    pub message: String,
}

/// The sorts of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// The key is not known at all; perhaps misspelt.
    Unknown,
    /// The key is the reference proxy's and has no effect here.
    Ignored,
    /// The value works, but is unwise.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key)?;
        match &self.value {
            Some(value) => write!(f, "{value} {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key)?;
        f.write_str(&self.message)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, file: &Path, line: Option<usize>, key: &str) -> fmt::Result {
    write!(f, "{}", file.display())?;
    if let Some(line) = line {
        write!(f, ":{line}")?;
    }
    if !key.is_empty() {
        write!(f, ": {key}")?;
    }
    f.write_str(": ")
}

/// Collects while a file is read.
#[derive(Default)]
pub(crate) struct Report {
    file: PathBuf,
    problems: RefCell<Vec<Problem>>,
    notices: RefCell<Vec<Notice>>,
    /// Key paths that a reader asked for, with whether they have an effect.
    known: RefCell<Vec<(String, bool)>>,
}

impl Report {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    pub(crate) fn problem(
        &self,
        line: Option<usize>,
        key: &str,
        value: Option<String>,
        message: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            line: line.filter(|line| *line > 0),
            key: key.to_owned(),
            value,
            message: message.into(),
        });
    }

    pub(crate) fn notice(
        &self,
        line: Option<usize>,
        key: &str,
        kind: NoticeKind,
        message: impl Into<String>,
    ) {
        self.notices.borrow_mut().push(Notice {
            file: self.file.clone(),
            line: line.filter(|line| *line > 0),
            key: key.to_owned(),
            kind,
            message: message.into(),
        });
    }

    pub(crate) fn known(&self, key: String, used: bool) {
        self.known.borrow_mut().push((key, used));
    }

    /// See the field; what the tests of the samples compare with.
    #[cfg(test)]
    pub(crate) fn known_keys(&self) -> Vec<(String, bool)> {
        self.known.borrow().clone()
    }

    /// The notices, or the problems as well if there is any; both in the order of the file.
    pub(crate) fn finish(self) -> Result<Vec<Notice>, Problems> {
        let all = self.into_problems();
        if all.problems.is_empty() { Ok(all.notices) } else { Err(all) }
    }

    /// What was reported, in the order of the file.
    pub(crate) fn into_problems(self) -> Problems {
        let (mut problems, mut notices) = (self.problems.into_inner(), self.notices.into_inner());
        problems.sort_by_key(|problem| problem.line);
        notices.sort_by_key(|notice| notice.line);
        Problems { problems, notices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_place_key_value_and_remedy() {
        let problem = Problem {
            file: "/etc/backend.ai/storage-proxy.toml".into(),
            line: Some(12),
            key: "storage-proxy.session-expire".into(),
            value: Some("\"1x\"".into()),
            message: "is not a duration".into(),
        };
        assert_eq!(
            problem.to_string(),
            "/etc/backend.ai/storage-proxy.toml:12: storage-proxy.session-expire: \"1x\" is not a duration"
        );
        let whole =
            Problem { line: None, key: String::new(), value: None, message: "is empty".into(), ..problem };
        assert_eq!(whole.to_string(), "/etc/backend.ai/storage-proxy.toml: is empty");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let report = Report::new(Path::new("f"));
        report.problem(Some(9), "b", None, "late");
        report.problem(Some(2), "a", None, "early");
        let problems = report.finish().unwrap_err();
        assert_eq!(problems.to_string(), "f:2: a: early\nf:9: b: late");
    }
}
