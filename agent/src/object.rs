use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use carrick_types::{ConnectionId, IfName, IpNet, Mtu, Prefix, Vni};
use serde::{Deserialize, Serialize};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Netns {
    /// The agent's own.
    Own,
    /// One that the agent makes, pins under this name and removes.
    Named(String),
    /// Somebody else's, by a path such as `/proc/<pid>/ns/net`.
    Path(PathBuf),
    /// Somebody else's, by device and inode of its nsfs file (NSM `inode://`).
    Inode(u64, u64),
}

/// The namespace in which the links of one network service meet: packets are
/// forwarded between them, and the endpoint's own addresses live on its
/// loopback device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Where it is. [`Netns::Named`] is made if absent.
    pub netns: Netns,
    /// The endpoint's own addresses, each with full length.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that must not loop: what no link claims is refused
    /// (`unreachable`), not sent to a default route.
    pub unreachable: Vec<Prefix>,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The namespace it is in.
    pub netns: Netns,
    /// Its name there.
    pub name: IfName,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// What is reached through it.
    pub routes: Vec<LinkRoute>,
}

/// A route out of one end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkRoute {
    /// Where it leads.
    pub prefix: Prefix,
    /// The neighbour that takes the packets; on the link even if no address
    /// prefix says so (`onlink`). `None` for the neighbour itself.
    pub next_hop: Option<IpAddr>,
    /// Source address that locally made packets get.
    pub source: Option<IpAddr>,
}

/// How the two ends are joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// The device at the near end is there already, made by the agent of the
    /// other end as [`LinkKind::VethOpen`]; only what lies on it (addresses,
    /// routes, neighbours, MTU) is put, and deleting it deletes both ends.
    /// Not there (yet) is an error that may be tried again.
    Given,
    /// Both ends are on this node; the agent makes both and all that lies on them.
    Veth {
        /// The other end.
        far: End,
    },
    /// Both ends are on this node and the agent makes both devices, up, with
    /// hardware addresses and MTU; what lies on the far one is for its owner to
    /// put ([`LinkKind::Given`]) and is left alone here.
    VethOpen {
        /// The namespace of the other end.
        netns: Netns,
        /// Its name there.
        name: IfName,
    },
    /// The other end is on another node, whose agent makes it (RFC 7348).
    Vxlan {
        /// Network identifier, unique to this link on both nodes.
        vni: Vni,
        /// Underlay address of this node.
        local: IpAddr,
        /// Underlay address of the other node.
        remote: IpAddr,
        /// UDP port of both.
        port: u16,
    },
}

/// The link of one connection, whole: devices, addresses, routes, neighbours.
///
/// The agent gives both ends hardware addresses computed from `id`
/// and `side` and enters them as permanent neighbours, so a link is usable when
/// `apply` returns and no packet waits for address resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Whose it is: the connection id that both ends of the connection know,
    /// which is the endpoint's. Names of devices and hardware addresses follow from it.
    pub id: ConnectionId,
    /// Which end of the connection `near` is.
    pub side: Side,
    /// Who asked for it, e.g. the endpoint's name: [`Agent::list`](crate::Agent::list) can be
    /// asked for one owner's links only.
    pub owner: String,
    /// Largest packet.
    pub mtu: Mtu,
    /// The end in the router.
    pub near: End,
    /// Addresses of the other end: neighbours of `near`.
    pub neighbors: Vec<IpAddr>,
    /// How it is joined to the other end.
    pub kind: LinkKind,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// The client's (`src`).
    Client,
    /// The endpoint's (`dst`).
    Endpoint,
}

/// A change that is wanted. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The link shall not be there. Absent already is no error.
    DeleteLink {
        /// The namespace of its near end.
        netns: Netns,
        /// Whose it is.
        id: ConnectionId,
        /// Which end of the connection the near end is.
        side: Side,
    },
    /// The router, and a namespace made for it, shall not be there.
    DeleteRouter {
        /// Where it is.
        netns: Netns,
    },
    /// The link shall be exactly so; what it has beyond that goes.
    PutLink(Box<Link>),
    /// The router shall be exactly so.
    PutRouter(Router),
}

impl Change {
    /// The namespace of a put link's other end, if that is on this node.
    pub(crate) fn far_netns(&self) -> Option<&Netns> {
        match self {
            Self::PutLink(link) => link.far_netns(),
            _ => None,
        }
    }
}

/// A link as it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whose it is.
    pub id: ConnectionId,
    /// Which end of the connection.
    pub side: Side,
    /// Who asked for it.
    pub owner: String,
    /// The namespace it was found in.
    pub netns: Netns,
    /// Its device there.
    pub name: IfName,
    /// Whether both ends are up.
    pub up: bool,
    /// Largest packet.
    pub mtu: u32,
    /// Prefixes routed out of it.
    pub routes: Vec<Prefix>,
}

// === impl Netns ===

impl Link {
    /// The field that names a veth's far device, as errors call it.
    pub const FAR_NAME: &str = "kind.veth.far.name";

    /// The namespace of the other end, if that is on this node.
    pub(crate) fn far_netns(&self) -> Option<&Netns> {
        match &self.kind {
            LinkKind::Veth { far } => Some(&far.netns),
            LinkKind::VethOpen { netns, .. } => Some(netns),
            LinkKind::Given | LinkKind::Vxlan { .. } => None,
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(device, inode) => write!(f, "network namespace inode://{device}/{inode}"),
            Self::Named(name) => write!(f, "network namespace {name}"),
            Self::Own => write!(f, "the agent's network namespace"),
            Self::Path(path) => write!(f, "network namespace {}", path.display()),
        }
    }
}

// === impl Side ===

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Endpoint,
            Self::Endpoint => Self::Client,
        }
    }
}
