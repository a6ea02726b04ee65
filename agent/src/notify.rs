//! Telling systemd how far the service is (sd_notify(3)): one datagram to the socket in `$NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service is up.
pub const READY: &str = "READY=1";
/// The service is going down.
pub const STOPPING: &str = "STOPPING=1";
/// The service is alive.
const ALIVE: &str = "WATCHDOG=1";

/// The service reads anew what a reload reads, since the time that is in it: systemd compares it with that of its request
/// (`Type=notify-reload`, systemd.service(5)). [`READY`] ends it.
pub fn reloading() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000)
}

/// Sends a state. Does nothing where nobody asked to be told; a failure is logged, because it stops nothing.
pub fn send(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send_to(&socket, state) {
        tracing::warn!(%error, state, "systemd could not be told");
    }
}

/// Tells systemd's watchdog (sd_watchdog_enabled(3)) for ever that the runtime still runs tasks, twice in the time that
/// it allows. File work that hangs on a dead mount is no reason to end the service, so it is not part of the sign of life.
/// Ends at once where no watchdog waits.
pub async fn feed_watchdog() {
    let variable = |name| std::env::var(name).ok();
    let Some(limit) = watchdog_limit(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID")) else { return };
    let mut beat = tokio::time::interval(limit / 2);
    loop {
        beat.tick().await;
        send(ALIVE);
    }
}

/// The time in which this process has to be heard of.
fn watchdog_limit(microseconds: Option<String>, pid: Option<String>) -> Option<Duration> {
    let limit = Duration::from_micros(microseconds?.parse().ok()?);
    let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
    (ours && limit > Duration::ZERO).then_some(limit)
}

fn send_to(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watchdog_of_this_very_process_is_fed() {
        let limit = |microseconds: &str, pid: &str| {
            watchdog_limit(Some(microseconds.into()), (!pid.is_empty()).then(|| pid.into()))
        };
        let own = std::process::id().to_string();
        assert_eq!(limit("30000000", &own), Some(Duration::from_secs(30)));
        assert_eq!(limit("30000000", ""), Some(Duration::from_secs(30)));
        assert_eq!(limit("30000000", "1"), None);
        assert_eq!(limit("0", &own), None);
        assert_eq!(limit("soon", &own), None);
        assert_eq!(watchdog_limit(None, Some(own)), None);
    }

    #[test]
    fn the_state_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("storage-agent-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, given) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().to_owned()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ] {
            send_to(&given, READY).unwrap();
            let mut buffer = [0; 32];
            let read = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], b"READY=1");
        }
    }
}
