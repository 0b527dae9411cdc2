//! Who is where in the demo.

use std::net::Ipv4Addr;

/// The network service of the demo.
pub(crate) const SERVICE: &str = "vl3";
/// The network that its endpoints share.
pub(crate) const NETWORK: &str = "172.16.0.0/16";
/// The underlay: documentation addresses (RFC 5737), inside the demo only.
pub(crate) const UNDERLAY: &str = "192.0.2.0/24";
/// The fabric's address, by which nodes reach each other.
pub(crate) const FABRIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Port of a domain's registry.
pub(crate) const REGISTRY_PORT: u16 = 5002;
/// Port of the prefix server.
pub(crate) const IPAM_PORT: u16 = 5006;
/// Port of an endpoint.
pub(crate) const NSE_PORT: u16 = 5000;
/// Port at which every pod says hello.
pub(crate) const HELLO_PORT: u16 = 5000;

/// A machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) underlay: Ipv4Addr,
    /// Its clients.
    pub(crate) pods: &'static [&'static str],
}

impl Node {
    /// Name of its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("nse-{}", self.name)
    }

    /// Socket of its endpoint for the pods of the node.
    pub(crate) fn socket(&self) -> String {
        format!("/run/carrick/{}.sock", self.endpoint())
    }

    /// The endpoint's admin socket.
    pub(crate) fn admin(&self) -> String {
        format!("/run/carrick/{}.admin", self.endpoint())
    }
}

/// The machines: two of one domain, one of another.
pub(crate) const NODES: [Node; 3] = [
    Node {
        name: "east-1",
        domain: "east",
        underlay: Ipv4Addr::new(192, 0, 2, 11),
        pods: &["ant", "bee"],
    },
    Node {
        name: "east-2",
        domain: "east",
        underlay: Ipv4Addr::new(192, 0, 2, 12),
        pods: &["cat"],
    },
    Node {
        name: "west-1",
        domain: "west",
        underlay: Ipv4Addr::new(192, 0, 2, 21),
        pods: &["dog", "eel"],
    },
];

/// The node that runs the prefix server, and the first of each domain its registry.
pub(crate) fn registry_of(domain: &str) -> Option<&'static Node> {
    NODES.iter().find(|node| node.domain == domain)
}

/// All pods with their nodes.
pub(crate) fn pods() -> impl Iterator<Item = (&'static Node, &'static str)> {
    NODES
        .iter()
        .flat_map(|node| node.pods.iter().map(move |pod| (node, *pod)))
}

/// The admin socket of a pod's client.
pub(crate) fn client_admin(pod: &str) -> String {
    format!("/run/carrick/nsc-{pod}.admin")
}
