use std::fmt;

use ipnet::IpNet;

use super::{Ports, Protocols};

/// The packets that belong to a service, by their destination.
///
/// Where prefixes of several VIPs hold an address, the packet belongs to the
/// longest of those whose protocols and ports take it. Two VIPs of the same
/// prefix never share a protocol and port; that is a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vip {
    /// One address (/32, /128) or a prefix, without host bits.
    pub prefix: IpNet,
    /// The protocols it takes.
    pub protocols: Protocols,
    /// The destination ports it takes, of protocols that have ports.
    pub ports: Ports,
}

impl Vip {
    /// Everything for that prefix: all protocols and ports.
    #[must_use]
    pub fn all(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            protocols: Protocols::ANY,
            ports: Ports::All,
        }
    }

    /// Whether a packet may belong to both with neither being more specific.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        // Ports do not tell packets without ports apart.
        let portless = Protocols::of(&[super::Protocol::Icmp, super::Protocol::Other]);
        let shared = Protocols::from_common(self.protocols, other.protocols);
        self.prefix == other.prefix
            && !shared.is_empty()
            && (shared.overlaps(portless) || self.ports.overlaps(&other.ports))
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefix,
            protocols,
            ports,
        } = self;
        write!(f, "{prefix} {protocols} {ports}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;

    fn vip(prefix: &str, protocols: &[Protocol], port: u16) -> Vip {
        Vip {
            prefix: prefix.parse().unwrap(),
            protocols: Protocols::of(protocols),
            ports: Ports::single(port).unwrap(),
        }
    }

    #[test]
    fn two_ports_of_one_address_do_not_conflict() {
        let web = vip("10.0.0.1/32", &[Protocol::Tcp], 80);
        assert!(!web.conflicts(&vip("10.0.0.1/32", &[Protocol::Tcp], 443)));
        assert!(!web.conflicts(&vip("10.0.0.1/32", &[Protocol::Udp], 80)));
        assert!(web.conflicts(&vip("10.0.0.1/32", &[Protocol::Udp, Protocol::Tcp], 80)));
        assert!(web.conflicts(&Vip::all("10.0.0.1/32".parse().unwrap())));
    }

    #[test]
    fn a_host_within_a_prefix_is_more_specific() {
        let host = vip("10.0.0.1/32", &[Protocol::Tcp], 80);
        assert!(!host.conflicts(&Vip::all("10.0.0.0/24".parse().unwrap())));
    }

    #[test]
    fn ports_do_not_tell_echo_requests_apart() {
        let ping = vip("10.0.0.1/32", &[Protocol::Icmp], 80);
        assert!(ping.conflicts(&vip("10.0.0.1/32", &[Protocol::Icmp], 443)));
    }
}
