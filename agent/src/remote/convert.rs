//! Between the messages of `carrick.agent.v1` and this crate's objects.

use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::str::FromStr;

use carrick_proto::agent as wire;
use carrick_types::{ConnectionId, IfName, Invalid, IpNet, Mtu, Prefix, Vni};

use crate::{Change, End, Found, Link, LinkKind, LinkRoute, Netns, Protocol, Router, Side};

type Result<T> = std::result::Result<T, Invalid>;

/// Wraps the error of what lies below a field.
trait Within<T> {
    fn within(self, field: &str) -> Result<T>;
}

impl<T> Within<T> for Result<T> {
    fn within(self, field: &str) -> Result<T> {
        self.map_err(|e| e.within(field))
    }
}

fn missing(field: &str, expected: &'static str) -> Invalid {
    Invalid::new(field, "", expected)
}

fn address(field: &str, text: &str) -> Result<IpAddr> {
    let expected = "an address such as 10.0.0.1 or fd00::1";
    text.parse()
        .map_err(|_| Invalid::new(field, text, expected))
}

fn optional_address(field: &str, text: &str) -> Result<Option<IpAddr>> {
    (!text.is_empty()).then(|| address(field, text)).transpose()
}

fn all<T, U>(field: &str, items: Vec<T>, each: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    let convert = |(n, item)| each(item).within(&format!("{field}[{n}]"));
    items.into_iter().enumerate().map(convert).collect()
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn port(field: &str, number: u32) -> Result<u16> {
    let expected = "a port of at most 65535";
    u16::try_from(number).map_err(|_| Invalid::new(field, number, expected))
}

// === Netns ===

pub(super) fn netns_to_wire(netns: &Netns) -> wire::Netns {
    use wire::netns::Netns as Kind;
    let netns = match netns {
        Netns::Own => None,
        Netns::Named(name) => Some(Kind::Named(name.clone())),
        Netns::Path(path) => Some(Kind::Path(path.as_os_str().as_bytes().to_vec())),
        Netns::Inode(device, inode) => Some(Kind::Inode(wire::Inode {
            device: *device,
            inode: *inode,
        })),
    };
    wire::Netns { netns }
}

pub(super) fn netns_from_wire(netns: Option<wire::Netns>) -> Netns {
    use wire::netns::Netns as Kind;
    match netns.and_then(|netns| netns.netns) {
        None => Netns::Own,
        Some(Kind::Named(name)) => Netns::Named(name),
        Some(Kind::Path(path)) => Netns::Path(std::ffi::OsString::from_vec(path).into()),
        Some(Kind::Inode(inode)) => Netns::Inode(inode.device, inode.inode),
    }
}

// === Side, Protocol ===

fn side_to_wire(side: Side) -> i32 {
    match side {
        Side::Client => wire::Side::Client,
        Side::Endpoint => wire::Side::Endpoint,
    }
    .into()
}

fn side_from_wire(side: i32) -> Result<Side> {
    match wire::Side::try_from(side) {
        Ok(wire::Side::Client) => Ok(Side::Client),
        Ok(wire::Side::Endpoint) => Ok(Side::Endpoint),
        _ => Err(Invalid::new("side", side, "SIDE_CLIENT or SIDE_ENDPOINT")),
    }
}

pub(super) fn protocol_to_wire(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Tcp => wire::Protocol::Tcp,
        Protocol::Udp => wire::Protocol::Udp,
    }
    .into()
}

pub(super) fn protocol_from_wire(protocol: i32) -> Result<Protocol> {
    match wire::Protocol::try_from(protocol) {
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(wire::Protocol::Udp) => Ok(Protocol::Udp),
        _ => {
            let expected = "PROTOCOL_TCP or PROTOCOL_UDP";
            Err(Invalid::new("protocol", protocol, expected))
        }
    }
}

// === Change ===

