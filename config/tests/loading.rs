//! How a file, the environment and secret files together become a configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use config::{Account, Backend, Fsync, Level, Loaded, LogFormat, NoticeKind, Problems, Source, Valkey, load};

const BASE: &str = "[storage-proxy]\nsession-expire = \"1d\"\nSECRET\n[api.client]\nCLIENT\n[api.manager]\nsecret = \"m\"\n\
                    [volume.local]\nbackend = \"vfs\"\npath = \"/vfroot\"\n";

/// A configuration directory with an environment.
struct Site {
    directory: tempfile::TempDir,
    working_directory: PathBuf,
    env: HashMap<&'static str, OsString>,
}

impl Site {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site =
            Self { working_directory: directory.path().join("elsewhere"), directory, env: HashMap::new() };
        fs::create_dir(&site.working_directory).unwrap();
        site.write("storage-proxy.toml", text, 0o600);
        site
    }

    fn with_secret(text: &str) -> Self {
        Self::new(
            &BASE
                .replace("SECRET", &format!("secret = \"{}\"\n{text}", "x".repeat(32)))
                .replace("CLIENT", ""),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Loaded, Problems> {
        let source = Source {
            file: Some(self.path("storage-proxy.toml")),
            env: &|name| self.env.get(name).cloned(),
            working_directory: self.working_directory.clone(),
            lenient: false,
        };
        load(&source)
    }

    fn problems(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    let warnings = loaded.notices.iter().filter(|notice| notice.kind == NoticeKind::Warning);
    warnings.map(ToString::to_string).collect()
}

#[test]
fn absent_keys_have_the_defaults_of_the_contract() {
    let config = Site::with_secret("").load().unwrap().config;
    let proxy = &config.storage_proxy;
    assert_eq!(proxy.session_expire, Duration::from_secs(86_400));
    assert_eq!(proxy.scandir_limit.map(usize::from), Some(1000));
    assert_eq!(proxy.max_upload_size.bytes(), 100 << 30);
    assert!(proxy.allow_auto_quota_scope_creation && proxy.user.is_none() && proxy.pid_file.is_none());
    assert_eq!(config.api.client.service_addr.to_string(), "127.0.0.1:6021");
    assert_eq!(config.api.manager.service_addr.to_string(), "127.0.0.1:6022");
    assert!(config.api.client.tls.is_none() && config.api.manager.internal_addr.is_none());
    assert_eq!(config.volumes[0].backend, Backend::Vfs);
    assert_eq!(config.volumes[0].fsprefix, ".");
    assert_eq!(config.logging.level, Level::Info);
    assert_eq!(config.logging.console.unwrap().format, LogFormat::Verbose);
    assert_eq!((config.limits.header_size.bytes(), config.limits.connections), (16 << 10, 8192));
    assert_eq!(config.upload.fsync, Fsync::EveryPatch);
    assert_eq!(config.upload.stale_after, Duration::from_secs(2 * 86_400));
    assert_eq!(config.upload.done_retention, proxy.session_expire);
    assert!(!config.agent.allow_root && config.download.unmanaged_roots.is_empty());
}

#[test]
fn snake_case_strings_and_numbers_are_taken_as_upstream_takes_them() {
    let text = "scandir_limit = \"0\"\nnum_proc = 5000\nuser = \"1000\"\ngroup = \"bai\"\nallow_auto_quota_scope_creation = \"off\"\n\
                pid-file = \"/dev/null\"\nmax_upload_size = 1024";
    let config = Site::with_secret(text).load().unwrap().config;
    let proxy = &config.storage_proxy;
    assert_eq!(proxy.scandir_limit, None);
    assert_eq!(proxy.num_proc.map(usize::from), Some(5000));
    assert_eq!((&proxy.user, &proxy.group), (&Some(Account::Id(1000)), &Some(Account::Name("bai".into()))));
    assert!(!proxy.allow_auto_quota_scope_creation && proxy.pid_file.is_none());
    assert_eq!(proxy.max_upload_size.bytes(), 1024);
}

#[test]
fn relative_paths_start_at_the_directory_of_the_file() {
    let text = "pid-file = \"run/pid\"\n[volume.rel]\nbackend = \"xfs\"\npath = \"data\"\noptions = { lock-file-path = \"lock\" }";
    let site = Site::with_secret(text);
    let config = site.load().unwrap().config;
    assert_eq!(config.storage_proxy.pid_file, Some(site.path("run/pid")));
    assert_eq!(config.volumes[0].path, site.path("data"));
    assert_eq!(config.volumes[0].options.path("lock_file_path"), Some(site.path("lock").as_path()));
    assert_eq!(
        config.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(),
        ["rel", "local"]
    );
}

#[test]
fn tls_files_are_found_beside_the_file_or_else_in_the_working_directory() {
    let tls = "ssl-enabled = true\nssl-cert = \"a.crt\"\nssl-privkey = \"a.key\"";
    let site = Site::new(
        &BASE.replace("SECRET", &format!("secret = \"{}\"", "x".repeat(32))).replace("CLIENT", tls),
    );
    let problems = site.problems();
    assert!(problems.contains("a.crt") && problems.contains("elsewhere/a.key"), "{problems}");
    site.write("a.crt", "", 0o644);
    site.write("elsewhere/a.key", "", 0o640);
    let loaded = site.load().unwrap();
    let found = loaded.config.api.client.tls.as_ref().unwrap();
    assert_eq!((&found.cert, &found.privkey), (&site.path("a.crt"), &site.path("elsewhere/a.key")));
    assert!(warnings(&loaded).is_empty());
    site.write("elsewhere/a.key", "", 0o644);
    assert!(warnings(&site.load().unwrap())[0].contains("chmod o= "));
}

#[test]
fn a_secret_comes_from_its_file_or_from_systemd() {
    let strong = "f".repeat(40);
    let mut site = Site::new(&BASE.replace("SECRET", "secret-file = \"own\"").replace("CLIENT", ""));
    site.write("own", &format!("{strong}\n"), 0o600);
    assert_eq!(site.load().unwrap().config.storage_proxy.secret.expose(), strong);

    site.write("storage-proxy.toml", &BASE.replace("SECRET", "").replace("CLIENT", ""), 0o600);
    let problems = site.problems();
    assert!(
        problems.contains("storage-proxy.secret: is missing") && problems.contains("systemd credential"),
        "{problems}"
    );
    fs::create_dir(site.path("credentials")).unwrap();
    site.write("credentials/storage-proxy.secret", &strong, 0o400);
    site.env.insert("CREDENTIALS_DIRECTORY", site.path("credentials").into());
    assert_eq!(site.load().unwrap().config.storage_proxy.secret.expose(), strong);
}

#[test]
fn array_passwords_come_from_files_and_credentials_too() {
    let text = "[volume.w]\nbackend = \"weka\"\npath = \"/w\"\noptions = { weka_endpoint = \"https://w:14000\", \
                weka_username = \"u\", weka_fs_name = \"f\", weka_password_file = \"w\" }\n\
                [volume.p]\nbackend = \"purestorage\"\npath = \"/p\"\n\
                options = { purity_endpoint = \"https://p\", purity_fs_name = \"f\" }";
    let mut site = Site::with_secret(text);
    site.write("w", "weka-password\n", 0o600);
    site.write("volume.p.purity_api_token", "T-1", 0o600);
    site.env.insert("CREDENTIALS_DIRECTORY", site.directory.path().into());
    let config = site.load().unwrap().config;
    let secret = |n: usize, key: &str| config.volumes[n].options.secret(key).unwrap().expose().to_owned();
    assert_eq!(secret(0, "weka_password"), "weka-password");
    assert_eq!(secret(1, "purity_api_token"), "T-1");
}

#[test]
fn sources_of_a_secret_may_repeat_each_other_but_not_differ() {
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    let site = Site::with_secret("secret-file = \"own\"");
    site.write("own", &"x".repeat(32), 0o600);
    assert!(site.load().is_ok());
    for other in [&old, &new] {
        site.write("own", other, 0o600);
        let problems = site.problems();
        assert!(
            problems.contains("differs") && problems.contains("/own") && problems.contains("the key secret"),
            "{problems}"
        );
        assert!(!problems.contains(other.as_str()));
    }
}

#[test]
fn a_secret_file_open_to_others_stops_the_start() {
    let site = Site::new(&BASE.replace("SECRET", "secret-file = \"own\"").replace("CLIENT", ""));
    for mode in [0o604, 0o602, 0o601, 0o644] {
        site.write("own", &"x".repeat(32), mode);
        let problems = site.problems();
        assert!(problems.contains("chmod 0600") && problems.contains(&format!("{mode:04o}")), "{problems}");
    }
    for mode in [0o400, 0o600, 0o640] {
        site.write("own", &"x".repeat(32), mode);
        assert!(site.load().is_ok(), "{mode:o}");
    }
}

#[test]
fn a_secret_file_that_holds_something_else_is_refused_once() {
    let site = Site::new(&BASE.replace("SECRET", "secret-file = \"own\"").replace("CLIENT", ""));
    for (text, part) in [("", "is empty"), ("a\nb\n", "more than one line")] {
        site.write("own", text, 0o600);
        let problems = site.problems();
        assert!(problems.contains(part) && problems.lines().count() == 1, "{problems}");
    }
}

#[test]
fn a_world_readable_file_with_secrets_and_a_short_token_secret_are_warned_of() {
    let site = Site::new(&BASE.replace("SECRET", "secret = \"short\"").replace("CLIENT", ""));
    assert!(warnings(&site.load().unwrap())[0].contains("shorter than 32 bytes"));
    fs::set_permissions(site.path("storage-proxy.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warnings(&site.load().unwrap())[0].contains("can be read by every user"));
}

#[test]
fn the_environment_goes_before_the_file_for_etcd() {
    let mut site =
        Site::with_secret("[etcd]\nnamespace = \"file\"\naddr = [\"10.0.0.1\", 2379]\nuser = \"file\"");
    let etcd = site.load().unwrap().config.etcd;
    assert_eq!((etcd.namespace.as_str(), etcd.addr[0].to_string().as_str()), ("file", "10.0.0.1:2379"));
    for (name, value) in
        [("BACKEND_NAMESPACE", "env"), ("BACKEND_ETCD_ADDR", "etcd:2380"), ("BACKEND_ETCD_PASSWORD", "pw")]
    {
        site.env.insert(name, value.into());
    }
    let etcd = site.load().unwrap().config.etcd;
    assert_eq!((etcd.namespace.as_str(), etcd.addr[0].to_string().as_str()), ("env", "etcd:2380"));
    assert_eq!((etcd.user.as_deref(), etcd.password.unwrap().expose()), (Some("file"), "pw"));
    site.env.insert("BACKEND_ETCD_ADDR", "nowhere".into());
    assert!(site.problems().contains("(environment variable BACKEND_ETCD_ADDR)"));
}

#[test]
fn the_log_level_follows_level_then_the_package_then_debug() {
    let level = |text: &str| Site::with_secret(text).load().unwrap().config.logging.level;
    assert_eq!(level("[logging.pkg-ns]\n\"ai.backend\" = \"ERROR\""), Level::Error);
    assert_eq!(
        level("[logging]\nlevel = \"warning\"\n[logging.pkg-ns]\n\"ai.backend\" = \"ERROR\""),
        Level::Warning
    );
    assert_eq!(level("[logging]\nlevel = \"ERROR\"\n[debug]\nenabled = true"), Level::Debug);
    assert_eq!(level("[logging]\nlevel = \"TRACE\"\n[debug]\nenabled = true"), Level::Trace);
}

#[test]
fn logging_always_goes_somewhere() {
    let loaded = Site::with_secret("[logging]\ndrivers = [\"logstash\"]").load().unwrap();
    assert!(loaded.config.logging.console.is_some() && warnings(&loaded)[0].contains("logs to the console"));
    let text = "[logging]\ndrivers = [\"file\"]\nfile = { path = \"logs\", filename = \"a.log\", format = \"json\" }";
    let site = Site::with_secret(text);
    let logging = site.load().unwrap().config.logging;
    let file = logging.file.unwrap();
    assert!(logging.console.is_none());
    assert_eq!(
        (file.path, file.filename.as_str(), file.format),
        (site.path("logs"), "a.log", LogFormat::Json)
    );
    assert_eq!((file.backup_count, file.rotation_size.bytes()), (5, 10 << 20));
}

#[test]
fn two_volumes_on_one_path_are_warned_of() {
    let loaded = Site::with_secret("[volume.twin]\nbackend = \"vfs\"\npath = \"/vfroot\"").load().unwrap();
    assert!(
        warnings(&loaded)[0].contains("volume.local: has the same path as volume twin"),
        "{:?}",
        loaded.notices
    );
}

#[test]
fn hostile_files_are_refused_or_read_but_never_crash() {
    let deep = format!("a = {}", "[".repeat(50_000));
    let dotted = format!("{} = 1", vec!["a"; 50_000].join("."));
    let tables = format!("[{}]", vec!["a"; 50_000].join("."));
    for text in [deep.as_str(), &dotted, &tables, "\0", "= =", "[[[[", "a = 1e999999", "\u{feff}[x"] {
        assert!(Site::new(text).load().is_err(), "{}", text.get(..20).unwrap_or(text));
    }
}

#[test]
fn events_are_off_unless_a_server_is_named_in_one_way() {
    let events = |text: &str| Site::with_secret(text).load().map(|loaded| loaded.config.events);
    assert!(events("").unwrap().valkey.is_none());
    let servers = events("[events]\nvalkey-addr = [\"a:1\", \"b:2\"]\npassword = \"p\"").unwrap();
    assert!(matches!(&servers.valkey, Some(Valkey::Servers(list)) if list.len() == 2 && list[1].port == 2));
    assert_eq!((servers.db, servers.password.unwrap().expose()), (4, "p"));
    let sentinel = events("[events]\nsentinel-addr = \"a:1\"\nsentinel-service = \"main\"").unwrap();
    assert!(matches!(sentinel.valkey, Some(Valkey::Sentinel { service, .. }) if service == "main"));
    assert_eq!(events("[events]\nfrom-etcd = true").unwrap().valkey, Some(Valkey::Etcd));
    for (text, part) in [
        ("valkey-addr = \"a:1\"\nfrom-etcd = true", "keep one of"),
        ("sentinel-addr = \"a:1\"", "events.sentinel-service: is missing"),
        ("valkey-addr = \":6379\"", "needs the host name"),
        ("valkey-addr = \"a:1\"\ntls-ca-file = \"/nonexistent/ca.pem\"", "does not exist"),
    ] {
        let problems = Site::with_secret(&format!("[events]\n{text}")).problems();
        assert!(problems.contains(part), "{text}: {problems}");
    }
    let idle = Site::with_secret("[events]\ntls = true").load().unwrap();
    assert!(warnings(&idle).iter().any(|warning| warning.contains("names no server")));
}
