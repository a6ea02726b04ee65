//! `storage-agent top`: what the running agent is doing, on a terminal.
//!
//! It is a client of the manager-facing API (`GET /overview`) with the address and the secret of the configuration, so it
//! sees what a manager could, and nothing of the process itself.

mod screen;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use config::{Config, Source};
use serde_json::Value;

use self::screen::{Screen, tame};
use crate::cli;
use crate::volume::array::pinned_to;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The reply is small; whatever is longer is not an agent's.
const LONGEST: usize = 16 << 20;
/// The cursor home, and all below it cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows it until it is interrupted, or once.
pub fn from_command_line(options: &cli::Top) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads where printing fails.
            let _ = writeln!(std::io::stderr(), "storage-agent top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &cli::Top) -> Result<(), Box<dyn Error>> {
    let source = Source::of_process(options.config.file.clone(), options.config.lenient);
    let agent = Agent::of(&config::load(&source)?.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut screen, mut out) = (Screen::default(), std::io::stdout());
    loop {
        let asked = Instant::now();
        let overview = runtime.block_on(agent.overview());
        if options.json {
            writeln!(out, "{:#}", overview?)?;
            return Ok(());
        }
        // While it is watched, an agent that restarts is waited for.
        let text = match overview {
            Ok(overview) => screen.draw(&agent.address, &overview, asked, width()),
            Err(error) if options.once => return Err(error),
            Err(error) => format!("{}\n", tame(&error.to_string())),
        };
        if options.once {
            out.write_all(text.as_bytes())?;
            return Ok(());
        }
        write!(out, "{CLEAR}{text}")?;
        out.flush()?;
        std::thread::sleep(Duration::from_secs(options.interval));
    }
}

/// Columns of the terminal; without one, lines are not cut.
fn width() -> usize {
    let out = std::io::stdout();
    let size = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}

/// The running agent.
struct Agent {
    http: reqwest::Client,
    url: String,
    address: String,
    secret: reqwest::header::HeaderValue,
}

impl Agent {
    fn of(config: &Config) -> Result<Self, Box<dyn Error>> {
        let manager = &config.api.manager;
        let host = match manager.service_addr.host.as_str() {
            // All interfaces: this one is among them.
            "" | "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" => "[::1]".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        let address = format!("{host}:{}", manager.service_addr.port);
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        let http = http.redirect(reqwest::redirect::Policy::none());
        let (scheme, http) = match &manager.tls {
            // The agent's own certificate, whose name need not be the address.
            Some(files) => ("https", http.tls_backend_preconfigured(pinned_to(&files.cert)?)),
            None => ("http", http.tls_backend_preconfigured(no_authorities()?)),
        };
        let mut secret = reqwest::header::HeaderValue::from_str(manager.secret.expose())
            .map_err(|_| "api.manager.secret holds what no header can")?;
        secret.set_sensitive(true);
        Ok(Agent { http: http.build()?, url: format!("{scheme}://{address}/overview"), address, secret })
    }

    async fn overview(&self) -> Result<Value, Box<dyn Error>> {
        let request = self.http.get(&self.url).header("x-backendai-storage-auth-token", &self.secret);
        let unreachable = |_| format!("no agent answers at {}; is it running?", self.address);
        let mut reply = request.send().await.map_err(unreachable)?;
        match reply.status().as_u16() {
            200 => {}
            403 => return Err("the agent has another api.manager.secret than the configuration".into()),
            404 => return Err(format!("{} is no storage agent, or an older one", self.address).into()),
            status => return Err(format!("{} answers with status {status}", self.address).into()),
        }
        let mut body = Vec::new();
        while let Some(piece) = reply.chunk().await? {
            if body.len() + piece.len() > LONGEST {
                return Err(format!("the reply of {} does not end", self.address).into());
            }
            body.extend_from_slice(&piece);
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

/// For plain HTTP: reading the system's authorities takes longer than asking.
fn no_authorities() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
