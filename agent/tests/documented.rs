//! The command line against what packages ship about it: completions for three shells, and the manual page.
//!
//! After a change of the command line, `UPDATE_COMPLETIONS=1 cargo test -p storage-agent --test documented` writes the
//! completions anew.

// clippy's exceptions for tests do not reach helpers of integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use storage_agent::cli::Cli;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

#[test]
fn completions_are_those_of_the_command_line() {
    for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let mut wanted = Vec::new();
        generate(shell, &mut Cli::command(), "storage-agent", &mut wanted);
        let path = packaging(&format!("completions/storage-agent.{name}"));
        if std::env::var_os("UPDATE_COMPLETIONS").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        let shipped = fs::read(&path).unwrap_or_default();
        assert!(shipped == wanted, "{} is outdated; run with UPDATE_COMPLETIONS=1", path.display());
    }
}

#[test]
fn the_manual_page_names_every_command_and_option() {
    let page = fs::read_to_string(packaging("man/storage-agent.8")).unwrap();
    let mut missing = Vec::new();
    visit(&Cli::command(), "storage-agent", &page, &mut missing);
    assert!(missing.is_empty(), "packaging/man/storage-agent.8 lacks {missing:#?}");
}

/// The page is written in mdoc(7): an option stands after the macro `Fl`, without its first dash, a command after `Cm`.
fn visit(command: &Command, name: &str, page: &str, missing: &mut Vec<String>) {
    for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
        if !["help", "version"].contains(&option) && !page.contains(&format!("Fl -{option}")) {
            missing.push(format!("{name} --{option}"));
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let name = format!("{name} {}", inner.get_name());
        if !page.contains(&format!("Cm {}", name.trim_start_matches("storage-agent "))) {
            missing.push(name.clone());
        }
        visit(inner, &name, page, missing);
    }
}
