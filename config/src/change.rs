//! What of a new configuration can take effect in a process that runs already.
//!
//! Sockets, volumes, threads and logs' places are made once, at the start. Their keys are listed here and nowhere else:
//! what is not in the list is read anew by whoever uses it.

use crate::{Config, Etcd, Events, Secret, Volume};

/// Puts the old value back where the new one differs, and notes the key.
macro_rules! keep {
    ($new:ident, $old:ident, $kept:ident; $($key:literal: $($field:ident).+;)*) => {$(
        if $new.$($field).+ != $old.$($field).+ {
            $new.$($field).+ = $old.$($field).+.clone();
            $kept.push($key.to_owned());
        }
    )*};
}

impl Config {
    /// Takes over from `old`, the configuration in force, what cannot change before the next start. The keys whose new
    /// values have to wait for it.
    pub fn keep_fixed(&mut self, old: &Config) -> Vec<String> {
        let (new, mut kept) = (self, Vec::new());
        keep! { new, old, kept;
            "storage-proxy.node-id": storage_proxy.node_id;
            "storage-proxy.user": storage_proxy.user;
            "storage-proxy.group": storage_proxy.group;
            "storage-proxy.pid-file": storage_proxy.pid_file;
            "storage-proxy.num-proc": storage_proxy.num_proc;
            "storage-proxy.volume-stats": storage_proxy.volume_stats;
            "api.client.service-addr": api.client.service_addr;
            "api.manager.service-addr": api.manager.service_addr;
            "api.manager.internal-addr": api.manager.internal_addr;
            "logging.console": logging.console;
            "logging.file": logging.file;
            "agent.allow-root": agent.allow_root;
            "agent.landlock": agent.landlock;
            "agent.seccomp": agent.seccomp;
            "agent.writable-paths": agent.writable_paths;
            "agent.blocking-threads": agent.blocking_threads;
            "agent.quota-helper": agent.quota_helper;
            "agent.quota-audit-interval": agent.quota_audit_interval;
            "limits.tasks-running": limits.tasks_running;
            "limits.archives": limits.archives;
            "download.unmanaged-roots": download.unmanaged_roots;
        }
        for (key, new, old) in [
            ("api.client.ssl-enabled", &mut new.api.client.tls, &old.api.client.tls),
            ("api.manager.ssl-enabled", &mut new.api.manager.tls, &old.api.manager.tls),
        ] {
            if new.is_some() != old.is_some() {
                new.clone_from(old);
                kept.push(key.to_owned());
            }
        }
        if !same_etcd(&new.etcd, &old.etcd) {
            new.etcd.clone_from(&old.etcd);
            kept.push("etcd".to_owned());
        }
        if !same_events(&new.events, &old.events) {
            new.events.clone_from(&old.events);
            kept.push("events".to_owned());
        }
        kept.extend(changed_volumes(&new.volumes, &old.volumes));
        new.volumes.clone_from(&old.volumes);
        kept
    }
}

/// The volumes that are new, gone or changed.
fn changed_volumes(new: &[Volume], old: &[Volume]) -> Vec<String> {
    let find = |volumes: &[Volume], name: &str| volumes.iter().position(|volume| volume.name == name);
    let same = |volume: &Volume| {
        let other = find(old, &volume.name).and_then(|at| old.get(at));
        other.is_some_and(|other| volume.same(other))
    };
    let changed = new.iter().filter(|volume| !same(volume));
    let gone = old.iter().filter(|volume| find(new, &volume.name).is_none());
    changed.chain(gone).map(|volume| format!("volume.{}", crate::tree::written_key(&volume.name))).collect()
}

/// Not for what a peer sent: the time that it takes tells how much is equal.
fn plain(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::expose)
}

fn same_etcd(new: &Etcd, old: &Etcd) -> bool {
    let rest = |etcd: &Etcd| (etcd.namespace.clone(), etcd.addr.clone(), etcd.user.clone());
    rest(new) == rest(old) && plain(&new.password) == plain(&old.password)
}

fn same_events(new: &Events, old: &Events) -> bool {
    let rest = |events: &Events| {
        let Events { valkey, tls, ca_file, user, db, outbox_size, leases, .. } = events.clone();
        (valkey, tls, ca_file, user, db, outbox_size, leases)
    };
    let secrets = plain(&new.password) == plain(&old.password)
        && plain(&new.sentinel_password) == plain(&old.sentinel_password);
    secrets && rest(new) == rest(old)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Config, Level, Source};

    const BASE: &str = r#"
        [storage-proxy]
        secret = "token-secret-of-32-bytes-at-least"
        session-expire = "1d"
        [api.client]
        service-addr = "127.0.0.1:6021"
        [api.manager]
        service-addr = "127.0.0.1:6022"
        secret = "manager-secret-of-32-bytes-and-more"
        [volume.local]
        backend = "vfs"
        path = "/vfroot/local"
    "#;

    fn config(more: &str) -> Config {
        let source = Source { file: None, env: &|_| None, working_directory: "/etc".into(), lenient: false };
        crate::parse(&format!("{BASE}{more}"), Path::new("/etc/storage-proxy.toml"), &source).unwrap().config
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert!(config("").keep_fixed(&config("")).is_empty());
    }

    #[test]
    fn limits_levels_and_secrets_take_effect() {
        let mut new = config(
            "[limits]\njson-size = \"1m\"\n[logging]\nlevel = \"ERROR\"\n[upload]\nlock-wait = \"1s\"\n",
        );
        assert!(new.keep_fixed(&config("")).is_empty());
        assert_eq!((new.limits.json_size.bytes(), new.logging.level), (1 << 20, Level::Error));
    }

    #[test]
    fn what_was_made_at_the_start_stays_and_is_told() {
        let old = config("");
        let mut new = config(
            "[volume.more]\nbackend = \"vfs\"\npath = \"/vfroot/more\"\n[limits]\ntasks-running = 9\n\
             [agent]\nseccomp = false\n[events]\nvalkey-addr = \"127.0.0.1:6379\"\n",
        );
        let kept = new.keep_fixed(&old);
        assert_eq!(kept, ["agent.seccomp", "limits.tasks-running", "events", "volume.more"]);
        assert_eq!((new.volumes.len(), new.limits.tasks_running, new.agent.seccomp), (1, 4, true));
        assert!(new.events.valkey.is_none());
    }
}
