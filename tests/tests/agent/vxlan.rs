//! Links between two nodes.

use std::net::IpAddr;

use carrick_agent::{Agent, Change, End, Error, Link, LinkKind, Netns, Protocol, Router, Side};
use carrick_tests::{Namespace, Nodes};
use carrick_types::{IfName, Mtu, Vni};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{OWNER, PATIENCE, chain, direct, id, ip, name, prefix};

/// A router on each node: 10.0.0.0 and `fd00::`, 10.0.1.0 and `fd00:0:0:1::`.
struct Rig {
    nodes: Nodes,
    routers: [Namespace; 2],
    addresses: [[IpAddr; 2]; 2],
}

impl Rig {
    async fn new(v6_underlay: bool) -> Self {
        let rig = Self {
            nodes: Nodes::new(v6_underlay).await,
            routers: [
                Namespace::reserve("router-a"),
                Namespace::reserve("router-b"),
            ],
            addresses: [
                [ip("10.0.0.0"), ip("fd00::")],
                [ip("10.0.1.0"), ip("fd00:0:0:1::")],
            ],
        };
        for node in 0..2 {
            let router = Router {
                netns: rig.routers[node].named(),
                addresses: rig.addresses[node].to_vec(),
                unreachable: vec![prefix("10.0.0.0/16"), prefix("fd00::/48")],
            };
            rig.apply(node, vec![Change::PutRouter(router)])
                .await
                .unwrap();
        }
        rig
    }

    async fn apply(&self, node: usize, changes: Vec<Change>) -> Result<(), Error> {
        self.nodes.agents[node].apply(changes).await
    }

    async fn put(&self, node: usize, link: &Link) -> Result<(), Error> {
        self.apply(node, vec![Change::PutLink(Box::new(link.clone()))])
            .await
    }

    fn link(&self, node: usize, vni: u32, mtu: Mtu) -> Link {
        let other = 1 - node;
        let id = id(&format!("{}-{vni}", self.routers[0].name()));
        let own = self.addresses[node];
        let routes = self.addresses[other].iter().zip(own);
        Link {
            side: [Side::Client, Side::Endpoint][node],
            owner: OWNER.to_owned(),
            mtu,
            near: End {
                netns: self.routers[node].named(),
                name: IfName::of("p", &id),
                addresses: Vec::new(),
                routes: routes.map(|(&to, from)| direct(to, Some(from))).collect(),
            },
            neighbors: self.addresses[other].to_vec(),
            kind: LinkKind::Vxlan {
                vni: Vni::new(vni).unwrap(),
                local: self.nodes.underlay[node],
                remote: self.nodes.underlay[other],
                port: 4789,
            },
            id,
        }
    }

    async fn reaches(&self, family: usize) -> bool {
        let [source, target] = [self.addresses[0][family], self.addresses[1][family]];
        let netns = self.routers[0].named();
        let ping = self.nodes.agents[0].ping(&netns, source, target, PATIENCE);
        ping.await.unwrap().is_some()
    }

    async fn transfer(&self, family: usize) {
        let address = (self.addresses[1][family], 4000).into();
        let (agent, netns) = (&self.nodes.agents[1], self.routers[1].named());
        let bound = agent.bind(&netns, Protocol::Tcp, address).await.unwrap();
        let listener = tokio::net::TcpListener::from_std(bound.into()).unwrap();
        let connect = || std::net::TcpStream::connect(address);
        let stream = self.routers[0].within(connect).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut sender = tokio::net::TcpStream::from_std(stream).unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let sent = vec![7; 64 << 10];
        let sending = sent.clone();
        tokio::spawn(async move { sender.write_all(&sending).await });
        let mut arrived = vec![0; sent.len()];
        receiver.read_exact(&mut arrived).await.unwrap();
        assert!(arrived == sent, "what arrives is not what was sent");
    }
}

async fn carries_traffic(v6_underlay: bool, mtu: u32) {
    let rig = Rig::new(v6_underlay).await;
    for node in 0..2 {
        let link = rig.link(node, 100, Mtu::new(mtu).unwrap());
        rig.put(node, &link).await.unwrap();
    }
    for family in 0..2 {
        assert!(rig.reaches(family).await);
        rig.transfer(family).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_traffic_over_ipv4() {
    carries_traffic(false, 1450).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_traffic_over_ipv6() {
    carries_traffic(true, 1430).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn putting_a_tunnel_again_loses_no_packet() {
    let rig = Rig::new(false).await;
    let links = [0, 1].map(|node| rig.link(node, 100, Mtu::new(1450).unwrap()));
    for (node, link) in links.iter().enumerate() {
        rig.put(node, link).await.unwrap();
    }
    for _ in 0..50 {
        rig.put(0, &links[0]).await.unwrap();
        assert!(rig.reaches(0).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_in_use_is_told_apart() {
    let rig = Rig::new(false).await;
    let link = rig.link(0, 100, Mtu::new(1450).unwrap());
    rig.put(0, &link).await.unwrap();
    let mut other = link.clone();
    other.id = id("another");
    other.near.name = name("another");
    let error = rig.put(0, &other).await.unwrap_err();
    assert!(
        matches!(error, Error::VniInUse { port: 4789, .. }),
        "{}",
        chain(&error)
    );
    let netns = rig.routers[0].named();
    let found = rig.nodes.agents[0].list(&netns, OWNER).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_puts_a_replaced_tunnel_back() {
    let rig = Rig::new(false).await;
    let links = [0, 1].map(|node| rig.link(node, 100, Mtu::new(1450).unwrap()));
    for (node, link) in links.iter().enumerate() {
        rig.put(node, link).await.unwrap();
    }
    let mut replaced = links[0].clone();
    let LinkKind::Vxlan { vni, .. } = &mut replaced.kind else {
        unreachable!("it is a tunnel")
    };
    *vni = Vni::new(101).unwrap();
    let mut bad = rig.link(0, 102, Mtu::new(1450).unwrap());
    bad.near.netns = Netns::Named("carrick-test-nowhere".to_owned());
    let batch = [replaced, bad].map(|link| Change::PutLink(Box::new(link)));
    rig.apply(0, batch.to_vec()).await.unwrap_err();
    assert!(rig.reaches(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_becomes_a_veth_when_its_peer_comes_to_the_node() {
    let rig = Rig::new(false).await;
    let link = rig.link(0, 100, Mtu::new(1450).unwrap());
    rig.put(0, &link).await.unwrap();
    let here = Namespace::reserve("router-c");
    let router = Router {
        netns: here.named(),
        addresses: rig.addresses[1].to_vec(),
        unreachable: Vec::new(),
    };
    let mut veth = link.clone();
    veth.kind = LinkKind::Veth {
        far: End {
            netns: here.named(),
            name: name("peer"),
            addresses: Vec::new(),
            routes: rig.link(1, 100, Mtu::ETHERNET).near.routes,
        },
    };
    veth.neighbors = rig.addresses[1].to_vec();
    veth.near.addresses = Vec::new();
    let batch = vec![Change::PutRouter(router), Change::PutLink(Box::new(veth))];
    rig.apply(0, batch).await.unwrap();
    assert!(rig.reaches(0).await);
}
