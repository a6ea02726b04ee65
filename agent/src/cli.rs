//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use config::Level;

/// Non-root storage proxy for Backend.AI virtual folders.
///
/// Without a command it serves what storage-proxy.toml says.
#[derive(Debug, Parser)]
#[command(name = "storage-agent", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the configuration and everything it needs, and say what to do about what is wrong.
    Check(Check),
    /// Say what will be different for a site that the reference proxy has served. Changes nothing.
    MigrateCheck(MigrateCheck),
    /// Look after the limits of quota scopes and folders.
    #[command(subcommand)]
    Quota(Quota),
    /// Show what the running agent is doing: volumes, transfers, tasks, the last errors.
    Top(Top),
    /// Serve a throw-away volume and print commands that try it out.
    Demo(crate::demo::Demo),
}

/// What to do about limits.
#[derive(Debug, Subcommand)]
pub enum Quota {
    /// Find limits that do not hold: directories outside their project, limits that differ, ids used twice.
    Audit(Audit),
}

/// Options of the audit.
#[derive(Debug, Args)]
pub struct Audit {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Put right what can be put right.
    #[arg(long)]
    pub repair: bool,
    /// Look at each file, for those that left the project of their folder; takes as long as du(1).
    #[arg(long)]
    pub deep: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/].
    #[arg(short = 'f', long = "config", visible_alias = "config-path", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Skip volumes whose backend is unknown instead of refusing the file.
    #[arg(long)]
    pub lenient: bool,
}

/// Options of serving.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Log what is needed to find faults.
    #[arg(long)]
    pub debug: bool,
    /// The least severe level that is logged: CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE or NOTSET.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<Level>,
    /// Serve as root, which is otherwise refused.
    #[arg(long)]
    pub allow_root: bool,
}

/// Options of the view.
#[derive(Debug, Args)]
pub struct Top {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print it once and end, without clearing the screen.
    #[arg(long)]
    pub once: bool,
    /// Print the manager-facing API's own reply, once.
    #[arg(long)]
    pub json: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
}

/// Options of the check.
#[derive(Debug, Args)]
pub struct Check {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Ask what is far away too, such as a storage array's own service.
    #[arg(long)]
    pub online: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of the look before moving over.
#[derive(Debug, Args)]
pub struct MigrateCheck {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_proxys_spellings_are_understood() {
        for line in
            ["storage-agent -f a.toml", "storage-agent --config a.toml", "storage-agent --config-path a.toml"]
        {
            assert_eq!(parse(line).serve.config.file, Some("a.toml".into()), "{line}");
        }
        assert_eq!(parse("storage-agent --debug --log-level WARNING").serve.log_level, Some(Level::Warning));
    }

    #[test]
    fn a_wrong_level_is_refused_with_the_right_ones() {
        let error = Cli::try_parse_from(["storage-agent", "--log-level", "LOUD"]).unwrap_err().to_string();
        assert!(error.contains("LOUD") && error.contains("INFO"), "{error}");
    }
}
