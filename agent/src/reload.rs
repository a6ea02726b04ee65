//! What SIGHUP asks for: the configuration, secrets and certificates are read again, and the log file is opened anew.
//!
//! All of it is read and judged before any of it takes effect; with a mistake anywhere, everything stays as it was. What
//! is under way is never touched: a request keeps the settings that it began with, a connection its limits and its
//! certificate. A secret that was replaced is refused from then on: it mostly is replaced because somebody else knows it.

use std::path::PathBuf;
use std::sync::Arc;

use config::{Config, Source, Tls};
use rustls::ServerConfig;

use crate::app::App;
use crate::cli;
use crate::listener::{Terms, TrustedProxies, tls};
use crate::logging;
use crate::notify;
use crate::sandbox::{self, Guard};
use crate::serve::connection_limits;

/// Where a configuration came from, to read it again.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// What the command line says besides.
    pub options: cli::Serve,
}

impl Origin {
    /// Lets the command line have the last word.
    pub fn overrule(&self, config: &mut Config) {
        if let Some(level) = self.options.log_level {
            config.logging.level = level;
        }
        if self.options.debug {
            config.logging.level = config.logging.level.min(config::Level::Debug);
        }
        config.agent.allow_root |= self.options.allow_root;
    }
}

/// All that a reload changes.
pub(crate) struct Reloader {
    pub(crate) app: Arc<App>,
    pub(crate) client: Terms,
    pub(crate) manager: Terms,
    pub(crate) internal: Option<Terms>,
    /// Nothing for a configuration that is in no file.
    pub(crate) origin: Option<Origin>,
}

/// A configuration that can take effect.
struct Next {
    config: Config,
    client: Option<Arc<ServerConfig>>,
    manager: Option<Arc<ServerConfig>>,
    /// Keys that wait for a restart.
    kept: Vec<String>,
}

impl Reloader {
    /// Reloads, and tells systemd and the log how that went.
    pub(crate) async fn reload(&self) {
        notify::send(&notify::reloading());
        logging::reopen();
        match &self.origin {
            None => tracing::info!("reloaded: the log file is open anew"),
            Some(origin) => self.read_again(origin.clone()).await,
        }
        notify::send(notify::READY);
    }

    async fn read_again(&self, origin: Origin) {
        let old = self.app.config();
        // Files may lie on a slow disk, and host names may have to be looked up.
        let read = tokio::task::spawn_blocking(move || read(&origin, &old)).await;
        match read.unwrap_or_else(|error| Err(vec![error.to_string()])) {
            Ok(next) => self.apply(next),
            Err(mistakes) => refuse(&mistakes),
        }
    }

    fn apply(&self, next: Next) {
        let Next { config, client, manager, kept } = next;
        logging::set_level(config.logging.level);
        let limits = connection_limits(&config.limits);
        let trusted = trusted(&config);
        self.client.change(client, limits.clone(), Arc::clone(&trusted));
        self.manager.change(manager, limits.clone(), Arc::clone(&trusted));
        if let Some(internal) = &self.internal {
            internal.change(None, limits, trusted);
        }
        self.app.reconfigure(config);
        for key in &kept {
            tracing::warn!(
                key,
                "the new value takes effect with the next start of the agent, not with a reload"
            );
        }
        tracing::info!(
            waiting = kept.len(),
            "reloaded: limits, log level, certificates and secrets are those of the file"
        );
    }
}

/// Whose forwarding headers are believed.
pub(crate) fn trusted(config: &Config) -> TrustedProxies {
    let networks = config.limits.trusted_proxies.clone();
    Arc::new(move |peer| networks.iter().any(|network| network.contains(peer)))
}

/// Reads and judges everything. The error is all mistakes, a sentence each. Blocks.
fn read(origin: &Origin, old: &Config) -> Result<Next, Vec<String>> {
    let source = Source::of_process(Some(origin.path.clone()), origin.options.config.lenient);
    let loaded = config::load(&source)
        .map_err(|problems| problems.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    for notice in loaded.notices.iter().filter(|notice| notice.kind == config::NoticeKind::Warning) {
        tracing::warn!("{notice}");
    }
    let mut config = loaded.config;
    origin.overrule(&mut config);
    let kept = config.keep_fixed(old);
    let mut mistakes = Vec::new();
    let mut load = |api: &str, files: &Option<Tls>| {
        let loaded =
            files.as_ref().map(|files| tls::load(api, &files.cert, &files.privkey, files.kernel)).transpose();
        loaded.unwrap_or_else(|error| {
            mistakes.push(error.to_string());
            None
        })
    };
    let client = load("api.client", &config.api.client.tls);
    let manager = load("api.manager", &config.api.manager.tls);
    if mistakes.is_empty() { Ok(Next { config, client, manager, kept }) } else { Err(mistakes) }
}

/// Says what is wrong with a configuration that does not take effect.
fn refuse(mistakes: &[String]) {
    for mistake in mistakes {
        tracing::error!("{mistake}");
        if sandbox::state().landlock == Guard::On && mistake.contains("Permission denied") {
            tracing::error!(
                "the sandbox lets a reload read only the folders of files that the configuration named at the start; \
                 for another folder, restart the agent"
            );
        }
    }
    tracing::error!(mistakes = mistakes.len(), "not reloaded: the configuration that was in force stays");
}
