//! From a configuration to a running service, and to its end.
//!
//! The order matters. Sockets, TLS keys and the pid file are opened first, because that may need privileges; then the
//! privileges go, while the process still has one thread; then everything else begins, already as the user who owns
//! the volumes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use config::{Config, HostPort, Loaded, Problems, Source, Tls};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::api::status::{internal_routes, status_routes};
use crate::api::{client, manager};
use crate::app::App;
use crate::audit;
use crate::cli;
use crate::events;
use crate::fs::Dir;
use crate::identity::{self, IdentityError, Target};
use crate::kernel::keep_freed_memory;
use crate::listener::{self, Activation, ActivationError, BindError, Limits, Listener, Stage, Stop, tls};
use crate::logging::{self, LogError};
use crate::notify;
use crate::pid_file::PidFile;
use crate::reload::{self, Origin, Reloader};
use crate::sandbox::{self, Guard, SandboxError};
use crate::tasks::takeover;
use crate::volume::{self, Volume};

/// How long a connection may rest between requests: longer than proxies keep theirs (nginx: 60 s), so that it is
/// they who close and no request meets a connection that has just ended.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// The read buffer that made uploads cheapest in measurements; memory is used only while bytes come.
const READ_BUFFER: usize = 2 << 20;
/// More than the buffers of one upload. Memory that goes back to the system between two of them and comes again, page by
/// page, costs a fifth of the upload's time.
const BUFFERS_OF_ONE: i32 = 8 << 20;
/// How long the start waits until interrupted tasks are known.
const RESUME: Duration = Duration::from_secs(5);
/// What is left after the drain is not waited for longer than this.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// Method, version and separators of a request line.
const REQUEST_LINE: usize = 64;

/// Why there is no service.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration has mistakes.
    #[error("{0}")]
    Config(#[from] Problems),
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The sockets that systemd handed over cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The process cannot be who it should be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The process cannot shut itself in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// There is nowhere to log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Volumes cannot be used; one line for each.
    #[error("{}", .0.join("\n"))]
    Volumes(Vec<String>),
    /// The pid file cannot be written.
    #[error("storage-proxy.pid-file: {path}: cannot be written: {source}", path = .path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The system refuses threads, signals or sockets.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl StartError {
    /// The exit status after sysexits(3): 78 for what the configuration must change, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_) | StartError::Tls(_) => 78,
            StartError::Identity(IdentityError::Root | IdentityError::Unknown { .. }) => 78,
            _ => 1,
        }
    }
}

/// Reads the configuration and serves it until a signal ends the service.
pub fn from_command_line(options: &cli::Serve) -> Result<(), StartError> {
    let source = Source::of_process(options.config.file.clone(), options.config.lenient);
    let Loaded { mut config, notices, path, files } = config::load(&source)?;
    let origin = Origin { path: path.clone(), options: options.clone() };
    origin.overrule(&mut config);
    let service = Service { origin: Some(origin), ..Service::open(config)? };
    logging::start(service.logging())?;
    for notice in &notices {
        match notice.kind {
            config::NoticeKind::Warning => tracing::warn!("{notice}"),
            config::NoticeKind::Unknown | config::NoticeKind::Ignored => tracing::info!("{notice}"),
        }
    }
    tracing::info!(config = %path.display(), "storage-agent {}", env!("CARGO_PKG_VERSION"));
    service.confine(&files)?;
    service.run(|_| {})
}

/// A service that has its sockets and has given up its privileges.
pub struct Service {
    config: Config,
    client: Socket,
    manager: Socket,
    internal: Option<Socket>,
    pid_file: Option<PidFile>,
    origin: Option<Origin>,
}

