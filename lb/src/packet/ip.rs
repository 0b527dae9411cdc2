use std::net::IpAddr;

use super::{Error, Ipv4, Ipv6, ethertype};

/// An IP header of either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ip {
    /// Version 4.
    V4(Ipv4),
    /// Version 6.
    V6(Ipv6),
}

impl Ip {
    /// The header of a whole packet with a TTL of 64, without options.
    ///
    /// # Panics
    ///
    /// The addresses are not of one family.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::V4(Ipv4::new(source, destination, protocol))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Self::V6(Ipv6::new(source, destination, protocol))
            }
            _ => panic!("{source} and {destination} are of different families"),
        }
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(header) => header.source.into(),
            Self::V6(header) => header.source.into(),
        }
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(header) => header.destination.into(),
            Self::V6(header) => header.destination.into(),
        }
    }

    /// What the payload is, see [`protocol`](super::protocol).
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self {
            Self::V4(header) => header.protocol,
            Self::V6(header) => header.protocol,
        }
    }

    /// Says what the payload is.
    pub fn set_protocol(&mut self, protocol: u8) {
        match self {
            Self::V4(header) => header.protocol = protocol,
            Self::V6(header) => header.protocol = protocol,
        }
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        match self {
            Self::V4(header) => header.ttl,
            Self::V6(header) => header.hop_limit,
        }
    }

    /// Whether it heads a part of a packet. An IPv6 packet of one fragment
    /// counts as whole.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        match self {
            Self::V4(header) => header.is_fragment(),
            Self::V6(header) => header.fragment().is_some_and(|part| part != (0, false)),
        }
    }

    /// How Ethernet names this version.
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        match self {
            Self::V4(_) => ethertype::IPV4,
            Self::V6(_) => ethertype::IPV6,
        }
    }

    /// The packet with `payload`.
    ///
    /// # Panics
    ///
    /// As [`Ipv4::encode`] and [`Ipv6::encode`] do.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::V4(header) => header.encode(payload),
            Self::V6(header) => header.encode(payload),
        }
    }

    /// The header at the beginning of `bytes`, and the payload.
    ///
    /// # Errors
    ///
    /// The bytes are no IP of either version.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        if bytes.first().is_some_and(|first| first >> 4 == 6) {
            let (header, payload) = Ipv6::decode(bytes)?;
            return Ok((Self::V6(header), payload));
        }
        let (header, payload) = Ipv4::decode(bytes)?;
        Ok((Self::V4(header), payload))
    }
}
