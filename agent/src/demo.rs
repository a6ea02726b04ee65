//! `storage-agent demo`: both APIs on a throw-away volume, and commands that try them out.
//!
//! Nothing needs to be prepared: the volume is a new directory that goes away with the demo, the secrets are
//! random, and a demo started by root serves as `nobody`. What runs is the ordinary service.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use common::id::{QuotaScopeId, ScopeKind, VfolderId};
use config::Source;
use nix::unistd::{Gid, Uid, chown};
use uuid::Uuid;

use crate::app::App;
use crate::fs::{Dir, RelPath};
use crate::serve::{Service, StartError};
use crate::vfolder;

/// `nobody` and `nogroup` of Debian, and of every system that has not renumbered them.
const NOBODY: u32 = 65534;
/// The ports of a real site, where they are free.
const PORTS: [u16; 2] = [6021, 6022];
/// How often running uploads are looked at.
const TICK: Duration = Duration::from_millis(150);

/// Options of the demo.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the throw-away volume is made.
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    pub directory: PathBuf,
}

/// Serves until it is interrupted.
pub fn run(demo: &Demo) -> Result<(), StartError> {
    let volume = Volume::make(&demo.directory).map_err(|source| StartError::System {
        step: "make a directory for the demo's volume (--directory names another place)",
        source,
    })?;
    let secret = Uuid::new_v4().simple().to_string();
    let text = configuration(&volume.path, &secret);
    let loaded = config::parse(&text, Path::new("demo"), &Source::of_process(None, false))?;
    let service = Service::open(loaded.config)?;
    crate::logging::start(service.logging())?;
    service.confine(&[])?;
    let (client, manager) = service
        .addresses()
        .map_err(|source| StartError::System { step: "read the listeners' addresses", source })?;
    let folder = VfolderId::new(
        Some(QuotaScopeId::new(ScopeKind::User, Uuid::new_v4().as_u128().into())),
        Uuid::new_v4().as_u128().into(),
    );
    let commands = Commands { client, manager, secret, folder };
    service.run(|app| match make_folder(app, &folder) {
        Ok(dir) => {
            commands.print(&volume.path);
            if io::stderr().is_terminal() {
                std::thread::spawn(move || watch(&dir));
            }
        }
        Err(error) => tracing::error!(%error, "the demo's vfolder could not be made"),
    })
}

/// The demo's directory, removed at the end.
struct Volume {
    path: PathBuf,
}

impl Volume {
    fn make(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("storage-agent-demo-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path)?;
        if Uid::effective().is_root() {
            chown(&path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))?;
        }
        Ok(Volume { path })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the demo's volume is left behind");
        }
    }
}

/// A port of a real site, or any free one.
fn port(wanted: u16) -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|socket| socket.local_addr());
    free(wanted).or_else(|_| free(0)).map_or(wanted, |address| address.port())
}

fn configuration(volume: &Path, secret: &str) -> String {
    let [client, manager] = PORTS.map(port);
    let (path, key) = (toml_string(&volume.to_string_lossy()), Uuid::new_v4().simple());
    let user =
        if Uid::effective().is_root() { format!("user = {NOBODY}\ngroup = {NOBODY}") } else { String::new() };
    format!(
        r#"[storage-proxy]
node-id = "demo"
secret = "{key}"
session-expire = "1d"
{user}
[api.client]
service-addr = "127.0.0.1:{client}"
[api.manager]
service-addr = "127.0.0.1:{manager}"
secret = "{secret}"
[volume.demo]
backend = "vfs"
path = {path}
[agent]
shutdown-timeout = "3s"
# The demo removes its volume from the directory above it.
landlock = false
"#
    )
}

/// A basic string of TOML.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn make_folder(app: &Arc<App>, id: &VfolderId) -> Result<Dir, crate::error::OpError> {
    let volume = app.volumes.real("demo")?;
    if let Some(scope) = id.scope() {
        volume.make_scope_dir(scope)?;
    }
    vfolder::create::vfolder(&volume, id, None)?;
    volume.vfolder(id)
}

/// What a person pastes into a shell.
struct Commands {
    client: SocketAddr,
    manager: SocketAddr,
    secret: String,
    folder: VfolderId,
}

