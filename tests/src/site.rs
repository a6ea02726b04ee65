//! A storage node for one test: two volumes, a directory outside them, and the agent that serves the volumes.
//!
//! It also speaks for the parties of a site. `manager` is a manager with the right secret, and a [`Folder`]
//! is a vfolder that a manager created, with shorthands for what managers do to it.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, address, own};
use crate::http::{Reply, Request};
use crate::jwt;
use crate::settings::{MANAGER_SECRET, Settings, TOKEN_SECRET};
use crate::snapshot::Snapshot;

/// The header that carries the manager's secret.
pub const AUTH: &str = "X-BackendAI-Storage-Auth-Token";

/// How a manager names vfolders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A UUID alone: managers up to 23.03.4, and folders that were never migrated.
    Bare,
    /// With the quota scope in front.
    Scoped,
}

/// Both dialects.
pub const DIALECTS: [Dialect; 2] = [Dialect::Bare, Dialect::Scoped];

/// The storage node. It disappears with its agent when dropped.
#[derive(Debug)]
pub struct Site {
    agent: Option<Agent>,
    dir: TempDir,
    /// The address of the client-facing API.
    pub client: SocketAddr,
    /// The address of the manager-facing API.
    pub manager: SocketAddr,
}

impl Site {
    /// A node whose agent runs with the smallest configuration plus a second volume and a place to keep tasks.
    pub fn start() -> Self {
        Site::with(|_| {})
    }