impl From<Change> for wire::Change {
    fn from(change: Change) -> Self {
        use wire::change::Change as Kind;
        let change = match change {
            Change::DeleteLink { netns, id, side } => Kind::DeleteLink(wire::DeleteLink {
                netns: Some(netns_to_wire(&netns)),
                id: id.to_string(),
                side: side_to_wire(side),
            }),
            Change::DeleteRouter { netns } => Kind::DeleteRouter(wire::DeleteRouter {
                netns: Some(netns_to_wire(&netns)),
            }),
            Change::PutLink(link) => Kind::PutLink((*link).into()),
            Change::PutRouter(router) => Kind::PutRouter(router.into()),
        };
        Self {
            change: Some(change),
        }
    }
}

impl TryFrom<wire::Change> for Change {
    type Error = Invalid;

    fn try_from(change: wire::Change) -> Result<Self> {
        use wire::change::Change as Kind;
        match change.change {
            None => Err(missing("change", "a change that this agent knows")),
            Some(Kind::DeleteLink(delete)) => Ok(Self::DeleteLink {
                netns: netns_from_wire(delete.netns),
                id: ConnectionId::new(delete.id).within("delete_link")?,
                side: side_from_wire(delete.side).within("delete_link")?,
            }),
            Some(Kind::DeleteRouter(delete)) => Ok(Self::DeleteRouter {
                netns: netns_from_wire(delete.netns),
            }),
            Some(Kind::PutLink(link)) => {
                let link = Link::try_from(link).within("put_link")?;
                Ok(Self::PutLink(Box::new(link)))
            }
            Some(Kind::PutRouter(router)) => Router::try_from(router)
                .within("put_router")
                .map(Self::PutRouter),
        }
    }
}

pub(super) fn changes_from_wire(changes: Vec<wire::Change>) -> Result<Vec<Change>> {
    all("changes", changes, Change::try_from)
}

// === Router ===

impl From<Router> for wire::Router {
    fn from(router: Router) -> Self {
        Self {
            netns: Some(netns_to_wire(&router.netns)),
            addresses: texts(router.addresses),
            unreachable: texts(router.unreachable),
        }
    }
}

impl TryFrom<wire::Router> for Router {
    type Error = Invalid;

    fn try_from(router: wire::Router) -> Result<Self> {
        Ok(Self {
            netns: netns_from_wire(router.netns),
            addresses: all("addresses", router.addresses, |text| {
                address("address", &text)
            })?,
            unreachable: all("unreachable", router.unreachable, |text| {
                Prefix::from_str(&text)
            })?,
        })
    }
}

// === Link ===

impl From<Link> for wire::Link {
    fn from(link: Link) -> Self {
        Self {
            id: link.id.to_string(),
            side: side_to_wire(link.side),
            owner: link.owner,
            mtu: link.mtu.bytes(),
            near: Some(link.near.into()),
            neighbors: texts(link.neighbors),
            kind: Some(kind_to_wire(link.kind)),
        }
    }
}

impl TryFrom<wire::Link> for Link {
    type Error = Invalid;

    fn try_from(link: wire::Link) -> Result<Self> {
        let near = link.near.ok_or_else(|| missing("near", "an end"))?;
        Ok(Self {
            id: ConnectionId::new(link.id)?,
            side: side_from_wire(link.side)?,
            owner: link.owner,
            mtu: Mtu::new(link.mtu)?,
            near: End::try_from(near).within("near")?,
            neighbors: all("neighbors", link.neighbors, |text| {
                address("address", &text)
            })?,
            kind: kind_from_wire(link.kind)?,
        })
    }
}

fn kind_to_wire(kind: LinkKind) -> wire::link::Kind {
    use wire::link::Kind;
    match kind {
        LinkKind::Given => Kind::Given(wire::Given {}),
        LinkKind::Veth { far } => Kind::Veth(wire::Veth {
            far: Some(far.into()),
        }),
        LinkKind::VethOpen { netns, name } => Kind::VethOpen(wire::VethOpen {
            netns: Some(netns_to_wire(&netns)),
            name: name.to_string(),
        }),
        LinkKind::Vxlan {
            vni,
            local,
            remote,
            port,
        } => Kind::Vxlan(wire::Vxlan {
            vni: vni.value(),
            local: local.to_string(),
            remote: remote.to_string(),
            port: port.into(),
        }),
    }
}

