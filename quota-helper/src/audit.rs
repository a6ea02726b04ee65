//! What is wrong in and between `/etc/projects` and `/etc/projid`.
//!
//! Each finding names the file and line to change and says how. The order is that of the files, so that an operator
//! can go through it with an editor.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;

use thiserror::Error;

use crate::entry::{LineError, ProjectId, ProjectName, ProjectPath, Shown};
use crate::files::{Numbered, Table};

/// A mistake at a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}:{line}: {problem}")]
pub struct Finding {
    /// The file, for messages.
    pub file: String,
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The line itself.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A directory listed before.
    #[error(
        "{path} is given to project {id}, but line {first} gives it to {other} already; remove one of the lines"
    )]
    PathTwice {
        /// The directory.
        path: Shown,
        /// The project of this line.
        id: ProjectId,
        /// The earlier line.
        first: usize,
        /// The project of that line.
        other: ProjectId,
    },
    /// A name listed before.
    #[error(
        "the name {name} is on line {first} already, and only that one counts; rename or remove one of them"
    )]
    NameTwice {
        /// The name.
        name: Shown,
        /// The earlier line.
        first: usize,
    },
    /// An id with another name before.
    #[error(
        "project {id} has a name on line {first} already, so {name} shares its limit; give one of them another \
         id, or remove one"
    )]
    IdTwice {
        /// The id.
        id: ProjectId,
        /// The name of this line.
        name: Shown,
        /// The earlier line.
        first: usize,
    },
    /// A directory of a project without a name.
    #[error("project {id} of {path} has no name in {names}; add a line name:{id} there, or remove this one")]
    NoName {
        /// The project.
        id: ProjectId,
        /// The directory.
        path: Shown,
        /// The file of names.
        names: String,
    },
    /// A name of a project without a directory.
    #[error(
        "project {id}, {name}, has no directory in {paths}; add a line {id}:/path there, or remove this one"
    )]
    NoPath {
        /// The project.
        id: ProjectId,
        /// The name.
        name: Shown,
        /// The file of directories.
        paths: String,
    },
}

/// All mistakes of both files: those of the file of directories first, each file's in the order of its lines.
pub fn audit(paths: &Table<ProjectPath>, names: &Table<ProjectName>) -> Vec<Finding> {
    let mut of_paths = malformed(&paths.malformed);
    of_paths.extend(repeated_paths(paths));
    of_paths.extend(nameless(paths, names));
    let mut of_names = malformed(&names.malformed);
    of_names.extend(repeated_names(names));
    of_names.extend(repeated_ids(names));
    of_names.extend(pathless(paths, names));
    let mut findings = in_order(&paths.path, of_paths);
    findings.extend(in_order(&names.path, of_names));
    findings
}

type Problems = Vec<Numbered<Problem>>;

fn malformed(lines: &[Numbered<LineError>]) -> Problems {
    lines.iter().map(|l| Numbered { line: l.line, value: l.value.clone().into() }).collect()
}

fn repeated_paths(paths: &Table<ProjectPath>) -> Problems {
    // Compared as paths, so that /a and /a/ are the same directory.
    let problem = |this: &ProjectPath, earlier: &Numbered<ProjectPath>| Problem::PathTwice {
        path: Shown::from(this.path.as_path()),
        id: this.id,
        first: earlier.line,
        other: earlier.value.id,
    };
    repeated(&paths.entries, |entry| entry.path.as_path(), problem)
}

fn repeated_names(names: &Table<ProjectName>) -> Problems {
    let problem = |this: &ProjectName, earlier: &Numbered<ProjectName>| Problem::NameTwice {
        name: Shown::from(this.name.as_slice()),
        first: earlier.line,
    };
    repeated(&names.entries, |entry| entry.name.as_slice(), problem)
}

fn repeated_ids(names: &Table<ProjectName>) -> Problems {
    let problem = |this: &ProjectName, earlier: &Numbered<ProjectName>| Problem::IdTwice {
        id: this.id,
        name: Shown::from(this.name.as_slice()),
        first: earlier.line,
    };
    repeated(&names.entries, |entry| entry.id, problem)
}