    /// The same with changed settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut site = Site::prepare(change);
        site.launch();
        site
    }

    /// A node whose agent does not run yet.
    pub fn prepare(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::with_prefix("storage-agent-test-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let site = Site { agent: None, dir, client: address(0), manager: address(1) };
        ["local", "second", "outside"].iter().for_each(|name| fs::create_dir(site.path(name)).unwrap());
        fs::write(site.path("outside/canary"), "untouched").unwrap();
        fs::create_dir(site.path("outside/nest")).unwrap();
        let mut settings = Settings::smallest(site.client, site.manager, &site.path("local"));
        settings.volume("second", &site.path("second"));
        change(&mut settings);
        fs::write(site.config(), settings.to_toml()).unwrap();
        fs::set_permissions(site.config(), fs::Permissions::from_mode(0o600)).unwrap();
        own(site.dir.path());
        site
    }

    /// Starts the agent, on the volumes as they are.
    pub fn launch(&mut self) {
        self.agent = Some(Agent::start(self.dir.path(), &self.config(), [self.client, self.manager]));
    }

    /// Starts the agent without waiting for it: for configurations whose APIs don't speak plain HTTP.
    pub fn launch_unready(&mut self) {
        self.agent = Some(Agent::spawn(self.dir.path(), &self.config()));
    }

    /// A path of the node: `local` and `second` are the volumes, `outside` belongs to none.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The node's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("storage-proxy.toml")
    }

    /// The running agent.
    pub fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the agent runs")
    }

    /// The agent's process id.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").pid()
    }

    /// What the agent logged so far.
    pub fn log(&self) -> String {
        self.agent.as_ref().expect("the agent runs").log()
    }

    /// Ends the agent at once, as a power failure would.
    pub fn kill(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// The state of both volumes and of the directory outside.
    pub fn snapshot(&self) -> Snapshot {
        let roots = ["local", "second", "outside"].map(|name| self.path(name));
        Snapshot::of(&[&roots[0], &roots[1], &roots[2]])
    }

    /// A manager's request: `"POST folder/create"`, and the parameters (null for none).
    pub fn call(&self, route: &str, params: &Value) -> Reply {
        self.manager_request(route, params).header(AUTH, MANAGER_SECRET).send(self.manager)
    }

    /// The same request without authentication, to be changed and sent.
    pub fn manager_request(&self, route: &str, params: &Value) -> Request {
        let (method, path) = route.split_once(' ').expect("METHOD path");
        let request = Request::new(method, &format!("/{}", path.trim_start_matches('/')));
        if params.is_null() { request } else { request.json(params) }
    }

    /// A request to the client-facing API.
    pub fn get(&self, target: &str) -> Reply {
        Request::new("GET", target).send(self.client)
    }

    /// Creates a vfolder in the first volume.
    pub fn folder(&self, dialect: Dialect) -> Folder<'_> {
        let id = match dialect {
            Dialect::Bare => fresh_uuid(),
            Dialect::Scoped => format!("user:{}/{}", fresh_uuid(), fresh_hex()),
        };
        let folder = self.folder_named("local", &id);
        folder.call("POST folder/create", json!({})).expect(204);
        assert!(folder.path.is_dir(), "the folder was created at {}", folder.path.display());
        folder
    }

    /// A vfolder that may not exist.
    pub fn folder_named(&self, volume: &str, vfid: &str) -> Folder<'_> {
        let path = self.path(volume).join(place(vfid));
        Folder { site: self, volume: volume.into(), vfid: vfid.into(), path }
    }

    /// Asks for a task until it is over, and gives its last description.
    pub fn finished(&self, task: &str) -> Value {
        let begin = Instant::now();
        loop {
            let task = self.call(&format!("GET tasks/{task}"), &Value::Null).expect(200).json();
            if !matches!(task["state"].as_str(), Some("queued" | "running")) {
                return task;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "the task goes on: {task}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A vfolder of a site.
#[derive(Clone, Debug)]
pub struct Folder<'a> {
    /// The site.
    pub site: &'a Site,
    /// The volume's name.
    pub volume: String,
    /// The id as managers write it.
    pub vfid: String,
    /// Where its files are.
    pub path: PathBuf,
}

impl Folder<'_> {
    /// A manager's request about this folder; `volume` and `vfid` are added to the parameters.
    pub fn call(&self, route: &str, params: Value) -> Reply {
        self.site.call(route, &self.params(params))
    }

    /// The parameters with `volume` and `vfid`, unless they are given.
    pub fn params(&self, params: Value) -> Value {
        let Value::Object(given) = params else { return params };
        let mut all = Map::new();
        all.insert("volume".into(), json!(self.volume));
        all.insert("vfid".into(), json!(self.vfid));
        all.extend(given);
        Value::Object(all)
    }

    /// Writes a file as a container would: parents are made, and all belongs to the agent's user.
    pub fn write(&self, relpath: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(relpath);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.own();
        path
    }

    /// Makes a symbolic link.
    pub fn link(&self, relpath: &str, target: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(relpath);
        std::os::unix::fs::symlink(target, &path).unwrap();
        self.own();
        path
    }

    /// Makes a directory with its parents.
    pub fn mkdir(&self, relpath: &str) -> PathBuf {
        let path = self.path.join(relpath);
        fs::create_dir_all(&path).unwrap();
        self.own();
        path
    }

    /// Gives all that a test made in the folder to the agent's user.
    pub fn own(&self) {
        own(&self.path);
    }

    /// The content of a file, if it is there.
    pub fn read(&self, relpath: &str) -> Option<Vec<u8>> {
        fs::read(self.path.join(relpath)).ok()
    }

    /// Whether an entry is there, also as a link that leads nowhere.
    pub fn has(&self, relpath: &str) -> bool {
        fs::symlink_metadata(self.path.join(relpath)).is_ok()
    }

    /// The items of a listing by name.
    pub fn names(&self, relpath: &str) -> Vec<String> {
        let listing = self.call("POST folder/file/list", json!({"relpath": relpath})).expect(200).json();
        let items = listing["items"].as_array().expect("a list").clone();
        let mut names: Vec<String> = items.iter().map(|item| item["name"].as_str().unwrap().into()).collect();
        names.sort();
        names
    }

    /// A download token from the agent.
    pub fn download_token(&self, relpath: &str) -> String {
        self.token("POST folder/file/download", json!({"relpath": relpath}))
    }

    /// An upload token from the agent, which opens a session.
    pub fn upload_token(&self, relpath: &str, size: u64) -> String {
        self.token("POST folder/file/upload", json!({"relpath": relpath, "size": size}))
    }

    /// A token of a route that makes one.
    pub fn token(&self, route: &str, params: Value) -> String {
        self.call(route, params).expect(200).json()["token"].as_str().expect("a token").into()
    }

    /// A download token of our own making, valid for an hour.
    pub fn signed(&self, claims: Value) -> String {
        let Value::Object(claims) = self.params(claims) else { unreachable!() };
        let mut all = Map::from_iter([("exp".to_owned(), json!(now() + 3600))]);
        all.extend(claims);
        jwt::sign(&Value::Object(all), TOKEN_SECRET)
    }

    /// The session of an upload token.
    pub fn session(token: &str) -> String {
        jwt::open(token, TOKEN_SECRET).1["session"].as_str().expect("a session").into()
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A UUID that nobody used before, as text with hyphens.
pub fn fresh_uuid() -> String {
    let hex = fresh_hex();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// 32 hexadecimal digits that nobody used before.
pub fn fresh_hex() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The directory of a vfolder below its volume.
pub fn place(vfid: &str) -> PathBuf {
    let hex = |text: &str| text.replace('-', "").to_lowercase();
    let (scope, folder) = match vfid.split_once('/') {
        Some((scope, folder)) => (hex(scope.split_once(':').map_or(scope, |(_, uuid)| uuid)), hex(folder)),
        None => (String::new(), hex(vfid)),
    };
    Path::new(&scope).join(&folder[..2]).join(&folder[2..4]).join(&folder[4..])
}