struct Socket {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl Socket {
    /// Binds the address of this key, unless the socket was handed over.
    fn open(
        (api, key): (&str, &str),
        address: &HostPort,
        tls: Option<&Tls>,
        given: Option<TcpListener>,
    ) -> Result<Self, StartError> {
        let tls = tls.map(|files| tls::load(api, &files.cert, &files.privkey, files.kernel)).transpose()?;
        let bind = || listener::bind(&format!("{api}.{key}"), &address.host, address.port);
        Ok(Socket { tcp: given.map_or_else(bind, Ok)?, tls })
    }
}

impl Service {
    /// Opens what needs privileges, then gives them up. The process must have one thread only.
    pub fn open(config: Config) -> Result<Self, StartError> {
        let (user, group) = (config.storage_proxy.user.as_ref(), config.storage_proxy.group.as_ref());
        let target = Target::choose(user, group, config.agent.allow_root)?;
        let (api, mut given) = (&config.api, Activation::of_process()?);
        let mut open = |name, key, address: &HostPort, tls: Option<&Tls>| {
            Socket::open(key, address, tls, given.take(name, address.port))
        };
        let (key, address) = (("api.client", "service-addr"), &api.client.service_addr);
        let client = open("client", key, address, api.client.tls.as_ref())?;
        let (key, address) = (("api.manager", "service-addr"), &api.manager.service_addr);
        let manager = open("manager", key, address, api.manager.tls.as_ref())?;
        let internal = api.manager.internal_addr.as_ref();
        let internal = internal
            .map(|address| open("internal", ("api.manager", "internal-addr"), address, None))
            .transpose()?;
        given.done()?;
        let pid_file = config.storage_proxy.pid_file.as_ref().map(|path| {
            PidFile::write(path).map_err(|source| StartError::PidFile { path: path.clone(), source })
        });
        let pid_file = pid_file.transpose()?;
        target.assume()?;
        Ok(Service { config, client, manager, internal, pid_file, origin: None })
    }

    /// Shuts the process in, once it logs: nothing but what the configuration names can be got at from here on. `files`
    /// are those that the configuration was read from.
    pub fn confine(&self, files: &[PathBuf]) -> Result<(), StartError> {
        let held = sandbox::enter(&self.config, files)?;
        let (landlock, seccomp) = (held.landlock.word(), held.seccomp.word());
        if [held.landlock, held.seccomp].contains(&Guard::Missing) {
            tracing::warn!(
                landlock,
                seccomp,
                "this kernel cannot hold the whole sandbox; Landlock needs Linux 5.19"
            );
        } else {
            tracing::info!(landlock, seccomp, programs = held.programs, "sandbox");
        }
        Ok(())
    }

    /// How the configuration wants it to log.
    pub fn logging(&self) -> &config::Logging {
        &self.config.logging
    }

    /// The addresses of the client-facing and the manager-facing listener.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.client.tcp.local_addr()?, self.manager.tcp.local_addr()?))
    }

    /// Serves until SIGTERM or SIGINT, then lets transfers finish for the configured time; a second signal ends them
    /// at once. `ready` is called inside the runtime when everything is being served.
    pub fn run(self, ready: impl FnOnce(&Arc<App>)) -> Result<(), StartError> {
        raise_descriptor_limit(self.config.limits.connections);
        let runtime =
            runtime(&self.config).map_err(|source| StartError::System { step: "start threads", source })?;
        let outcome = runtime.block_on(self.serve(ready));
        // File work that hangs on a dead mount cannot be ended; the process leaves without it.
        runtime.shutdown_timeout(LAST_WAIT);
        outcome
    }

