//! Reads what is there: devices of ours and what lies on them.

mod message;

use std::collections::BTreeMap;
use std::io;

use carrick_types::{ConnectionId, IpNet, Prefix};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, State};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use self::message::{
    address, destination, device, get_link, get_neighbor, get_route, is_marked, link_route, oif,
    permanent_neighbor,
};
use super::netlink::Socket;
use super::state::{Dressing, EndState, LOOPBACK, RouterState};
use super::step::{PROTOCOL, Vxlan};
use crate::Side;
use crate::identity::{Alias, INDEX_TRIES, index};

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// A device as it is found.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) state: EndState,
    /// Whether it can carry packets: up, and its other end too.
    pub(super) carrier: bool,
    pub(super) kind: DeviceKind,
    /// Index of a veth's other end in its namespace.
    pub(super) peer: Option<u32>,
}

/// What a device is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DeviceKind {
    #[default]
    Other,
    Veth,
    Vxlan(Vxlan),
}

/// The device of one end, or the index that it shall get.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Free(u32),
    Ours(Box<Device>),
    /// Other devices have all the indices that it might get.
    Taken,
}

impl Slot {
    pub(super) fn ours(self) -> Option<Device> {
        match self {
            Self::Ours(device) => Some(*device),
            Self::Free(_) | Self::Taken => None,
        }
    }
}

impl Socket {
    /// Looks for the device of one end; `device.state` lacks what lies on it.
    pub(super) fn slot(&mut self, id: &ConnectionId, side: Side) -> io::Result<Slot> {
        let indices: Vec<u32> = (0..INDEX_TRIES).map(|i| index(id, side, i)).collect();
        let questions = indices.iter().map(|&index| get_link(index)).collect();
        let mut free = None;
        for (answer, index) in self.ask(questions)?.into_iter().zip(indices) {
            match answer {
                Some(RouteNetlinkMessage::NewLink(message)) => {
                    let device = device(message);
                    let alias = Alias::parse(&device.state.alias);
                    if alias.is_some_and(|alias| alias.is(id, side)) {
                        return Ok(Slot::Ours(Box::new(device)));
                    }
                }
                _ => free = free.or(Some(index)),
            }
        }
        Ok(free.map_or(Slot::Taken, Slot::Free))
    }