/// A problem for each entry whose key an earlier one has.
fn repeated<'a, E, K: Hash + Eq + 'a>(
    entries: &'a [Numbered<E>],
    key: impl Fn(&'a E) -> K,
    problem: impl Fn(&E, &Numbered<E>) -> Problem,
) -> Problems {
    let mut first: HashMap<K, &Numbered<E>> = HashMap::new();
    let mut problems = Vec::new();
    for entry in entries {
        let earlier = *first.entry(key(&entry.value)).or_insert(entry);
        if earlier.line != entry.line {
            problems.push(Numbered { line: entry.line, value: problem(&entry.value, earlier) });
        }
    }
    problems
}

fn nameless(paths: &Table<ProjectPath>, names: &Table<ProjectName>) -> Problems {
    let named: HashSet<ProjectId> = names.entries.iter().map(|entry| entry.value.id).collect();
    let lines = paths.entries.iter().filter(|entry| !named.contains(&entry.value.id));
    let problem = |entry: &ProjectPath| Problem::NoName {
        id: entry.id,
        path: Shown::from(entry.path.as_path()),
        names: names.path.display().to_string(),
    };
    lines.map(|entry| Numbered { line: entry.line, value: problem(&entry.value) }).collect()
}

fn pathless(paths: &Table<ProjectPath>, names: &Table<ProjectName>) -> Problems {
    let placed: HashSet<ProjectId> = paths.entries.iter().map(|entry| entry.value.id).collect();
    let lines = names.entries.iter().filter(|entry| !placed.contains(&entry.value.id));
    let problem = |entry: &ProjectName| Problem::NoPath {
        id: entry.id,
        name: Shown::from(entry.name.as_slice()),
        paths: paths.path.display().to_string(),
    };
    lines.map(|entry| Numbered { line: entry.line, value: problem(&entry.value) }).collect()
}

fn in_order(file: &Path, mut problems: Problems) -> Vec<Finding> {
    problems.sort_by_key(|problem| problem.line);
    let file = file.display().to_string();
    let finding = |p: Numbered<Problem>| Finding { file: file.clone(), line: p.line, problem: p.value };
    problems.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(projects: &str, projid: &str) -> Vec<String> {
        let paths = Table::parse(Path::new("projects"), projects.as_bytes());
        let names = Table::parse(Path::new("projid"), projid.as_bytes());
        audit(&paths, &names).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn good_files_have_no_findings() {
        for (projects, projid) in [
            ("", ""),
            ("# none yet\n", "\n"),
            ("1:/a\n2:/b\n", "alpha:1\nbeta:2\n"),
            ("1:/a\n1:/another/place\n", "alpha:1\n"),
        ] {
            assert_eq!(findings(projects, projid), [""; 0], "{projects:?} {projid:?}");
        }
    }

    #[test]
    fn each_mistake_is_found_at_its_line() {
        for (projects, projid, want) in [
            ("1:/a\nx:/b\n", "alpha:1\n", "projects:2: \"x\" is not a project id"),
            ("1:/a\n0:/b\n", "alpha:1\n", "projects:2: project 0 "),
            ("1:/a\n", "alpha:1\nroot:0\n", "projid:2: project 0 "),
            ("1:/a\n2:b\n1:/b", "alpha:1\n", "projects:2: \"b\" is not an absolute path"),
            (
                "1:/a\n2:/a\n",
                "alpha:1\nbeta:2\n",
                "projects:2: \"/a\" is given to project 2, but line 1 gives it to 1",
            ),
            ("1:/a\n1:/a/\n", "alpha:1\n", "projects:2: \"/a/\" is given to project 1, but line 1"),
            (
                "1:/a\n2:/b\n",
                "alpha:1\nbeta:2\nalpha:2\n",
                "projid:3: the name \"alpha\" is on line 1 already",
            ),
            (
                "1:/a\n",
                "alpha:1\n\nbeta:1\n",
                "projid:3: project 1 has a name on line 1 already, so \"beta\"",
            ),
            (
                "1:/a\n2:/b\n",
                "alpha:1\n",
                "projects:2: project 2 of \"/b\" has no name in projid; add a line name:2",
            ),
            (
                "1:/a\n",
                "alpha:1\nbeta:2\n",
                "projid:2: project 2, \"beta\", has no directory in projects; add a line 2:/path",
            ),
        ] {
            let found = findings(projects, projid);
            assert!(found.iter().any(|f| f.starts_with(want)), "{projects:?} {projid:?} gave {found:?}");
        }
    }

    #[test]
    fn findings_come_in_the_order_of_the_files() {
        let found = findings("2:/b\nbad\n1:/a\n1:/a\n", "beta:3\nbad\n");
        let places: Vec<&str> = found.iter().map(|f| f.split(": ").next().unwrap()).collect();
        assert_eq!(
            places,
            ["projects:1", "projects:2", "projects:3", "projects:4", "projects:4", "projid:1", "projid:2"]
        );
    }
}
