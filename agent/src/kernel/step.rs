//! One change that the kernel is asked for, in its words and in ours.

mod display;

use std::net::IpAddr;
use std::os::fd::RawFd;

use carrick_types::{IpNet, Prefix, Vni};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::netlink::Message;
use crate::LinkRoute;
use crate::identity::Mac;

/// Marks routes and addresses as ours (`rtm_protocol`, `IFA_PROTO`): a number
/// that no routing daemon known to iproute2 has.
pub(super) const PROTOCOL: u8 = 67;

/// The group of devices that are about to be deleted; no device is in it for longer.
const CONDEMNED: u32 = 0x6361_7272;

/// What is unreachable unless a link claims it: behind every other route.
const LAST: u32 = u32::MAX;

/// Whether something is put or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toggle {
    Add,
    Remove,
}

/// One change in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Address {
        toggle: Toggle,
        index: u32,
        address: IpNet,
    },
    /// Puts a device into the group of those to be deleted together.
    Condemn {
        index: u32,
    },
    /// Says whose a device is, and keeps the kernel from giving it link-local addresses.
    Claim {
        index: u32,
        alias: String,
    },
    CreateVeth {
        near: Device,
        far: Device,
        /// The far end's namespace.
        netns: RawFd,
    },
    CreateVxlan {
        device: Device,
        /// Its namespace; the tunnel's packets leave from that of the socket.
        netns: RawFd,
        vxlan: Vxlan,
    },
    Delete {
        index: u32,
    },
    /// Deletes all devices that are condemned.
    DeleteCondemned,
    Mac {
        index: u32,
        mac: Mac,
    },
    Mtu {
        index: u32,
        mtu: u32,
    },
    Name {
        index: u32,
        name: String,
    },
    Neighbor {
        toggle: Toggle,
        index: u32,
        address: IpAddr,
        mac: Mac,
    },
    Route {
        toggle: Toggle,
        index: u32,
        route: LinkRoute,
    },
    Unreachable {
        toggle: Toggle,
        prefix: Prefix,
    },
    Up {
        index: u32,
        up: bool,
    },
}

/// A device to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// The tunnel of a VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vxlan {
    pub(super) vni: Vni,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) port: u16,
}

impl Step {
    /// The message for the kernel.
    pub(super) fn message(&self) -> Message {
        use RouteNetlinkMessage as M;
        match self {
            Self::Address {
                toggle,
                index,
                address,
            } => {
                let message = address_message(*index, *address);
                match toggle {
                    Toggle::Add => (M::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE),
                    Toggle::Remove => (M::DelAddress(message), 0),
                }
            }
            Self::CreateVeth { near, far, netns } => {
                let mut peer = far.message();
                peer.attributes.push(LinkAttribute::NetNsFd(*netns));
                let data = InfoData::Veth(InfoVeth::Peer(peer));
                create(near.message(), InfoKind::Veth, data)
            }
            Self::CreateVxlan {
                device,
                netns,
                vxlan,
            } => {
                let mut message = device.message();
                message.attributes.push(LinkAttribute::NetNsFd(*netns));
                create(
                    message,
                    InfoKind::Vxlan,
                    InfoData::Vxlan(vxlan.attributes()),
                )
            }
            Self::Condemn { index } => set(*index, [LinkAttribute::Group(CONDEMNED)]),
            Self::DeleteCondemned => (M::DelLink(link(0, [LinkAttribute::Group(CONDEMNED)])), 0),
            Self::Delete { index } => (M::DelLink(link(*index, [])), 0),
            Self::Claim { index, alias } => set(*index, claim(alias)),
            Self::Mac { index, mac } => set(*index, [LinkAttribute::Address(mac.to_vec())]),
            Self::Mtu { index, mtu } => set(*index, [LinkAttribute::Mtu(*mtu)]),
            Self::Name { index, name } => set(*index, [LinkAttribute::IfName(name.clone())]),
            Self::Neighbor {
                toggle,
                index,
                address,
                mac,
            } => {
                let message = neighbor_message(*index, *address, *mac);
                match toggle {
                    Toggle::Add => (M::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE),
                    Toggle::Remove => (M::DelNeighbour(message), 0),
                }
            }
            // Without NLM_F_EXCL: a route that another link has for the prefix
            // stays, behind this one.
            Self::Route {
                toggle,
                index,
                route,
            } => toggle.route(route_message(*index, route)),
            Self::Unreachable { toggle, prefix } => toggle.route(unreachable_message(*prefix)),
            Self::Up { index, up } => {
                let mut message = link(*index, []);
                message.header.change_mask = LinkFlags::Up;
                if *up {
                    message.header.flags = LinkFlags::Up;
                }
                (M::SetLink(message), 0)
            }
        }
    }
}

