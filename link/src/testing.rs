//! What the tests of this crate share.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use carrick_agent::{
    Agent, Change, End, Error, Found, Link, LinkKind, LinkRoute, Netns, Protocol, Recording,
    Router, Side, Socket,
};
use carrick_types::{ConnectionId, IfName, Mechanism, MechanismClass, MechanismType, Mtu, Prefix};
use tokio::sync::Semaphore;

use crate::Site;

pub(crate) fn id(text: &str) -> ConnectionId {
    ConnectionId::new(text).unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A node with an underlay address.
pub(crate) fn site() -> Site {
    Site {
        node: "node-a".to_owned(),
        owner: "nse-1".to_owned(),
        router: Netns::Named("router".to_owned()),
        underlay: Some(ip("192.0.2.1")),
        underlay_mtu: Mtu::ETHERNET,
        vxlan_port: 4789,
    }
}

pub(crate) fn kernel(url: &str) -> Mechanism {
    Mechanism::new(MechanismClass::Local, MechanismType::Kernel).with(Mechanism::INODE_URL, url)
}

pub(crate) fn vxlan(from: &str) -> Mechanism {
    Mechanism::new(MechanismClass::Remote, MechanismType::Vxlan).with(Mechanism::SRC_IP, from)
}

/// A tunnel with a route to its neighbour 10.0.1.0 and one behind that.
pub(crate) fn tunnel(link: &str, behind: &str) -> Link {
    let neighbor = ip("10.0.1.0");
    let route = |prefix, next_hop| LinkRoute {
        prefix,
        next_hop,
        source: None,
    };
    Link {
        id: id(link),
        side: Side::Client,
        owner: "nse-1".to_owned(),
        mtu: Mtu::ETHERNET,
        near: End {
            netns: site().router,
            name: IfName::of("c", &id(link)),
            addresses: Vec::new(),
            routes: vec![
                route(carrick_types::host(neighbor), None),
                route(prefix(behind), Some(neighbor)),
            ],
        },
        neighbors: vec![neighbor],
        kind: LinkKind::Vxlan {
            vni: carrick_types::Vni::new(7).unwrap(),
            local: ip("192.0.2.1"),
            remote: ip("192.0.2.2"),
            port: 4789,
        },
    }
}

/// An agent that makes the changes of one link only when it is let, one batch
/// at a time, and those of others at once.
pub(crate) struct Slow {
    pub(crate) agent: Recording,
    pub(crate) link: ConnectionId,
    pub(crate) lets: Semaphore,
}

impl Slow {
    /// Knows the router of [`site`].
    pub(crate) async fn new(link: &str) -> Self {
        let agent = Recording::new();
        let router = Router {
            netns: site().router,
            addresses: Vec::new(),
            unreachable: Vec::new(),
        };
        agent.apply(vec![Change::PutRouter(router)]).await.unwrap();
        Self {
            agent,
            link: id(link),
            lets: Semaphore::new(0),
        }
    }

    /// Prefixes routed out of a link that is there.
    pub(crate) fn routes(&self, link: &str) -> Vec<Prefix> {
        let link = self.agent.link(&id(link));
        let routes = link.map_or_else(Vec::new, |link| link.near.routes);
        routes.iter().map(|route| route.prefix).collect()
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl Agent for Slow {
    fn apply(&self, changes: Vec<Change>) -> Later<'_, ()> {
        Box::pin(async move {
            let is_slow = |change: &Change| match change {
                Change::DeleteLink { id, .. } => *id == self.link,
                Change::PutLink(link) => link.id == self.link,
                _ => false,
            };
            if changes.iter().any(is_slow) {
                self.lets.acquire().await.unwrap().forget();
            }
            self.agent.apply(changes).await
        })
    }

    fn list<'a>(&'a self, netns: &'a Netns, owner: &'a str) -> Later<'a, Vec<Found>> {
        self.agent.list(netns, owner)
    }

    fn ping<'a>(
        &'a self,
        _: &'a Netns,
        _: IpAddr,
        _: IpAddr,
        _: Duration,
    ) -> Later<'a, Option<Duration>> {
        unreachable!("no link is probed here")
    }

    fn bind<'a>(&'a self, _: &'a Netns, _: Protocol, _: std::net::SocketAddr) -> Later<'a, Socket> {
        unreachable!("nothing is served here")
    }
}
