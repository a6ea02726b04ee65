//! Whether the addresses can be listened on and, where they cannot, who has them.

use std::fs;
use std::path::Path;

use config::{Config, HostPort};

use crate::finding::{Finding, Report};
use crate::listener;

/// The program's name as the kernel cuts it (15 bytes).
const OURS: &str = "storage-agent";

/// Tries every configured address.
pub(super) fn check(config: &Config, report: &mut Report) {
    let api = &config.api;
    let mut all = vec![
        ("api.client.service-addr", &api.client.service_addr),
        ("api.manager.service-addr", &api.manager.service_addr),
    ];
    all.extend(api.manager.internal_addr.as_ref().map(|address| ("api.manager.internal-addr", address)));
    for (key, address) in all {
        report.add(try_out(key, address));
    }
}

fn try_out(key: &str, address: &HostPort) -> Finding {
    match listener::bind(key, &address.host, address.port) {
        Ok(_) => Finding::ok(key, format!("{address} can be listened on")),
        Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => in_use(key, address),
        Err(error) => Finding::problem(key, error.to_string()),
    }
}

fn in_use(key: &str, address: &HostPort) -> Finding {
    match holder(address.port) {
        Some((name, pid)) if name == OURS => Finding::note(
            key,
            format!("{address} is in use by storage-agent (pid {pid}), which runs already"),
        ),
        Some((name, 1)) if name == "systemd" => {
            Finding::ok(key, format!("{address} is held by systemd, which hands it over (storage-agent.socket)"))
        }
        Some((name, pid)) => Finding::problem(key, format!("{address} is in use by {name} (pid {pid})"))
            .cure("stop that program, or choose another port"),
        None => {
            Finding::warning(key, format!("{address} is in use by a program of another user")).cure(format!(
                "if that is neither storage-agent itself nor systemd for storage-agent.socket, stop it; root sees it by: \
                 ss -ltnp sport = :{}",
                address.port
            ))
        }
    }
}

/// Name and pid of the process that listens on the port, if it can be seen.
pub(crate) fn holder(port: u16) -> Option<(String, u32)> {
    let sockets: Vec<String> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if holds(&process.path(), &sockets) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

/// How the links in `/proc/PID/fd` name the sockets that listen on the port (proc_net_tcp(5)).
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [_, local, _, state, _, _, _, _, _, inode, ..] if local.ends_with(&wanted) && state == LISTEN => {
            Some(format!("socket:[{inode}]"))
        }
        _ => None,
    })
    .collect()
}

fn holds(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    let links = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links
        .into_iter()
        .any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_fine_and_a_taken_one_names_its_holder() {
        let held = listener::bind("k", "127.0.0.1", 0).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_eq!(holder(port).map(|(_, pid)| pid), Some(std::process::id()));
        let address = HostPort { host: "127.0.0.1".into(), port };
        assert!(matches!(try_out("k", &address), finding if format!("{finding:?}").contains("is in use by")));
        drop(held);
        assert_eq!(try_out("k", &address), Finding::ok("k", format!("{address} can be listened on")));
    }
}
