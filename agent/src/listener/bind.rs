//! Opening the listening sockets, before the process gives up its privileges and before there is a runtime.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

const BACKLOG: i32 = 1024;

/// An address could not be listened on.
#[derive(Debug, Error)]
#[error("{key}: cannot listen on {address}: {reason}")]
pub struct BindError {
    /// The configuration key that names the address.
    pub key: String,
    /// The address as it was configured.
    pub address: String,
    /// What is wrong and, where it is known, what to do.
    pub reason: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Listens on a host and port; a blank host means all interfaces, IPv6 and IPv4. `key` is the configuration key
/// of the address. Blocks while a host name is looked up.
pub fn bind(key: &str, host: &str, port: u16) -> Result<TcpListener, BindError> {
    let error = |source: io::Error| BindError {
        key: key.to_owned(),
        address: if host.is_empty() { format!("port {port}") } else { format!("{host}:{port}") },
        reason: explain(&source, port),
        source,
    };
    let mut last = None;
    for address in addresses(host, port).map_err(error)? {
        match listen(address) {
            Ok(socket) => return Ok(socket),
            Err(source) => last = Some(source),
        }
    }
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    Err(error(last.unwrap_or_else(nothing)))
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn explain(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens there already (`ss -ltnp sport = :{port}` shows which)")
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; use one of its own, or \"\" for all".into()
        }
        io::ErrorKind::PermissionDenied => format!(
            "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= of the unit), \
             or use a port above 1023 instead of {port}"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_host_takes_ipv4_and_where_there_is_ipv6_that_too() {
        let socket = bind("api.client.service-addr", "", 0).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_key_address_and_remedy() {
        let taken = bind("k", "127.0.0.1", 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind("api.manager.service-addr", "127.0.0.1", port).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "api.manager.service-addr: cannot listen on 127.0.0.1:{port}: another"
            ))
        );
    }

    #[test]
    fn an_address_of_another_host_is_an_error_that_says_so() {
        let error = bind("k", "192.0.2.1", 0).unwrap_err().to_string();
        assert!(error.contains("this host has no such address"), "{error}");
    }
}