    async fn serve(self, ready: impl FnOnce(&Arc<App>)) -> Result<(), StartError> {
        let Service { config, client, manager, internal, pid_file, origin } = self;
        let signals =
            Signals::new().map_err(|source| StartError::System { step: "watch signals", source })?;
        let drain_for = config.agent.shutdown_timeout;
        let app = App::new(config);
        let looked_at = Arc::clone(&app);
        let looking = tokio::task::spawn_blocking(move || check_volumes(&looked_at));
        looking.await.map_err(|error| StartError::System {
            step: "look at the volumes",
            source: io::Error::other(error),
        })??;
        let (stop, stopping) = Stop::new();
        let mut listeners = JoinSet::new();
        let client = prepare("client", client, &app);
        let manager = prepare("manager", manager, &app);
        let internal = internal.map(|socket| prepare("internal", socket, &app));
        let reloader = Reloader {
            app: Arc::clone(&app),
            client: client.terms(),
            manager: manager.terms(),
            internal: internal.as_ref().map(Listener::terms),
            origin,
        };
        let served = [
            Some(("client", client, client::routes(&app))),
            Some(("manager", manager, manager::routes(&app, status_routes(&app)))),
            internal.map(|listener| ("internal", listener, internal_routes(&app))),
        ];
        events::spawn(&app).map_err(|source| StartError::System { step: "start a thread", source })?;
        tokio::spawn(Arc::clone(&app.leases).live());
        resume(&app).await;
        for (api, listener, routes) in served.into_iter().flatten() {
            log_listener(api, &listener);
            listeners.spawn(listener.serve(routes, stopping.clone()));
        }
        notify::send(notify::READY);
        tracing::info!(volumes = app.volumes.iter().count(), "serving as {}", identity::description());
        tokio::spawn({
            let app = Arc::clone(&app);
            async move { app.uploads.sweep_forever(&app.volumes).await }
        });
        tokio::spawn(audit::forever(Arc::clone(&app)));
        tokio::spawn(takeover::watch(Arc::clone(&app)));
        tokio::spawn(notify::feed_watchdog());
        ready(&app);
        let mut signals = Watch { signals, reloader };
        let outcome = wait(&mut signals, &mut listeners, &stop, drain_for).await;
        app.volumes.close().await;
        drop(pid_file);
        tracing::info!("stopped");
        outcome
    }
}

/// Takes up the tasks that the last process left. They should be known before somebody asks for them, but a volume
/// that hangs must not keep the others from being served.
async fn resume(app: &Arc<App>) {
    let resuming = {
        let app = Arc::clone(app);
        async move { takeover::resume(&app).await }
    };
    if tokio::time::timeout(RESUME, tokio::spawn(resuming)).await.is_err() {
        tracing::warn!("interrupted tasks are still being looked for; serving begins without them");
    }
}

fn prepare(api: &'static str, socket: Socket, app: &App) -> Listener {
    let config = app.config();
    let (limits, trusted) = (connection_limits(&config.limits), reload::trusted(&config));
    Listener::new(api, socket.tcp, socket.tls, limits, trusted, Arc::clone(&app.metrics))
}

/// What the configuration allows connections.
pub(crate) fn connection_limits(limits: &config::Limits) -> Limits {
    Limits {
        header_timeout: limits.header_timeout,
        keep_alive_timeout: KEEP_ALIVE.max(limits.header_timeout),
        body_timeout: limits.body_idle_timeout,
        write_timeout: limits.write_idle_timeout,
        url_size: size(limits.url_size),
        header_size: size(limits.header_size),
        header_fields: limits.header_fields,
        read_buffer: READ_BUFFER.max(size(limits.url_size) + size(limits.header_size) + REQUEST_LINE),
        connections: limits.connections,
        connections_per_peer: limits.connections_per_peer,
    }
}

fn size(size: common::size::BinarySize) -> usize {
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

fn log_listener(api: &str, listener: &Listener) {
    let address = listener.local_addr().map(|address| address.to_string());
    tracing::info!(
        api,
        address = address.as_deref().unwrap_or("unknown"),
        tls = listener.is_tls(),
        kernel_tls = listener.kernel_tls(),
        "listening"
    );
}

/// Waits for the end: of the service by a signal, or of a listener by a failure.
async fn wait(
    signals: &mut Watch,
    listeners: &mut JoinSet<io::Result<()>>,
    stop: &Stop,
    drain_for: Duration,
) -> Result<(), StartError> {
    let failed = tokio::select! {
        name = signals.end() => {
            tracing::info!(signal = name, seconds = drain_for.as_secs(), "stopping; transfers may finish");
            None
        }
        Some(ended) = listeners.join_next() => ended.map_err(io::Error::other).and_then(|ended| ended).err(),
    };
    notify::send(notify::STOPPING);
    stop.advance(Stage::Draining);
    tokio::select! {
        () = all_ended(listeners) => {}
        () = tokio::time::sleep(drain_for) => tracing::warn!("transfers that did not finish in time are broken off"),
        name = signals.end() => tracing::warn!(signal = name, "told again to stop; transfers are broken off"),
    }
    stop.advance(Stage::Aborting);
    if tokio::time::timeout(LAST_WAIT, all_ended(listeners)).await.is_err() {
        tracing::warn!("connections that did not end are abandoned");
    }
    match failed {
        Some(source) => Err(StartError::System { step: "go on listening", source }),
        None => Ok(()),
    }
}

async fn all_ended(listeners: &mut JoinSet<io::Result<()>>) {
    while listeners.join_next().await.is_some() {}
}

/// The signals that end the service, and the one that reloads it.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Signals and what a reload needs.
struct Watch {
    signals: Signals,
    reloader: Reloader,
}

impl Watch {
    /// Waits for a signal that ends the service; its name. Reloads as often as asked to until then.
    async fn end(&mut self) -> &'static str {
        let Signals { hangup, terminate, interrupt } = &mut self.signals;
        loop {
            tokio::select! {
                _ = terminate.recv() => return "SIGTERM",
                _ = interrupt.recv() => return "SIGINT",
                _ = hangup.recv() => self.reloader.reload().await,
            }
        }
    }
}

