//! The command line of the quota helper.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use quota_helper::book::Record;
use quota_helper::config::{Config, DEFAULT};
use quota_helper::service::Service;
use quota_helper::{log, rebuild, sandbox, server};

const USAGE: &str = include_str!("usage.txt");
/// EX_USAGE of sysexits.h.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(&words).unwrap_or_else(|error| {
        log(&format!("quota-helper: {error}"));
        ExitCode::FAILURE
    })
}

fn run(words: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let (config, options) = match words {
        [_, "--config", config, options @ ..] => (*config, options),
        _ => (DEFAULT, words.get(1..).unwrap_or_default()),
    };
    match (words.first().copied().unwrap_or_default(), options) {
        ("-h" | "--help", []) => io::stdout().write_all(USAGE.as_bytes())?,
        ("-V" | "--version", []) => writeln!(io::stdout(), "quota-helper {}", env!("CARGO_PKG_VERSION"))?,
        ("serve", []) => serve(config)?,
        (command @ ("check" | "repair" | "rebuild"), []) => return examine(command, config, false),
        (command @ ("repair" | "rebuild"), ["--apply"]) => return examine(command, config, true),
        _ => {
            log(&format!("quota-helper: {words:?} is no command with its options; see quota-helper --help"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(config: &str) -> Result<(), Box<dyn Error>> {
    let mut service = Service::new(Config::load(Path::new(config))?)?;
    let listener = server::listener(&service.config)?;
    sandbox::enter(&service.config)?;
    service.start()?;
    log("ready");
    server::serve(&listener, &mut service)
}

/// Shows what is wrong, and what would be changed or is.
fn examine(command: &str, config: &str, apply: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut service = Service::new(Config::load(Path::new(config))?)?;
    let (tagged, mut problems) = match command {
        "rebuild" => rebuild::found(&mut service)?,
        _ => (Record::new(), Vec::new()),
    };
    let changes = service.repair(&tagged, apply)?;
    if command == "check" {
        problems.extend(service.config.volumes.iter().flat_map(|volume| service.problems(&volume.name)));
    }
    let mut out = io::stdout().lock();
    problems.iter().chain(&changes).try_for_each(|line| writeln!(out, "{line}"))?;
    let open = !apply && !changes.is_empty();
    writeln!(out, "problems: {}, changes: {}", problems.len(), changes.len())?;
    Ok(if open || !problems.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
