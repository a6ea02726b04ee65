//! Network addresses in the three spellings of `HostPortPair`.

use std::fmt;
use std::net::IpAddr;

use super::{Value, Wrong};
use crate::tree::{Kind, Node, same_key};

const REMEDY: &str = "is not an address; write { host = \"127.0.0.1\", port = 6021 }, [\"127.0.0.1\", 6021] or \"127.0.0.1:6021\"";

/// A host name or IP address with a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or IP address without brackets; blank means all interfaces of this host.
    pub host: String,
    /// The TCP port, 1 to 65535.
    pub port: u16,
}

impl HostPort {
    pub(crate) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// Whether listeners on both would want the same address and port.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.port != other.port {
            return false;
        }
        match (self.reach(), other.reach()) {
            (Reach::All, _) | (_, Reach::All) => true,
            (Reach::Ip(a), Reach::Ip(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
            (Reach::Name(a), Reach::Name(b)) => a.eq_ignore_ascii_case(b),
            (Reach::Ip(ip), Reach::Name(_)) | (Reach::Name(_), Reach::Ip(ip)) => ip.is_unspecified(),
        }
    }

    /// `::` takes IPv4 too on Linux unless `net.ipv6.bindv6only` is set.
    fn reach(&self) -> Reach<'_> {
        match self.host.parse::<IpAddr>() {
            _ if self.host.is_empty() => Reach::All,
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Reach::All,
            Ok(ip) => Reach::Ip(ip),
            Err(_) => Reach::Name(&self.host),
        }
    }
}

enum Reach<'a> {
    All,
    Ip(IpAddr),
    Name(&'a str),
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Value for HostPort {
    fn read(node: &Node) -> Result<Self, Wrong> {
        match &node.kind {
            Kind::Text(text) => from_text(node, text),
            Kind::List(items) => match items.as_slice() {
                [host, port] => pair((host, "[0]"), (port, "[1]")),
                _ => Err(Wrong::new(node, REMEDY)),
            },
            Kind::Table(table) => {
                let part = |name: &str| {
                    table.0.iter().find(|entry| same_key(&entry.name, name)).map(|entry| &entry.node)
                };
                if let Some(odd) =
                    table.0.iter().find(|entry| !["host", "port"].contains(&entry.name.as_str()))
                {
                    return Err(Wrong::new(
                        &odd.node,
                        "does not belong here; an address has host and port only",
                    )
                    .within(&format!(".{}", crate::tree::written_key(&odd.name))));
                }
                match (part("host"), part("port")) {
                    (Some(host), Some(port)) => pair((host, ".host"), (port, ".port")),
                    _ => Err(Wrong::new(node, REMEDY)),
                }
            }
            _ => Err(Wrong::new(node, REMEDY)),
        }
    }
}

fn from_text(node: &Node, text: &str) -> Result<HostPort, Wrong> {
    if text.contains("://") || text.contains('@') {
        // Not repeated: it may hold a password.
        let message = "is not wanted; write the host and the port alone, such as \"server.example:6379\"";
        return Err(Wrong { value: "a URL".into(), ..Wrong::new(node, message) });
    }
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(|| Wrong::new(node, REMEDY))?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    Ok(HostPort { host: checked_host(node, host)?, port: checked_port(node, port.parse().ok())? })
}

fn pair((host, host_at): (&Node, &str), (port, port_at): (&Node, &str)) -> Result<HostPort, Wrong> {
    let name = match &host.kind {
        Kind::Text(name) => checked_host(host, name.trim()),
        _ => Err(Wrong::new(host, "is not a host name or IP address in quotes")),
    };
    Ok(HostPort {
        host: name.map_err(|wrong| wrong.within(host_at))?,
        port: checked_port(port, u16::read(port).ok()).map_err(|wrong| wrong.within(port_at))?,
    })
}

fn checked_host(node: &Node, host: &str) -> Result<String, Wrong> {
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let plain = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    match host {
        "*" => Ok(String::new()),
        _ if !host.chars().all(plain) => {
            Err(Wrong::new(node, "has characters that no host name or IP address has"))
        }
        _ if host.contains(':') && host.split('%').next().is_some_and(|ip| ip.parse::<IpAddr>().is_err()) => {
            Err(Wrong::new(node, "is not an IPv6 address"))
        }
        _ => Ok(host.to_owned()),
    }
}

fn checked_port(node: &Node, port: Option<u16>) -> Result<u16, Wrong> {
    port.filter(|port| *port > 0)
        .ok_or_else(|| Wrong::new(node, "has no valid port; a port is a number from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn all_three_spellings_name_the_same_address() {
        for text in [
            "{ host = \"127.0.0.1\", port = 6021 }",
            "[\"127.0.0.1\", 6021]",
            "\"127.0.0.1:6021\"",
            "{port=\"6021\",host=\"127.0.0.1\"}",
        ] {
            assert_eq!(read(text), Ok(HostPort::new("127.0.0.1", 6021)), "{text}");
        }
    }

    #[test]
    fn ipv6_brackets_and_blank_hosts_are_understood() {
        assert_eq!(read("\"[::1]:6021\""), Ok(HostPort::new("::1", 6021)));
        assert_eq!(read("{ host = \"[::1]\", port = 6021 }"), Ok(HostPort::new("::1", 6021)));
        assert_eq!(read("\"::1:6021\""), Ok(HostPort::new("::1", 6021)));
        assert_eq!(read("\":6021\""), Ok(HostPort::new("", 6021)));
        assert_eq!(read("{ host = \"\", port = 6021 }"), Ok(HostPort::new("", 6021)));
        assert_eq!(HostPort::new("::1", 6021).to_string(), "[::1]:6021");
    }

    #[test]
    fn a_wrong_part_is_named() {
        let cases = [
            ("{ host = \"a\", port = 0 }", ".port"),
            ("{ host = \"a\", port = 65536 }", ".port"),
            ("{ host = 1, port = 2 }", ".host"),
            ("{ host = \"a b\", port = 2 }", ".host"),
            ("[\"a\", -1]", "[1]"),
            ("{ host = \"a\", port = 2, tls = true }", ".tls"),
        ];
        for (text, part) in cases {
            let message = read::<HostPort>(text).unwrap_err();
            assert!(message.starts_with(&format!("{part}:")), "{text}: {message}");
        }
    }

    #[test]
    fn a_url_is_refused_without_being_repeated() {
        for url in ["redis://:s3cret@h:6379", "redis://u:s3cret@h/4", "u:s3cret@h:6379"] {
            let message = read::<HostPort>(&format!("\"{url}\"")).unwrap_err();
            assert!(message.contains("a URL is not wanted") && !message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "\"6021\"",
            "\"a:b\"",
            "6021",
            "[]",
            "[\"a\"]",
            "{ host = \"a\" }",
            "\"http://a:80\"",
            "\"1:2:3:4\"",
        ] {
            assert!(read::<HostPort>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners_overlap_when_one_covers_the_other() {
        let overlap = |a: &str, b: &str| HostPort::new(a, 1).overlaps(&HostPort::new(b, 1));
        for (a, b) in [
            ("", "::1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "10.0.0.1"),
            ("a.example", "A.example"),
            ("0.0.0.0", "localhost"),
        ] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("0.0.0.0", "::1"), ("a", "b"), ("10.0.0.1", "a")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
        assert!(!HostPort::new("", 1).overlaps(&HostPort::new("", 2)));
    }
}