fn runtime(config: &Config) -> io::Result<Runtime> {
    keep_freed_memory(BUFFERS_OF_ONE);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = config.storage_proxy.num_proc.map_or(cpus, |wanted| usize::from(wanted).min(cpus));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(blocking_threads(config))
        .thread_name("storage-agent")
        .enable_all()
        .build()
}

/// Room for all that every volume may take up at once, so that none can take another's, and as much again as one has for
/// what is done on none. Threads are only made when they are needed.
fn blocking_threads(config: &Config) -> usize {
    let each = config.agent.blocking_threads + config.limits.tasks_running + config.limits.archives;
    each.saturating_mul(config.volumes.len() + 1)
}

/// Sees that each volume has a directory that is there now. All that is wrong is told at once. Blocks.
fn check_volumes(app: &App) -> Result<(), StartError> {
    let mut wrong = Vec::new();
    let looks: Vec<_> = app.volumes.iter().map(|volume| (volume, look_at(volume))).collect();
    let deadline = Instant::now() + app.config().limits.volume_timeout;
    for (volume, look) in looks {
        match look.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Some(reason)) => {
                wrong.push(format!("volume.{}.path: {}: {reason}", volume.name, volume.path.display()));
            }
            Ok(None) => {}
            Err(_) => {
                tracing::error!(volume = volume.name, "the volume does not answer; its file system hangs")
            }
        }
        if !volume::is_native(volume.backend.name) {
            tracing::warn!(
                volume = volume.name,
                backend = volume.backend.name,
                "this backend is served as a plain directory: without quotas and without its own figures"
            );
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(StartError::Volumes(wrong)) }
}

/// Looks at a volume on a thread of its own: one that hangs must not keep the others from being served.
fn look_at(volume: &Arc<Volume>) -> mpsc::Receiver<Option<String>> {
    let (send, receive) = mpsc::channel();
    let volume = Arc::clone(volume);
    // Nobody receives what comes too late.
    std::thread::spawn(move || send.send(unusable(&volume)).ok());
    receive
}

/// Why nothing can be served from the path, if it is so.
fn unusable(volume: &Volume) -> Option<String> {
    match std::fs::metadata(&volume.path) {
        Ok(meta) if meta.is_dir() => {
            // It may yet be mounted; the others are served meanwhile.
            if let Some(error) = volume.is_absent() {
                tracing::error!(volume = volume.name, %error, "the volume is not served");
                return None;
            }
            let root = Dir::open_root(&volume.path).ok()?;
            Some(volume.backend.trees.accept(&root).err()?.to_string())
        }
        Ok(_) => Some("is not a directory; name the directory where the volume is mounted".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("does not exist; mount the volume there, or correct the path".into())
        }
        Err(error) => Some(format!("cannot be looked at: {error}")),
    }
}

/// Raises the soft limit of descriptors to the hard one; systemd sets the soft one low for select(2)'s sake.
fn raise_descriptor_limit(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
    // A connection and the file that it transfers.
    let needed = connections as u64 * 2;
    if let Some(most) = getrlimit(Resource::Nofile).current.filter(|most| *most < needed) {
        tracing::warn!(
            most,
            needed,
            "limits.connections is above what descriptors allow; raise LimitNOFILE of the unit or lower the limit"
        );
    }
}