impl Commands {
    fn print(&self, volume: &Path) {
        let (bold, dim, off) =
            if io::stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!(
            "\n{bold}Storage Agent {}{off}\n  clients    http://{}\n  manager    http://{}\n  volume     {}\n  vfolder    {}\n\n{bold}Paste this into another terminal:{off}\n\n",
            env!("CARGO_PKG_VERSION"),
            self.client,
            self.manager,
            volume.display(),
            self.folder
        );
        for (what, commands) in self.steps() {
            text.push_str(&format!("{dim}# {what}{off}\n{commands}\n\n"));
        }
        text.push_str(&format!("{dim}Ctrl-C ends the demo and removes the volume.{off}\n"));
        // A closed terminal is no reason to stop serving.
        drop(io::stdout().lock().write_all(text.as_bytes()));
    }

    /// Every step stands alone on its lines: what a shell needs, no more.
    fn steps(&self) -> [(&'static str, String); 5] {
        let (client, folder) = (self.client, self.folder);
        let call = |route: &str, body: &str| {
            format!(
                "curl -sS -X POST http://{}/folder/file/{route} -H 'X-BackendAI-Storage-Auth-Token: {}' -H 'Content-Type: application/json' -d '{{\"volume\":\"demo\",\"vfid\":\"{folder}\",{body}}}'",
                self.manager, self.secret
            )
        };
        let token = |route: &str, body: &str| format!("TOKEN=$({} | cut -d '\"' -f 4)", call(route, body));
        [
            ("a file of 16 MiB", "head -c 16777216 /dev/urandom > sent.bin".to_owned()),
            (
                "upload it: the manager gets a token, the client sends the bytes (tus 1.0)",
                format!(
                    "{}\ncurl -sS -f -X PATCH \"http://{client}/upload?token=$TOKEN\" -H 'Tus-Resumable: 1.0.0' -H 'Upload-Offset: 0' -H 'Content-Type: application/offset+octet-stream' --data-binary @sent.bin",
                    token("upload", r#""relpath":"models/sent.bin","size":16777216"#)
                ),
            ),
            ("list it", call("list", r#""relpath":"models""#)),
            (
                "download it, and a range of it",
                format!(
                    "{}\ncurl -sS -f \"http://{client}/download?token=$TOKEN\" -o received.bin\ncurl -sS -f -r 0-99 \"http://{client}/download?token=$TOKEN\" -o range.bin",
                    token("download", r#""relpath":"models/sent.bin""#)
                ),
            ),
            ("the same bytes", "sha256sum sent.bin received.bin".to_owned()),
        ]
    }
}

/// Shows running uploads on the terminal: their staging files grow in the vfolder.
fn watch(folder: &Dir) {
    let started = Instant::now();
    let mut before = (started, 0u64);
    loop {
        std::thread::sleep(TICK);
        let staged = staged_bytes(folder);
        match staged {
            Some(bytes) if bytes > 0 && bytes != before.1 => {
                let elapsed = before.0.elapsed().as_secs_f64().max(0.001);
                let speed = bytes.saturating_sub(before.1) as f64 / elapsed / 1_048_576.0;
                drop(write!(
                    io::stderr(),
                    "\r\x1b[K  uploading  {:8.1} MiB  {speed:8.1} MiB/s",
                    bytes as f64 / 1_048_576.0
                ));
                before = (Instant::now(), bytes);
            }
            Some(bytes) if bytes > 0 => {}
            _ if before.1 > 0 => {
                drop(write!(io::stderr(), "\r\x1b[K"));
                before = (Instant::now(), 0);
            }
            _ => before.0 = Instant::now(),
        }
    }
}

/// Bytes of all unfinished uploads; nothing when there is none.
fn staged_bytes(folder: &Dir) -> Option<u64> {
    let path = RelPath::parse(crate::vfolder::upload::STAGING.as_bytes()).ok()?;
    let staging = folder.open_dir_nofollow(&path).ok()?;
    let unfinished = staging.entries().ok()?.flatten().filter(|entry| entry.name.as_bytes().len() == 32);
    Some(unfinished.filter_map(|entry| staging.stat(&entry.name).ok()).map(|stat| stat.size).sum())
}