impl Toggle {
    fn route(self, message: RouteMessage) -> Message {
        match self {
            Self::Add => (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE),
            Self::Remove => (RouteNetlinkMessage::DelRoute(message), 0),
        }
    }
}

impl Device {
    fn message(&self) -> LinkMessage {
        link(
            self.index,
            [
                LinkAttribute::IfName(self.name.clone()),
                LinkAttribute::Address(self.mac.to_vec()),
                LinkAttribute::Mtu(self.mtu),
                // As many as are used. Left to itself, a veth is made with one
                // for each CPU and cut down to one, and the kernel waits for
                // all CPUs (RCU) under the lock of all network settings.
                LinkAttribute::NumTxQueues(1),
                LinkAttribute::NumRxQueues(1),
            ],
        )
    }
}

impl Vxlan {
    /// UDP checksums as the RFCs have them: none over IPv4 (RFC 7348 §5), where
    /// the inner packet has its own, and full ones over IPv6, whose header has
    /// none (RFC 8200 §8.1).
    fn attributes(&self) -> Vec<InfoVxlan> {
        let ends = match (self.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => vec![
                InfoVxlan::Local(local),
                InfoVxlan::Group(remote),
                InfoVxlan::UDPCsum(false),
            ],
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                vec![InfoVxlan::Local6(local), InfoVxlan::Group6(remote)]
            }
            // Refused before; the kernel would, too, for want of a remote end.
            _ => Vec::new(),
        };
        [
            InfoVxlan::Id(self.vni.value()),
            InfoVxlan::Port(self.port),
            InfoVxlan::Learning(false),
        ]
        .into_iter()
        .chain(ends)
        .collect()
    }
}

fn link<const N: usize>(index: u32, attributes: [LinkAttribute; N]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes.into();
    message
}

fn set<const N: usize>(index: u32, attributes: [LinkAttribute; N]) -> Message {
    (RouteNetlinkMessage::SetLink(link(index, attributes)), 0)
}

fn create(mut message: LinkMessage, kind: InfoKind, data: InfoData) -> Message {
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(kind),
        LinkInfo::Data(data),
    ]));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    (RouteNetlinkMessage::NewLink(message), flags)
}

/// Neighbours are entered by hand, so no end needs a link-local address, and
/// without one it sends no multicast of its own.
fn claim(alias: &str) -> [LinkAttribute; 2] {
    let inet6 = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
    [
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]),
    ]
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Usable at once: no duplicate address detection, as addresses are leased.
fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Flags(AddressFlags::Nodad),
        AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)),
    ];
    message
}

fn neighbor_message(index: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn prefix_message(prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.network());
    message.header.destination_prefix_length = prefix.length();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Universe;
    if prefix.length() > 0 {
        let network = prefix.network().into();
        message
            .attributes
            .push(RouteAttribute::Destination(network));
    }
    message
}

fn route_message(index: u32, route: &LinkRoute) -> RouteMessage {
    let mut message = prefix_message(route.prefix);
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    match route.next_hop {
        Some(next_hop) => {
            message.header.flags = RouteFlags::Onlink;
            let gateway = RouteAttribute::Gateway(next_hop.into());
            message.attributes.push(gateway);
        }
        None if route.prefix.network().is_ipv4() => message.header.scope = RouteScope::Link,
        None => {}
    }
    let source = route
        .source
        .map(|source| RouteAttribute::PrefSource(source.into()));
    message.attributes.extend(source);
    message
}

fn unreachable_message(prefix: Prefix) -> RouteMessage {
    let mut message = prefix_message(prefix);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(LAST));
    message
}
