use std::net::IpAddr;

use carrick_agent::{Agent as _, Change, End, Kernel, Link, LinkKind, Netns, Router, Side};
use carrick_types::{ConnectionId, IfName, IpNet, Mtu};

use crate::Namespace;

/// Two nodes with an underlay between them: a namespace and an agent each.
#[derive(Debug)]
pub struct Nodes {
    /// The namespaces.
    pub namespaces: [Namespace; 2],
    /// An agent in each, whose own namespace is the node's.
    pub agents: [Kernel; 2],
    /// The underlay addresses, of the family asked for.
    pub underlay: [IpAddr; 2],
}

impl Nodes {
    /// Makes two nodes whose underlay has addresses of one family and MTU 1500.
    ///
    /// # Panics
    ///
    /// The process is not root, or the kernel refuses.
    pub async fn new(v6: bool) -> Self {
        let namespaces = [Namespace::new("node-a"), Namespace::new("node-b")];
        let agents = [agent(&namespaces[0]), agent(&namespaces[1])];
        let nets = if v6 {
            ["2001:db8::1/64", "2001:db8::2/64"]
        } else {
            ["192.0.2.1/24", "192.0.2.2/24"]
        }
        .map(|net| net.parse::<IpNet>().expect("it is a network"));
        for agent in &agents {
            let router = Router {
                netns: Netns::Own,
                addresses: Vec::new(),
                unreachable: Vec::new(),
            };
            let put = agent.apply(vec![Change::PutRouter(router)]).await;
            put.expect("the node's own namespace can be a router");
        }
        let link = underlay(&namespaces[1], nets);
        let put = agents[0].apply(vec![Change::PutLink(Box::new(link))]).await;
        put.expect("the underlay can be made");
        Self {
            namespaces,
            agents,
            underlay: nets.map(|net| net.addr()),
        }
    }
}

fn agent(namespace: &Namespace) -> Kernel {
    namespace
        .within(Kernel::new)
        .expect("an agent starts in any namespace")
}

fn underlay(other: &Namespace, nets: [IpNet; 2]) -> Link {
    let name = |name| IfName::new(name).expect("it is a name");
    let [near, far] = nets;
    Link {
        id: ConnectionId::new("underlay").expect("it is an id"),
        side: Side::Endpoint,
        owner: "test".to_owned(),
        mtu: Mtu::ETHERNET,
        near: End {
            netns: Netns::Own,
            name: name("eth0"),
            addresses: vec![near],
            routes: Vec::new(),
        },
        neighbors: vec![far.addr()],
        kind: LinkKind::Veth {
            far: End {
                netns: other.foreign(),
                name: name("eth0"),
                addresses: vec![far],
                routes: Vec::new(),
            },
        },
    }
}
