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
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    fn state() -> EndState {
        EndState {
            name: "c1".to_owned(),
            alias: "carrick:e:nse:x".to_owned(),
            mtu: 1500,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            dressing: Some(Dressing::default()),
        }
    }

    fn dressed(dressing: Dressing) -> EndState {
        EndState {
            dressing: Some(dressing),
            ..state()
        }
    }

    fn route(prefix: &str, next_hop: Option<&str>, source: Option<&str>) -> LinkRoute {
        let address = |text: &str| text.parse().unwrap();
        LinkRoute {
            prefix: prefix.parse().unwrap(),
            next_hop: next_hop.map(address),
            source: source.map(address),
        }
    }

    fn with_routes(routes: &[LinkRoute]) -> EndState {
        dressed(Dressing {
            routes: routes.iter().cloned().collect(),
            ..Dressing::default()
        })
    }

    #[test]
    fn what_is_as_it_shall_be_needs_no_step() {
        assert_eq!(state().steps(&state(), 7), []);
    }

    #[test]
    fn each_difference_is_one_step() {
        let wanted = EndState {
            mtu: 1400,
            up: false,
            ..state()
        };
        let steps = state().steps(&wanted, 7);
        let up = Step::Up {
            index: 7,
            up: false,
        };
        assert_eq!(
            steps,
            [
                Step::Mtu {
                    index: 7,
                    mtu: 1400
                },
                up
            ]
        );
    }

    #[test]
    fn an_end_left_to_its_owner_keeps_owner_and_dressing() {
        let wanted = EndState {
            alias: "carrick:e::x".to_owned(),
            dressing: None,
            ..state()
        };
        let now = with_routes(&[route("10.0.0.1/32", None, None)]);
        assert_eq!(now.steps(&wanted, 7), []);
        let nobodys = EndState {
            alias: String::new(),
            ..now
        };
        assert_eq!(nobodys.steps(&wanted, 7).len(), 1);
    }

    #[test]
    fn a_route_to_the_next_hop_is_added_before_routes_by_way_of_it() {
        let wanted = with_routes(&[
            route("fd00::/64", Some("fd00::"), None),
            route("fd00::/128", None, None),
        ]);
        let steps = state().steps(&wanted, 7);
        let Step::Route { route, .. } = &steps[0] else {
            panic!("{steps:?}")
        };
        assert_eq!(route.next_hop, None);
    }

    #[test]
    fn an_ipv4_route_changes_without_a_gap_and_an_ipv6_route_in_turn() {
        for (prefix, [one, two], first) in [
            ("10.0.0.0/16", ["10.0.0.1", "10.0.0.2"], Toggle::Add),
            ("fd00::/64", ["fd00::1", "fd00::2"], Toggle::Remove),
        ] {
            let now = with_routes(&[route(prefix, None, Some(one))]);
            let wanted = with_routes(&[route(prefix, None, Some(two))]);
            let steps = now.steps(&wanted, 7);
            assert_eq!(steps.len(), 2);
            assert!(
                matches!(steps[0], Step::Route { toggle, .. } if toggle == first),
                "{steps:?}"
            );
        }
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (1..=4u8).prop_map(|n| IpAddr::from([10, 0, 0, n])),
            (1..=4u16).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
        ]
    }

    fn dressing() -> impl Strategy<Value = Dressing> {
        let net = address().prop_map(IpNet::from);
        let route = address().prop_map(|to| LinkRoute {
            prefix: carrick_types::host(to),
            next_hop: None,
            source: None,
        });
        (
            btree_set(net, 0..4),
            btree_map(address(), Just([2; 6]), 0..4),
            btree_set(route, 0..4),
        )
            .prop_map(|(addresses, neighbors, routes)| Dressing {
                addresses,
                neighbors,
                routes,
            })
    }

    /// What the kernel would make of the steps.
    fn made(mut on: Dressing, steps: &[Step]) -> Dressing {
        for step in steps {
            match step.clone() {
                Step::Address {
                    toggle: Toggle::Add,
                    address,
                    ..
                } => assert!(on.addresses.insert(address), "{step}"),
                Step::Address { address, .. } => assert!(on.addresses.remove(&address), "{step}"),
                Step::Neighbor {
                    toggle: Toggle::Add,
                    address,
                    mac,
                    ..
                } => assert_ne!(on.neighbors.insert(address, mac), Some(mac), "{step}"),
                Step::Neighbor { address, .. } => {
                    assert!(on.neighbors.remove(&address).is_some(), "{step}");
                }
                Step::Route {
                    toggle: Toggle::Add,
                    route,
                    ..
                } => assert!(on.routes.insert(route), "{step}"),
                Step::Route { route, .. } => assert!(on.routes.remove(&route), "{step}"),
                _ => panic!("{step} is not about what lies on a device"),
            }
        }
        on
    }

    proptest! {
        #[test]
        fn the_steps_always_lead_from_one_to_the_other(from in dressing(), to in dressing()) {
            let steps = dressed(from.clone()).steps(&dressed(to.clone()), 7);
            prop_assert_eq!(made(from, &steps), to);
        }
    }
}
