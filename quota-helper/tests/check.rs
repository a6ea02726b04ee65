//! `quota-helper check` as an operator meets it: output, exit status, and files left as they were.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_quota-helper")).args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs `check` over these two contents, and sees to it that they are still there afterwards.
fn check(projects: &str, projid: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let (paths, names) = (folder.path().join("projects"), folder.path().join("projid"));
    fs::write(&paths, projects).unwrap();
    fs::write(&names, projid).unwrap();
    let (code, out, _) =
        run(&["check", "--projects", paths.to_str().unwrap(), "--projid", names.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&paths).unwrap(), projects);
    assert_eq!(fs::read_to_string(&names).unwrap(), projid);
    (code, out.replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn good_files_exit_with_0() {
    let (code, out) = check("1001:/vfroot/xfs/alpha\n", "alpha:1001\n");
    assert_eq!((code, out.as_str()), (0, "directories: 1, names: 1, problems: 0\n"));
}

#[test]
fn mistakes_are_named_by_file_and_line_and_exit_with_1() {
    let (code, out) = check("1001:/vfroot/xfs/alpha\n1002:beta\n", "alpha:1001\nbeta:1001\n");
    assert_eq!(code, 1);
    let places: Vec<&str> = out.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["projects:2", "projid:2", "directories"], "{out}");
}

#[test]
fn a_file_that_was_asked_for_and_is_missing_exits_with_1() {
    let (code, out, err) = run(&["check", "--projects", "/nowhere/projects", "--projid", "/nowhere/projid"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("/nowhere/projects: No such file") && err.contains("/nowhere/projid"), "{err}");
}

#[test]
fn without_a_subcommand_the_usage_is_shown_and_the_exit_status_is_64() {
    let (code, out, err) = run(&[]);
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains("serving is not part of it") && err.contains("Usage:"), "{err}");
}
