//! The command line as an operator meets it.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_quota-helper")).args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_command_lines_exit_with_64_and_are_shown() {
    for arguments in [
        &[][..],
        &["frob"],
        &["check", "--apply"],
        &["serve", "--apply"],
        &["serve", "--config"],
        &["repair", "--apply", "extra"],
        &["repair", "--apply", "--apply"],
        &["--help", "more"],
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}");
        assert!(err.contains(&format!("{arguments:?} is no command with its options")), "{err}");
    }
    assert!(run(&["--help"]).1.contains("Usage: quota-helper serve"));
    assert!(run(&["--version"]).1.starts_with("quota-helper "));
}

#[test]
fn a_configuration_that_is_missing_is_named_and_exits_with_1() {
    for command in ["serve", "check", "repair", "rebuild"] {
        let (code, out, err) = run(&[command, "--config", "/nowhere/conf"]);
        assert_eq!((code, out.as_str()), (1, ""), "{command}");
        assert!(err.contains("/nowhere/conf: No such file"), "{err}");
    }
}
