//! What lies on a device, as wanted and as found, and the steps from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use carrick_types::{IpFamily, IpNet, Prefix};

use super::step::{Step, Toggle};
use crate::identity::{Alias, Mac};
use crate::{End, Link, LinkKind, LinkRoute, hardware_address};

/// One end of a link, without what never changes while its device lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndState {
    pub(super) name: String,
    pub(super) alias: String,
    pub(super) mtu: u32,
    pub(super) mac: Mac,
    pub(super) up: bool,
    pub(super) dressing: Option<Dressing>,
}

/// What lies on a device; of routes and neighbours only those of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dressing {
    pub(super) addresses: BTreeSet<IpNet>,
    pub(super) neighbors: BTreeMap<IpAddr, Mac>,
    pub(super) routes: BTreeSet<LinkRoute>,
}

impl EndState {
    /// The near end of `link` as it shall be.
    pub(super) fn near(link: &Link) -> Self {
        let far = hardware_address(&link.id, link.side.other());
        Self {
            name: link.near.name.to_string(),
            alias: Alias::new(link.side, &link.owner, &link.id).to_string(),
            mtu: link.mtu.bytes(),
            mac: hardware_address(&link.id, link.side),
            up: true,
            dressing: Some(Dressing::new(&link.near, &link.neighbors, far)),
        }
    }

    /// The far end of `link` as it shall be, if the agent makes it.
    pub(super) fn far(link: &Link) -> Option<Self> {
        let near = hardware_address(&link.id, link.side);
        let side = link.side.other();
        let (name, owner, dressing) = match &link.kind {
            LinkKind::Veth { far } => {
                let neighbors: Vec<_> = link.near.addresses.iter().map(IpNet::addr).collect();
                let dressing = Dressing::new(far, &neighbors, near);
                (&far.name, link.owner.as_str(), Some(dressing))
            }
            LinkKind::VethOpen { name, .. } => (name, "", None),
            LinkKind::Given | LinkKind::Vxlan { .. } => return None,
        };
        Some(Self {
            name: name.to_string(),
            alias: Alias::new(side, owner, &link.id).to_string(),
            mtu: link.mtu.bytes(),
            mac: hardware_address(&link.id, side),
            up: true,
            dressing,
        })
    }

    /// Whether it has IPv6 addresses.
    pub(super) fn has_v6(&self) -> bool {
        let addresses = self.dressing.iter().flat_map(|on| &on.addresses);
        addresses.into_iter().any(|net| net.addr().is_ipv6())
    }

    /// The device as it is right after it was made.
    pub(super) fn fresh(&self) -> Self {
        Self {
            name: self.name.clone(),
            alias: String::new(),
            mtu: self.mtu,
            mac: self.mac,
            up: false,
            dressing: self.dressing.as_ref().map(|_| Dressing::default()),
        }
    }

    /// The steps that turn the device `index` from `self` into `wanted`; none
    /// if it is so already.
    pub(super) fn steps(&self, wanted: &Self, index: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.name != wanted.name {
            steps.push(Step::Name {
                index,
                name: wanted.name.clone(),
            });
        }
        let is_open = wanted.dressing.is_none();
        let has_owner = !self.alias.is_empty();
        if self.alias != wanted.alias && !(is_open && has_owner) {
            steps.push(Step::Claim {
                index,
                alias: wanted.alias.clone(),
            });
        }
        if self.mac != wanted.mac {
            steps.push(Step::Mac {
                index,
                mac: wanted.mac,
            });
        }
        if self.mtu != wanted.mtu {
            steps.push(Step::Mtu {
                index,
                mtu: wanted.mtu,
            });
        }
        if self.up != wanted.up {
            steps.push(Step::Up {
                index,
                up: wanted.up,
            });
        }
        if let (Some(dressing), Some(wanted)) = (&self.dressing, &wanted.dressing) {
            dressing.steps(wanted, index, &mut steps);
        }
        steps
    }
}

impl Dressing {
    /// Neighbours are those named, the next hops, and single addresses routed
    /// without one.
    fn new(end: &End, neighbors: &[IpAddr], mac: Mac) -> Self {
        let own: BTreeSet<IpAddr> = end.addresses.iter().map(IpNet::addr).collect();
        let next_hops = end.routes.iter().filter_map(|route| {
            let is_host = route.prefix.length() == route.prefix.width();
            route.next_hop.or(is_host.then(|| route.prefix.network()))
        });
        Self {
            addresses: end.addresses.iter().copied().collect(),
            neighbors: neighbors
                .iter()
                .copied()
                .chain(next_hops)
                .filter(|address| !own.contains(address))
                .map(|address| (address, mac))
                .collect(),
            routes: end.routes.iter().cloned().collect(),
        }
    }

