use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0..=32u8).prop_map(|(address, length)| IpNet::new(address, length).unwrap())
}

fn prefix() -> impl Strategy<Value = Prefix> {
    net().prop_map(Prefix::new)
}

fn netns() -> impl Strategy<Value = Netns> {
    prop_oneof![
        Just(Netns::Own),
        "[a-z]{1,9}".prop_map(Netns::Named),
        vec(1..=255u8, 1..9)
            .prop_map(|path| Netns::Path(std::ffi::OsString::from_vec(path).into())),
        any::<(u64, u64)>().prop_map(|(device, inode)| Netns::Inode(device, inode)),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Endpoint)]
}

fn name() -> impl Strategy<Value = IfName> {
    "[a-z0-9]{1,15}".prop_map(|name| IfName::new(name).unwrap())
}

fn id() -> impl Strategy<Value = ConnectionId> {
    "[ -~]{1,40}".prop_map(|id| ConnectionId::new(id).unwrap())
}

fn route() -> impl Strategy<Value = LinkRoute> {
    let optional = || proptest::option::of(address());
    (prefix(), optional(), optional()).prop_map(|(prefix, next_hop, source)| LinkRoute {
        prefix,
        next_hop,
        source,
    })
}

fn end() -> impl Strategy<Value = End> {
    (netns(), name(), vec(net(), 0..3), vec(route(), 0..3)).prop_map(
        |(netns, name, addresses, routes)| End {
            netns,
            name,
            addresses,
            routes,
        },
    )
}

fn kind() -> impl Strategy<Value = LinkKind> {
    prop_oneof![
        Just(LinkKind::Given),
        end().prop_map(|far| LinkKind::Veth { far }),
        (netns(), name()).prop_map(|(netns, name)| LinkKind::VethOpen { netns, name }),
        (1..=Vni::MAX, address(), address(), any::<u16>()).prop_map(
            |(vni, local, remote, port)| LinkKind::Vxlan {
                vni: Vni::new(vni).unwrap(),
                local,
                remote,
                port,
            }
        ),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    let mtu = (1280..=65_535u32).prop_map(|mtu| Mtu::new(mtu).unwrap());
    let head = (id(), side(), "\\PC{0,9}", mtu);
    (head, end(), vec(address(), 0..3), kind()).prop_map(
        |((id, side, owner, mtu), near, neighbors, kind)| Link {
            id,
            side,
            owner,
            mtu,
            near,
            neighbors,
            kind,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (netns(), id(), side()).prop_map(|(netns, id, side)| Change::DeleteLink {
            netns,
            id,
            side
        }),
        netns().prop_map(|netns| Change::DeleteRouter { netns }),
        link().prop_map(|link| Change::PutLink(Box::new(link))),
        (netns(), vec(address(), 0..3), vec(prefix(), 0..3)).prop_map(
            |(netns, addresses, unreachable)| Change::PutRouter(Router {
                netns,
                addresses,
                unreachable
            })
        ),
    ]
}

proptest! {
    #[test]
    fn a_change_always_arrives_as_it_was_sent(change in change()) {
        let message = wire::Change::from(change.clone());
        prop_assert_eq!(Change::try_from(message).unwrap(), change);
    }
}

#[test]
fn a_refused_field_is_named_with_its_place() {
    let router = wire::Router {
        addresses: vec!["10.0.0.0".to_owned(), "10.0.0".to_owned()],
        ..Default::default()
    };
    let change = wire::Change {
        change: Some(wire::change::Change::PutRouter(router)),
    };
    let error = changes_from_wire(vec![change]).unwrap_err();
    assert_eq!(error.field, "changes[0].put_router.addresses[1].address");
}

#[test]
fn what_is_not_set_is_refused() {
    let empty = [
        wire::Change::default(),
        wire::Change {
            change: Some(wire::change::Change::PutLink(wire::Link::default())),
        },
    ];
    for change in empty {
        assert!(changes_from_wire(vec![change]).is_err());
    }
}
