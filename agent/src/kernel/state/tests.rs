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
