use std::net::IpAddr;

use carrick_types::{Invalid, Vni};
use ipnet::IpNet;

/// How a packet gets to its server. All but [`Mode::Nat`] leave the packet's
/// own addresses alone and let the server answer the client by itself (direct
/// server return); the server then holds the VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// In GRE (RFC 2784), with a key (RFC 2890) where the server has one.
    Gre,
    /// In UDP, GUE variant 1 (the inner IP header follows UDP at once).
    Gue {
        /// UDP port of the decapsulation on the server; usually 6080.
        port: u16,
    },
    /// In IP: protocol 4 for IPv4 inside, 41 for IPv6 inside (RFC 2003, RFC 2473).
    Ipip,
    /// Same link: only the Ethernet destination is rewritten.
    L2,
    /// The destination becomes the server's address and the DSCP (RFC 2474)
    /// tells the server which VIP it was.
    L3Dsr {
        /// The DSCP of each VIP; each VIP is a host prefix and has one.
        dscp: Vec<(IpNet, Dscp)>,
    },
    /// Destination address and port become the server's; answers come back
    /// through the balancer.
    Nat {
        /// When the source is translated too.
        snat: Snat,
    },
    /// In VXLAN (RFC 7348).
    Vxlan {
        /// The network of servers that name no own.
        vni: Vni,
        /// UDP port of the servers; usually 4789.
        port: u16,
    },
}

impl Mode {
    /// Its name in configuration, status and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::Gue { .. } => "gue",
            Self::Ipip => "ipip",
            Self::L2 => "l2",
            Self::L3Dsr { .. } => "l3dsr",
            Self::Nat { .. } => "nat",
            Self::Vxlan { .. } => "vxlan",
        }
    }
}

/// When NAT translates the source of a packet, which is what brings the
/// answer back to the balancer where routing alone would not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Snat {
    /// Always, to one of these addresses of the balancer.
    Always(Vec<IpAddr>),
    /// Never: the servers see every client.
    #[default]
    Never,
    /// Only where the client is a server of the service itself (hairpin) or
    /// the balancer itself; all others are seen as they are.
    WhenNeeded(Vec<IpAddr>),
}

impl Snat {
    /// The addresses sources are translated to; empty for [`Snat::Never`].
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Always(addresses) | Self::WhenNeeded(addresses) => addresses,
            Self::Never => &[],
        }
    }
}

/// A differentiated services code point, 1 to 63 (RFC 2474 §3); 0 is what
/// everyone sends and can name no VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dscp(u8);

impl Dscp {
    /// Takes the six bits, without the two of ECN.
    ///
    /// # Errors
    ///
    /// The value is 0 or above 63.
    pub fn new(value: u8) -> Result<Self, Invalid> {
        if (1..=63).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Invalid::new("dscp", value, "a number of 1 to 63"))
        }
    }

    /// The six bits.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}