    /// Whether there is a device of that name.
    pub(super) fn has(&mut self, name: &str) -> io::Result<bool> {
        let mut question = LinkMessage::default();
        question.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        ];
        let answers = self.ask(vec![RouteNetlinkMessage::GetLink(question)])?;
        Ok(answers.iter().any(Option::is_some))
    }

    /// Reads a device and all that lies on it.
    pub(super) fn end(&mut self, index: u32) -> io::Result<Option<Device>> {
        let Some(mut device) = self.bare(index)? else {
            return Ok(None);
        };
        let mut dressing = self.addresses_and_routes(index)?;
        for family in FAMILIES {
            let mut question = NeighbourMessage::default();
            question.header.family = family;
            question.attributes = vec![NeighbourAttribute::IfIndex(index)];
            self.dump(RouteNetlinkMessage::GetNeighbour(question), |answer| {
                if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                    dressing.neighbors.extend(permanent_neighbor(&message));
                }
            })?;
        }
        device.state.dressing = Some(dressing);
        Ok(Some(device))
    }

    /// Whether a device is as it shall be. Of neighbours only the wanted ones are
    /// looked at: the kernel has one table of them for all namespaces, and to list
    /// those of a device goes through all.
    pub(super) fn is_as(&mut self, index: u32, wanted: &EndState) -> io::Result<bool> {
        let Some(mut device) = self.bare(index)? else {
            return Ok(false);
        };
        if let Some(dressing) = &wanted.dressing {
            let mut now = self.addresses_and_routes(index)?;
            let wanted = dressing.neighbors.keys();
            let questions = wanted.map(|address| get_neighbor(index, *address));
            for answer in self.ask(questions.collect())?.into_iter().flatten() {
                if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                    now.neighbors.extend(permanent_neighbor(&message));
                }
            }
            device.state.dressing = Some(now);
        }
        Ok(device.state.steps(wanted, index).is_empty())
    }

    fn bare(&mut self, index: u32) -> io::Result<Option<Device>> {
        let answers = self.ask(vec![get_link(index)])?;
        Ok(match answers.into_iter().next() {
            Some(Some(RouteNetlinkMessage::NewLink(message))) => Some(device(message)),
            _ => None,
        })
    }

    fn addresses_and_routes(&mut self, index: u32) -> io::Result<Dressing> {
        let mut dressing = Dressing::default();
        self.addresses(index, |address, _| {
            dressing.addresses.insert(address);
        })?;
        for family in FAMILIES {
            let oif = Some(RouteAttribute::Oif(index));
            self.routes(family, RouteType::Unicast, oif, |message| {
                dressing.routes.insert(link_route(message));
            })?;
        }
        Ok(dressing)
    }

    /// Whether a device takes packets (RFC 2863 `ifOperStatus`) and those to its
    /// IPv6 addresses are taken as local.
    pub(super) fn is_settled(&mut self, index: u32) -> io::Result<bool> {
        let answers = self.ask(vec![get_link(index)])?;
        let Some(Some(RouteNetlinkMessage::NewLink(message))) = answers.into_iter().next() else {
            return Ok(true); // gone; the next step will say so
        };
        let is_waiting = message.attributes.iter().any(|attribute| {
            let LinkAttribute::OperState(state) = attribute else {
                return false;
            };
            // A tunnel and the loopback device do not know better.
            !matches!(state, State::Up | State::Unknown)
        });
        if is_waiting {
            return Ok(false);
        }
        let mut lookups = Vec::new();
        self.addresses(index, |address, _| {
            if address.addr().is_ipv6() {
                lookups.push(get_route(address.addr()));
            }
        })?;
        let answers = self.ask(lookups)?;
        Ok(answers.iter().all(|answer| {
            matches!(answer, Some(RouteNetlinkMessage::NewRoute(route))
                if route.header.kind == RouteType::Local)
        }))
    }

    /// Reads what a router has besides links. Where `is_ours_alone`, every address
    /// counts; otherwise those marked as the agent's.
    pub(super) fn router(&mut self, is_ours_alone: bool) -> io::Result<RouterState> {
        let mut state = RouterState::default();
        self.addresses(LOOPBACK, |address, is_marked| {
            let is_the_kernels = address.addr().is_loopback();
            if !is_the_kernels && (is_ours_alone || is_marked) {
                state.addresses.insert(address);
            }
        })?;
        for family in FAMILIES {
            self.routes(family, RouteType::Unreachable, None, |message| {
                state.unreachable.insert(destination(message));
            })?;
        }
        Ok(state)
    }

    /// All devices of ours, without what lies on them.
    pub(super) fn devices(&mut self) -> io::Result<Vec<(Device, Alias)>> {
        let mut devices = Vec::new();
        let mut question = LinkMessage::default();
        question.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        self.dump(RouteNetlinkMessage::GetLink(question), |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                let device = device(message);
                let alias = Alias::parse(&device.state.alias);
                devices.extend(alias.map(|alias| (device, alias)));
            }
        })?;
        Ok(devices)
    }

    /// The prefixes that the agent has routed out of each device.
    pub(super) fn routed(&mut self) -> io::Result<BTreeMap<u32, Vec<Prefix>>> {
        let mut routed: BTreeMap<u32, Vec<Prefix>> = BTreeMap::new();
        for family in FAMILIES {
            self.routes(family, RouteType::Unicast, None, |message| {
                if let Some(index) = oif(message) {
                    routed.entry(index).or_default().push(destination(message));
                }
            })?;
        }
        Ok(routed)
    }

    fn addresses(&mut self, index: u32, mut each: impl FnMut(IpNet, bool)) -> io::Result<()> {
        // Asked for all families at once, the kernel takes the lock of all
        // network settings; for one of them it does without.
        for family in FAMILIES {
            let mut question = AddressMessage::default();
            question.header.family = family;
            question.header.index = index;
            self.dump(RouteNetlinkMessage::GetAddress(question), |answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer
                    && message.header.family == family
                    && message.header.index == index
                    && let Some(address) = address(&message)
                {
                    each(address, is_marked(&message));
                }
            })?;
        }
        Ok(())
    }

    fn routes(
        &mut self,
        family: AddressFamily,
        kind: RouteType,
        filter: Option<RouteAttribute>,
        mut each: impl FnMut(&RouteMessage),
    ) -> io::Result<()> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        question.header.protocol = RouteProtocol::Other(PROTOCOL);
        question.header.kind = kind;
        let wanted_oif = filter.as_ref().and_then(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        question.attributes.extend(filter);
        self.dump(RouteNetlinkMessage::GetRoute(question), |answer| {
            if let RouteNetlinkMessage::NewRoute(message) = answer
                && message.header.protocol == RouteProtocol::Other(PROTOCOL)
                && message.header.kind == kind
                && (wanted_oif.is_none() || oif(&message) == wanted_oif)
            {
                each(&message);
            }
        })
    }
}
