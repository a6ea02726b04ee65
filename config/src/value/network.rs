//! IP networks in CIDR notation, for lists of trusted peers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::{Value, Wrong};
use crate::tree::{Kind, Node};

/// An IP network; a single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// Whether `ip` belongs to the network. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && (bits(ip) ^ bits(self.address)) & mask(ip, self.prefix) == 0
    }
}

/// The address left-aligned in 128 bits.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn mask(ip: IpAddr, prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(width(ip) - prefix) + if ip.is_ipv4() { 96 } else { 0 }).unwrap_or(0)
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl FromStr for IpNetwork {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(drop)?,
            Some(_) => return Err(()),
            None => width(address),
        };
        let host_bits =
            if prefix > width(address) { return Err(()) } else { bits(address) & !mask(address, prefix) };
        if host_bits == 0 { Ok(Self { address, prefix }) } else { Err(()) }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Value for IpNetwork {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let Kind::Text(text) = &node.kind else {
            return Err(Wrong::new(
                node,
                "is not an IP address or network in quotes, such as \"10.0.0.0/8\"",
            ));
        };
        text.trim().parse().map_err(|()| {
            Wrong::new(node, "is not an IP address or network; write \"10.0.0.7\" or \"10.0.0.0/8\", the bits after the prefix 0")
        })
    }
}

impl IpNetwork {
    /// 127.0.0.0/8 and ::1.
    pub(crate) fn loopback() -> Vec<Self> {
        let v4 = Self { address: IpAddr::from([127, 0, 0, 0]), prefix: 8 };
        vec![v4, Self { address: Ipv6Addr::LOCALHOST.into(), prefix: 128 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        network.parse::<IpNetwork>().unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn membership_follows_the_prefix() {
        for (network, ip) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.7", "10.0.0.7"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("fd00::/8", "fd12::1"),
            ("::/0", "::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ] {
            assert!(contains(network, ip), "{network} {ip}");
        }
        for (network, ip) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.7", "10.0.0.8"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "1.2.3.4"),
            ("10.0.0.0/31", "10.0.0.2"),
        ] {
            assert!(!contains(network, ip), "{network} {ip}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10/8", "10.0.0.0/", "10.0.0.0/+8", "localhost"]
        {
            assert!(bad.parse::<IpNetwork>().is_err(), "{bad}");
        }
    }
}
