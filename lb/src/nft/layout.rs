//! Names, families and registers.

use std::net::IpAddr;

use ipnet::IpNet;
use nlink::netlink::nftables::{Family, Register, SetElement, SetKeyType};

/// IPv4 or IPv6: each has a table of its own, of the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Ip {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    pub(super) fn of_net(net: IpNet) -> Self {
        Self::of(net.addr())
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::V4 => Family::Ip,
            Self::V6 => Family::Ip6,
        }
    }

    /// Offset of the source address in the IP header.
    pub(super) fn source(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    /// Offset of the destination address in the IP header.
    pub(super) fn destination(self) -> u32 {
        self.source() + self.width()
    }

    /// Offset of the protocol (next header) in the IP header.
    pub(super) fn protocol(self) -> u32 {
        match self {
            Self::V4 => 9,
            Self::V6 => 6,
        }
    }

    /// Length of the IP header without options.
    pub(super) fn header(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// Bytes of an address.
    pub(super) fn width(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Registers of an address.
    fn words(self) -> usize {
        self.width() as usize / 4
    }

    /// The protocol number of its ICMP.
    pub(super) fn icmp(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    /// ICMP type of an echo request.
    pub(super) fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    /// ICMP type of an echo reply.
    pub(super) fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }

    /// ICMP types that speak of another packet.
    pub(super) fn errors(self) -> &'static [u8] {
        match self {
            Self::V4 => &[3, 11, 12],
            Self::V6 => &[1, 2, 3, 4],
        }
    }

    pub(super) fn address_type(self) -> SetKeyType {
        match self {
            Self::V4 => SetKeyType::Ipv4Addr,
            Self::V6 => SetKeyType::Ipv6Addr,
        }
    }

    /// The type of [`Register`]s as [`Place`] lays a flow's key out: source,
    /// destination, protocol, source port, destination port.
    pub(super) fn key_type(self) -> SetKeyType {
        SetKeyType::Concat(vec![
            self.address_type(),
            self.address_type(),
            SetKeyType::InetProto,
            SetKeyType::InetService,
            SetKeyType::InetService,
        ])
    }

    /// Bytes of a flow's key.
    pub(super) fn key_width(self) -> u32 {
        2 * self.width() + 12
    }

    pub(super) fn place(self) -> Place {
        Place(self)
    }
}

/// Which register holds what while a rule runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(Ip);

#[expect(
    clippy::unused_self,
    reason = "all registers are asked for alike, also those that no family moves"
)]
impl Place {
    fn word(word: usize) -> Register {
        Register::word(word).expect("a rule uses less than sixteen registers")
    }

    /// Where a key begins: a flow's, or that of the VIPs.
    pub(super) fn key(self) -> Register {
        Self::word(0)
    }

    /// The flow's destination.
    pub(super) fn destination(self) -> Register {
        Self::word(self.0.words())
    }

    /// The flow's protocol.
    pub(super) fn protocol(self) -> Register {
        Self::word(2 * self.0.words())
    }

    /// The flow's source port.
    pub(super) fn source_port(self) -> Register {
        Self::word(2 * self.0.words() + 1)
    }

    /// The flow's destination port.
    pub(super) fn destination_port(self) -> Register {
        Self::word(2 * self.0.words() + 2)
    }

    /// VIP key: protocol first, then the address, then the port.
    pub(super) fn vip_address(self) -> Register {
        Self::word(1)
    }

    /// VIP key: the port.
    pub(super) fn vip_port(self) -> Register {
        Self::word(1 + self.0.words())
    }

    /// The number that was chosen or looked up.
    pub(super) fn number(self) -> Register {
        Self::word(11)
    }

    /// Anything else for a moment.
    pub(super) fn scratch(self) -> Register {
        Self::word(12)
    }

    /// An address that was looked up, in place of a key.
    pub(super) fn address(self) -> Register {
        Self::word(0)
    }

    /// The port behind it.
    pub(super) fn port(self) -> Register {
        Self::word(self.0.words())
    }
}

/// An address as a key or as data.
pub(super) fn address(address: IpAddr) -> SetElement {
    match address {
        IpAddr::V4(address) => SetElement::ipv4(address),
        IpAddr::V6(address) => SetElement::ipv6(address),
    }
}

/// How packets of a kind of protocols show their flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ICMP echo requests: the identifier.
    Echo,
    /// Everything else: the addresses alone.
    Other,
    /// TCP, UDP and SCTP: two ports.
    Ports,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Echo, Self::Other, Self::Ports];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Other => "other",
            Self::Ports => "ports",
        }
    }
}

/// Names of the sets and maps that exist once per table.
pub(super) mod name {
    pub(in super::super) const ALIVE: &str = "alive";
    pub(in super::super) const CLOSING: &str = "closing";
    pub(in super::super) const DISPATCH: &str = "dispatch";
    pub(in super::super) const FLOWS: &str = "flows";
    pub(in super::super) const NAT_DISPATCH: &str = "nat_dispatch";
    pub(in super::super) const OPEN: &str = "open";
    pub(in super::super) const PORTED: &str = "ported";
    pub(in super::super) const REASONS: &str = "reasons";
    pub(in super::super) const SERVERS: &str = "servers";
    pub(in super::super) const SERVER_FLOWS: &str = "server_flows";
    pub(in super::super) const SERVER_PACKETS: &str = "server_packets";
    pub(in super::super) const SERVICES: &str = "services";
    pub(in super::super) const SNAT_DISPATCH: &str = "snat_dispatch";
    pub(in super::super) const TARGET: &str = "target";
    pub(in super::super) const TARGET_PORT: &str = "target_port";
    pub(in super::super) const VIPS: &str = "vips";
    pub(in super::super) const VIP_FLOWS: &str = "vip_flows";
    pub(in super::super) const VIP_PACKETS: &str = "vip_packets";
    pub(in super::super) const WAY: &str = "way";

    /// The VIPs of one prefix length.
    pub(in super::super) fn prefixes(length: u8) -> String {
        format!("prefixes_{length}")
    }
}
