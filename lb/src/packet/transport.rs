use std::net::IpAddr;

use super::{Error, Icmp, Sctp, Tcp, Udp, protocol};

/// What stands behind an IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// ICMP or `ICMPv6`, as the addresses are.
    Icmp(Icmp),
    /// Anything else, by its protocol number: all of it is payload.
    Other(u8),
    /// SCTP.
    Sctp(Sctp),
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
}

impl Transport {
    /// Its number between addresses of the family of `source`.
    #[must_use]
    pub fn protocol(&self, source: IpAddr) -> u8 {
        match self {
            Self::Icmp(_) if source.is_ipv6() => protocol::ICMPV6,
            Self::Icmp(_) => protocol::ICMP,
            Self::Other(number) => *number,
            Self::Sctp(_) => protocol::SCTP,
            Self::Tcp(_) => protocol::TCP,
            Self::Udp(_) => protocol::UDP,
        }
    }

    /// The header with `payload`, as it goes between two addresses.
    ///
    /// # Panics
    ///
    /// As the headers' own `encode` do.
    #[must_use]
    pub fn encode(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Icmp(header) => header.encode(source, destination, payload),
            Self::Other(_) => payload.to_vec(),
            Self::Sctp(header) => header.encode(payload),
            Self::Tcp(header) => header.encode(source, destination, payload),
            Self::Udp(header) => header.encode(source, destination, payload),
        }
    }

    /// The header of protocol `number` at the beginning of `bytes`, and what
    /// follows it.
    ///
    /// # Errors
    ///
    /// The bytes are no such header, or its checksum is wrong.
    pub fn decode(
        number: u8,
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(Self, &[u8]), Error> {
        let v6 = source.is_ipv6();
        Ok(match number {
            protocol::ICMP if !v6 => map(Self::Icmp, Icmp::decode(source, destination, bytes)?),
            protocol::ICMPV6 if v6 => map(Self::Icmp, Icmp::decode(source, destination, bytes)?),
            protocol::SCTP => map(Self::Sctp, Sctp::decode(bytes)?),
            protocol::TCP => map(Self::Tcp, Tcp::decode(source, destination, bytes)?),
            protocol::UDP => map(Self::Udp, Udp::decode(source, destination, bytes)?),
            number => (Self::Other(number), bytes),
        })
    }
}

fn map<T, R>(variant: impl Fn(T) -> Transport, (header, rest): (T, R)) -> (Transport, R) {
    (variant(header), rest)
}