    /// Addresses first, since routes take their source from them; neighbours
    /// before routes, so that the first packet has its hardware address.
    fn steps(&self, wanted: &Self, index: u32, steps: &mut Vec<Step>) {
        let address = |toggle, address: &IpNet| Step::Address {
            toggle,
            index,
            address: *address,
        };
        let route = |toggle, route: &LinkRoute| Step::Route {
            toggle,
            index,
            route: route.clone(),
        };
        let added = wanted.addresses.difference(&self.addresses);
        steps.extend(added.map(|net| address(Toggle::Add, net)));
        let removed = self.addresses.difference(&wanted.addresses);
        steps.extend(removed.map(|net| address(Toggle::Remove, net)));
        self.neighbor_steps(wanted, index, steps);
        let (before, after): (Vec<_>, Vec<_>) = self
            .routes
            .difference(&wanted.routes)
            .partition(|old| wanted.routes.iter().any(|new| clash(old, new)));
        steps.extend(before.into_iter().map(|old| route(Toggle::Remove, old)));
        // IPv6 takes a next hop only where its own route leads out of the same device.
        let (direct, via): (Vec<_>, Vec<_>) = wanted
            .routes
            .difference(&self.routes)
            .partition(|new| new.next_hop.is_none());
        let added = direct.into_iter().chain(via);
        steps.extend(added.map(|new| route(Toggle::Add, new)));
        steps.extend(after.into_iter().map(|old| route(Toggle::Remove, old)));
    }

    fn neighbor_steps(&self, wanted: &Self, index: u32, steps: &mut Vec<Step>) {
        let changed = wanted
            .neighbors
            .iter()
            .filter(|&(address, mac)| self.neighbors.get(address) != Some(mac));
        steps.extend(changed.map(|(&address, &mac)| Step::Neighbor {
            toggle: Toggle::Add,
            index,
            address,
            mac,
        }));
        let removed = self
            .neighbors
            .iter()
            .filter(|(address, _)| !wanted.neighbors.contains_key(address));
        steps.extend(removed.map(|(&address, &mac)| Step::Neighbor {
            toggle: Toggle::Remove,
            index,
            address,
            mac,
        }));
    }
}

/// IPv6 tells routes apart by prefix and next hop alone: one with another source
/// can be added only when the former is gone.
fn clash(old: &LinkRoute, new: &LinkRoute) -> bool {
    old.prefix.family() == IpFamily::V6 && (old.prefix, old.next_hop) == (new.prefix, new.next_hop)
}

/// What a router has besides links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RouterState {
    /// Addresses on its loopback device.
    pub(super) addresses: BTreeSet<IpNet>,
    pub(super) unreachable: BTreeSet<Prefix>,
}

impl RouterState {
    /// The router as it shall be.
    pub(super) fn new(router: &crate::Router) -> Self {
        Self {
            addresses: router.addresses.iter().copied().map(IpNet::from).collect(),
            unreachable: router.unreachable.iter().copied().collect(),
        }
    }

    /// The steps that turn `self` into `wanted`.
    pub(super) fn steps(&self, wanted: &Self) -> Vec<Step> {
        let address = |toggle, address: &IpNet| Step::Address {
            toggle,
            index: LOOPBACK,
            address: *address,
        };
        let unreachable = |toggle, prefix: &Prefix| Step::Unreachable {
            toggle,
            prefix: *prefix,
        };
        let mut steps = Vec::new();
        let added = wanted.addresses.difference(&self.addresses);
        steps.extend(added.map(|net| address(Toggle::Add, net)));
        let added = wanted.unreachable.difference(&self.unreachable);
        steps.extend(added.map(|prefix| unreachable(Toggle::Add, prefix)));
        let removed = self.unreachable.difference(&wanted.unreachable);
        steps.extend(removed.map(|prefix| unreachable(Toggle::Remove, prefix)));
        let removed = self.addresses.difference(&wanted.addresses);
        steps.extend(removed.map(|net| address(Toggle::Remove, net)));
        steps
    }
}

/// Index of the loopback device: the first of every namespace (`LOOPBACK_IFINDEX`).
pub(super) const LOOPBACK: u32 = 1;

#[cfg(test)]
mod tests;
