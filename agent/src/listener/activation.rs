//! Listening sockets that systemd made and hands over (sd_listen_fds(3), systemd.socket(5)).
//!
//! Such a socket stays open while the agent restarts: who connects meanwhile waits, and nobody is refused. Which API a
//! socket is for is told by its name, `client`, `manager` or `internal`, else by its port, which is then that of the
//! configuration.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketType, sockopt};
use thiserror::Error;

use crate::kernel;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More than anybody hands over.
const MOST: RawFd = 16;

/// Why sockets that were handed over can't be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// One of them is nothing to listen with.
    #[error("the socket \"{name}\" that systemd handed over cannot be used: {reason}")]
    Unusable {
        /// Its name (`FileDescriptorName=`).
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody wants it.
    #[error(
        "systemd handed over a socket \"{name}\" on {address} that no API listens on: give it the port of a service-addr, \
         or one of the names client, manager and internal (FileDescriptorName=)"
    )]
    Unwanted {
        /// Its name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
}

/// The sockets that were handed over and not yet taken.
#[derive(Debug, Default)]
pub struct Activation(Vec<Given>);

#[derive(Debug)]
struct Given {
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

impl Activation {
    /// Takes over what the environment says was handed to this process. Once, before there is a second thread.
    pub fn of_process() -> Result<Self, ActivationError> {
        let variable = |name| std::env::var(name).ok();
        let names = handed_over(
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
            std::process::id(),
        );
        let numbered = (FIRST..).zip(names);
        let given = numbered.map(|(number, name)| {
            taken_over(number)
                .map_err(|error| ActivationError::Unusable { name: name.clone(), reason: error.to_string() })
                .map(|(socket, address)| Given { name, address, socket })
        });
        given.collect::<Result<_, _>>().map(Activation)
    }

    /// Hands out the socket of this name, or the one with the port that the configuration gives.
    pub fn take(&mut self, name: &str, port: u16) -> Option<TcpListener> {
        let by_name = self.0.iter().position(|given| given.name == name);
        let at = by_name.or_else(|| {
            self.0.iter().position(|given| !is_name(&given.name) && given.address.port() == port)
        })?;
        let Given { name, address, socket } = self.0.swap_remove(at);
        tracing::debug!(name, %address, "socket handed over by systemd");
        Some(socket)
    }

    /// Fails when a socket was not taken: somebody would connect to it and wait for ever.
    pub fn done(mut self) -> Result<(), ActivationError> {
        match self.0.pop() {
            None => Ok(()),
            Some(Given { name, address, .. }) => Err(ActivationError::Unwanted { name, address }),
        }
    }
}

fn is_name(name: &str) -> bool {
    ["client", "manager", "internal"].contains(&name)
}

/// The names of the sockets that are meant for the process `own`, in the order of their descriptors.
fn handed_over(pid: Option<&str>, count: Option<&str>, names: Option<&str>, own: u32) -> Vec<String> {
    let count: RawFd = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    if pid.and_then(|pid| pid.parse().ok()) != Some(own) {
        return Vec::new();
    }
    let mut names = names.unwrap_or_default().split(':').map(str::to_owned);
    (0..count.clamp(0, MOST)).map(|_| names.next().unwrap_or_default()).collect()
}

fn taken_over(number: RawFd) -> io::Result<(TcpListener, SocketAddr)> {
    let socket: OwnedFd = kernel::inherited(number)?;
    // Programs that the agent starts must not listen.
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other(
            "it does not listen (ListenStream=), or waits for one connection (Accept=yes)",
        ));
    }
    let socket = TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    let address = socket.local_addr().map_err(|_| io::Error::other("it is no TCP socket"))?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        let names = |pid, count, names| handed_over(pid, count, names, 7);
        assert_eq!(names(Some("7"), Some("2"), Some("client:manager")), ["client", "manager"]);
        assert_eq!(names(Some("7"), Some("2"), None), ["", ""]);
        assert_eq!(names(Some("8"), Some("2"), Some("client:manager")), [""; 0]);
        assert_eq!(names(None, Some("2"), None), [""; 0]);
        assert_eq!(names(Some("7"), Some("-1"), None), [""; 0]);
        assert_eq!(names(Some("7"), Some("many"), None), [""; 0]);
        assert_eq!(names(Some("7"), Some("4000000"), None).len(), MOST as usize);
    }

    #[test]
    fn a_socket_goes_by_its_name_or_else_by_its_port() {
        let given = |name: &str| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            Given { name: name.into(), address: socket.local_addr().unwrap(), socket }
        };
        let mut sockets = Activation(vec![given("storage-agent.socket"), given("manager")]);
        let port = sockets.0[0].address.port();
        assert!(sockets.take("client", port.wrapping_add(1)).is_none());
        assert!(sockets.take("manager", 6022).is_some(), "whatever port it has");
        assert!(sockets.take("client", port).is_some());
        sockets.done().unwrap();
        let error = Activation(vec![given("strange")]).done().unwrap_err().to_string();
        assert!(error.contains("\"strange\"") && error.contains("service-addr"), "{error}");
    }
}
