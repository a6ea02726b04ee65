//! The storage agent's program: reads the command line, then serves, checks, or shows itself.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use storage_agent::cli::{Cli, Command, Quota};
use storage_agent::{audit, check, demo, migrate, serve, top};

/// The command line is wrong (sysexits(3)).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only where nobody reads.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match cli.command {
        None => served(serve::from_command_line(&cli.serve)),
        Some(Command::Check(options)) => check::from_command_line(&options),
        Some(Command::MigrateCheck(options)) => migrate::from_command_line(&options),
        Some(Command::Quota(Quota::Audit(options))) => audit::from_command_line(&options),
        Some(Command::Top(options)) => top::from_command_line(&options),
        Some(Command::Demo(options)) => served(demo::run(&options)),
    }
}

fn served(outcome: Result<(), serve::StartError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "storage-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
