//! Questions to the kernel, and what its answers say.

use std::net::IpAddr;

use carrick_types::{IpNet, Prefix};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Device, DeviceKind};
use crate::LinkRoute;
use crate::kernel::step::{PROTOCOL, Vxlan};

pub(super) fn get_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

pub(super) fn get_neighbor(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Where packets to `address` would go.
pub(super) fn get_route(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.attributes = vec![RouteAttribute::Destination(address.into())];
    RouteNetlinkMessage::GetRoute(message)
}

pub(super) fn device(message: LinkMessage) -> Device {
    let flags = message.header.flags;
    let mut device = Device {
        index: message.header.index,
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ..Device::default()
    };
    device.state.up = flags.contains(LinkFlags::Up);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => device.state.mac = mac(&bytes),
            LinkAttribute::IfAlias(alias) => device.state.alias = alias,
            LinkAttribute::IfName(name) => device.state.name = name,
            LinkAttribute::Link(index) => device.peer = Some(index),
            LinkAttribute::LinkInfo(info) => device.kind = kind(&info),
            LinkAttribute::Mtu(mtu) => device.state.mtu = mtu,
            _ => {}
        }
    }
    device
}

fn mac(bytes: &[u8]) -> [u8; 6] {
    bytes.try_into().unwrap_or_default()
}

fn kind(info: &[LinkInfo]) -> DeviceKind {
    let mut kind = DeviceKind::Other;
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::Veth) => kind = DeviceKind::Veth,
            LinkInfo::Data(InfoData::Vxlan(attributes)) => {
                kind = vxlan(attributes).map_or(DeviceKind::Other, DeviceKind::Vxlan);
            }
            _ => {}
        }
    }
    kind
}

fn vxlan(attributes: &[InfoVxlan]) -> Option<Vxlan> {
    let (mut vni, mut local, mut remote, mut port) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            InfoVxlan::Group(address) => remote = Some(IpAddr::V4(*address)),
            InfoVxlan::Group6(address) => remote = Some(IpAddr::V6(*address)),
            InfoVxlan::Id(id) => vni = carrick_types::Vni::new(*id).ok(),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    Some(Vxlan {
        vni: vni?,
        local: local?,
        remote: remote?,
        port: port?,
    })
}

/// An address that was put; link-local ones are the kernel's affair.
pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Local(address) => local = Some(*address),
            _ => {}
        }
    }
    let address = local.or(other)?;
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if is_link_local {
        return None;
    }
    IpNet::new(address, message.header.prefix_len).ok()
}

pub(super) fn is_marked(message: &AddressMessage) -> bool {
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL));
    message.attributes.contains(&ours)
}

pub(super) fn permanent_neighbor(message: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut hardware) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = Some(mac(bytes)),
            _ => {}
        }
    }
    Some((address?, hardware?))
}

pub(super) fn link_route(message: &RouteMessage) -> LinkRoute {
    let mut route = LinkRoute {
        prefix: destination(message),
        next_hop: None,
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => route.next_hop = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            _ => {}
        }
    }
    route
}

pub(super) fn destination(message: &RouteMessage) -> Prefix {
    let zero: IpAddr = match message.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    };
    let network = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        });
    let length = message.header.destination_prefix_length;
    Prefix::of(network.unwrap_or(zero), length)
        .unwrap_or_else(|_| carrick_types::host(network.unwrap_or(zero)))
}

pub(super) fn oif(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