fn kind_from_wire(kind: Option<wire::link::Kind>) -> Result<LinkKind> {
    use wire::link::Kind;
    Ok(match kind {
        None => return Err(missing("kind", "a kind of link that this agent knows")),
        Some(Kind::Given(_)) => LinkKind::Given,
        Some(Kind::Veth(veth)) => {
            let far = veth.far.ok_or_else(|| missing("veth.far", "an end"))?;
            LinkKind::Veth {
                far: End::try_from(far).within("veth.far")?,
            }
        }
        Some(Kind::VethOpen(open)) => LinkKind::VethOpen {
            netns: netns_from_wire(open.netns),
            name: IfName::new(open.name).within("veth_open")?,
        },
        Some(Kind::Vxlan(vxlan)) => LinkKind::Vxlan {
            vni: Vni::new(vxlan.vni).within("vxlan")?,
            local: address("vxlan.local", &vxlan.local)?,
            remote: address("vxlan.remote", &vxlan.remote)?,
            port: port("vxlan.port", vxlan.port)?,
        },
    })
}

// === End ===

impl From<End> for wire::End {
    fn from(end: End) -> Self {
        Self {
            netns: Some(netns_to_wire(&end.netns)),
            name: end.name.to_string(),
            addresses: texts(end.addresses),
            routes: end.routes.into_iter().map(wire::Route::from).collect(),
        }
    }
}

impl TryFrom<wire::End> for End {
    type Error = Invalid;

    fn try_from(end: wire::End) -> Result<Self> {
        let net = |text: String| {
            let expected = "an address with its prefix length such as 10.0.0.1/32";
            IpNet::from_str(&text).map_err(|_| Invalid::new("address", text, expected))
        };
        Ok(Self {
            netns: netns_from_wire(end.netns),
            name: IfName::new(end.name)?,
            addresses: all("addresses", end.addresses, net)?,
            routes: all("routes", end.routes, LinkRoute::try_from)?,
        })
    }
}

impl From<LinkRoute> for wire::Route {
    fn from(route: LinkRoute) -> Self {
        let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        Self {
            prefix: route.prefix.to_string(),
            next_hop: text(route.next_hop),
            source: text(route.source),
        }
    }
}

impl TryFrom<wire::Route> for LinkRoute {
    type Error = Invalid;

    fn try_from(route: wire::Route) -> Result<Self> {
        Ok(Self {
            prefix: Prefix::from_str(&route.prefix)?,
            next_hop: optional_address("next_hop", &route.next_hop)?,
            source: optional_address("source", &route.source)?,
        })
    }
}

// === Found ===

impl From<Found> for wire::Found {
    fn from(found: Found) -> Self {
        Self {
            id: found.id.to_string(),
            side: side_to_wire(found.side),
            owner: found.owner,
            netns: Some(netns_to_wire(&found.netns)),
            name: found.name.to_string(),
            up: found.up,
            mtu: found.mtu,
            routes: texts(found.routes),
        }
    }
}

impl TryFrom<wire::Found> for Found {
    type Error = Invalid;

    fn try_from(found: wire::Found) -> Result<Self> {
        Ok(Self {
            id: ConnectionId::new(found.id)?,
            side: side_from_wire(found.side)?,
            owner: found.owner,
            netns: netns_from_wire(found.netns),
            name: IfName::new(found.name)?,
            up: found.up,
            mtu: found.mtu,
            routes: all("routes", found.routes, |text| Prefix::from_str(&text))?,
        })
    }
}

#[cfg(test)]
mod tests;
