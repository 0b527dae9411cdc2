use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Mtu, Prefix};

/// What a connection carries besides its link (NSM `ConnectionContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Addresses and routes.
    pub ip: IpContext,
    /// Name servers for the client.
    pub dns: Vec<DnsConfig>,
    /// Link-layer facts, where the payload is Ethernet.
    pub ethernet: Option<Ethernet>,
    /// Free-form, carried on unchanged.
    pub extra: BTreeMap<String, String>,
    /// Largest packet; `None` where nobody has said (0 on the wire).
    pub mtu: Option<Mtu>,
}

/// Addresses and routes of a connection (NSM `IPContext`). `src` is the
/// client's side, `dst` the endpoint's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpContext {
    /// Addresses of the client's interface.
    pub src_addrs: Vec<IpNet>,
    /// Addresses of the endpoint's interface.
    pub dst_addrs: Vec<IpNet>,
    /// Routes that the client installs.
    pub src_routes: Vec<Route>,
    /// Routes that the endpoint installs.
    pub dst_routes: Vec<Route>,
    /// Prefixes that the client must not be given.
    pub excluded_prefixes: Vec<Prefix>,
    /// Neighbour entries.
    pub neighbors: Vec<IpNeighbor>,
    /// Further prefixes that the client asks for.
    pub extra_prefix_request: Vec<ExtraPrefixRequest>,
    /// Further prefixes that the client was given.
    pub extra_prefixes: Vec<Prefix>,
    /// Policy routes of the client.
    pub policies: Vec<PolicyRoute>,
}

impl IpContext {
    /// Appends an address of the client unless it is there.
    pub fn add_src_addr(&mut self, address: IpNet) {
        push_new(&mut self.src_addrs, address);
    }

    /// Appends an address of the endpoint unless it is there.
    pub fn add_dst_addr(&mut self, address: IpNet) {
        push_new(&mut self.dst_addrs, address);
    }

    /// Appends a route of the client unless it is there.
    pub fn add_src_route(&mut self, route: Route) {
        push_new(&mut self.src_routes, route);
    }

    /// Appends a route of the endpoint unless it is there.
    pub fn add_dst_route(&mut self, route: Route) {
        push_new(&mut self.dst_routes, route);
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// A route (NSM `Route`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub prefix: Prefix,
    /// By whom; `None` means the other end's first address of the family.
    pub next_hop: Option<IpAddr>,
}

impl Route {
    /// A route by way of `next_hop`.
    #[must_use]
    pub fn via(prefix: Prefix, next_hop: IpAddr) -> Self {
        Self {
            prefix,
            next_hop: Some(next_hop),
        }
    }

    /// A route without a next hop of its own.
    #[must_use]
    pub fn direct(prefix: Prefix) -> Self {
        Self {
            prefix,
            next_hop: None,
        }
    }
}

/// A route that holds for some packets only (NSM `PolicyRoute`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRoute {
    /// Source prefix of the packets.
    pub from: String,
    /// Protocol of the packets.
    pub proto: String,
    /// Destination port or range.
    pub dst_port: String,
    /// Source port or range.
    pub src_port: String,
    /// The routes.
    pub routes: Vec<Route>,
}

/// A neighbour entry (NSM `IpNeighbor`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpNeighbor {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address as text.
    pub hardware_address: String,
}

/// A wish for further prefixes (NSM `ExtraPrefixRequest`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraPrefixRequest {
    /// Family of the prefixes.
    pub family: IpFamily,
    /// Their length in bits.
    pub prefix_length: u8,
    /// How many there must be.
    pub required: u32,
    /// How many are wished for.
    pub requested: u32,
}

/// Family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address, 32 or 128.
    #[must_use]
    pub fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Name servers and the domains to search (NSM `DNSConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Addresses of the servers.
    pub server_ips: Vec<IpAddr>,
    /// Domains to search.
    pub search_domains: Vec<String>,
}

/// Link-layer facts (NSM `EthernetContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ethernet {
    /// The client's hardware address as text.
    pub src_mac: String,
    /// The endpoint's hardware address as text.
    pub dst_mac: String,
    /// VLAN tag; 0 is none.
    pub vlan_tag: i32,
}
