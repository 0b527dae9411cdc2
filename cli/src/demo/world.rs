//! The machines of the demo: a namespace for each node and pod, and a fabric
//! that routes between the nodes. Made with the vswitch agent itself.

use std::net::IpAddr;

use anyhow::{Context, Result};
use carrick_agent::{Agent, Change, End, Link, LinkKind, LinkRoute, Netns, Router, Side};
use carrick_types::{ConnectionId, IfName, IpNet, Mtu, Prefix};

use super::plan::{FABRIC, NODES, Node, UNDERLAY, pods};

/// Name of the fabric's namespace.
const FABRIC_NETNS: &str = "fabric";

/// Makes fabric, nodes and pods.
pub(crate) async fn make(agent: &dyn Agent) -> Result<()> {
    let mut changes = vec![put_router(FABRIC_NETNS, vec![FABRIC.into()])];
    for node in &NODES {
        changes.push(put_router(node.name, Vec::new()));
        changes.push(Change::PutLink(Box::new(cable(node)?)));
    }
    changes.extend(pods().map(|(_, pod)| put_router(pod, Vec::new())));
    agent
        .apply(changes)
        .await
        .context("cannot make the demo's machines")
}

/// Removes them again.
pub(crate) async fn remove(agent: &dyn Agent) -> Result<()> {
    let named = pods().map(|(_, pod)| pod);
    let named = named
        .chain(NODES.iter().map(|node| node.name))
        .chain([FABRIC_NETNS]);
    let changes = named.map(|name| Change::DeleteRouter {
        netns: Netns::Named(name.into()),
    });
    agent
        .apply(changes.collect())
        .await
        .context("cannot remove the demo's machines")
}

fn put_router(name: &str, addresses: Vec<IpAddr>) -> Change {
    Change::PutRouter(Router {
        netns: Netns::Named(name.into()),
        addresses,
        unreachable: Vec::new(),
    })
}

/// The link between a node and the fabric.
fn cable(node: &Node) -> Result<Link> {
    let id = ConnectionId::new(format!("cable-{}", node.name))?;
    let address = IpAddr::V4(node.underlay);
    let underlay: Prefix = UNDERLAY.parse()?;
    let route = |prefix, next_hop, source| LinkRoute {
        prefix,
        next_hop,
        source,
    };
    Ok(Link {
        side: Side::Endpoint,
        owner: "demo".into(),
        mtu: Mtu::ETHERNET,
        near: End {
            netns: Netns::Named(FABRIC_NETNS.into()),
            name: IfName::new(node.name)?,
            addresses: Vec::new(),
            routes: vec![route(address.into(), None, Some(FABRIC.into()))],
        },
        neighbors: vec![address],
        kind: LinkKind::Veth {
            far: End {
                netns: Netns::Named(node.name.into()),
                name: IfName::new("eth0")?,
                addresses: vec![IpNet::from(address)],
                routes: vec![
                    route(IpAddr::from(FABRIC).into(), None, Some(address)),
                    route(underlay, Some(FABRIC.into()), Some(address)),
                ],
            },
        },
        id,
    })
}
