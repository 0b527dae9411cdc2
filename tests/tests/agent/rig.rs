//! A router with clients on one node.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carrick_agent::{Agent, Change, End, Error, Link, LinkKind, LinkRoute, Netns, Router, Side};
use carrick_tests::Namespace;
use carrick_types::{ConnectionId, IfName, IpNet, Mtu, Prefix, host};

pub(crate) const OWNER: &str = "nse-1";
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn id(text: &str) -> ConnectionId {
    ConnectionId::new(text).unwrap()
}

pub(crate) fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub(crate) fn via(prefix: &str, next_hop: &str, source: Option<&str>) -> LinkRoute {
    LinkRoute {
        prefix: self::prefix(prefix),
        next_hop: Some(ip(next_hop)),
        source: source.map(ip),
    }
}

pub(crate) fn direct(address: IpAddr, source: Option<IpAddr>) -> LinkRoute {
    LinkRoute {
        prefix: host(address),
        next_hop: None,
        source,
    }
}

/// The router at 10.0.0.0 and `fd00::`, whose network is 10.0.0.0/16 and `fd00::/64`.
pub(crate) struct Rig {
    pub(crate) agent: Arc<dyn Agent>,
    pub(crate) router: Namespace,
}

impl Rig {
    pub(crate) async fn new(agent: Arc<dyn Agent>) -> Self {
        let rig = Self {
            agent,
            router: Namespace::reserve("router"),
        };
        rig.apply(vec![rig.put_router()]).await.unwrap();
        rig
    }

    pub(crate) fn put_router(&self) -> Change {
        Change::PutRouter(Router {
            netns: self.router.named(),
            addresses: vec![ip("10.0.0.0"), ip("fd00::")],
            unreachable: vec![prefix("10.0.0.0/16"), prefix("fd00::/64")],
        })
    }

    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.agent.apply(changes).await
    }

    pub(crate) async fn put(&self, link: &Link) -> Result<(), Error> {
        self.apply(vec![Change::PutLink(Box::new(link.clone()))])
            .await
    }

    pub(crate) async fn delete(&self, id: &ConnectionId) -> Result<(), Error> {
        let delete = Change::DeleteLink {
            netns: self.router.named(),
            id: id.clone(),
            side: Side::Endpoint,
        };
        self.apply(vec![delete]).await
    }

    /// The link of client number `n`, 10.0.0.n and `fd00::n`, in a namespace.
    pub(crate) fn link(&self, n: u8, client: Netns) -> Link {
        let id = id(&format!("{}-client-{n}", self.router.name()));
        let v4 = ip(&format!("10.0.0.{n}"));
        let v6 = ip(&format!("fd00::{n:x}"));
        let far = End {
            netns: client,
            name: name("nsm-1"),
            addresses: vec![IpNet::from(v4), IpNet::from(v6)],
            routes: vec![
                direct(ip("10.0.0.0"), Some(v4)),
                direct(ip("fd00::"), Some(v6)),
                via("10.0.0.0/16", "10.0.0.0", None),
                via("fd00::/64", "fd00::", None),
            ],
        };
        Link {
            side: Side::Endpoint,
            owner: OWNER.to_owned(),
            mtu: Mtu::ETHERNET,
            near: End {
                netns: self.router.named(),
                name: IfName::of("c", &id),
                addresses: Vec::new(),
                routes: vec![
                    direct(v4, Some(ip("10.0.0.0"))),
                    direct(v6, Some(ip("fd00::"))),
                ],
            },
            neighbors: vec![v4, v6],
            kind: LinkKind::Veth { far },
            id,
        }
    }

    /// Whether an echo comes back.
    pub(crate) async fn pings(&self, netns: &Netns, source: &str, target: &str) -> bool {
        let ping = self.agent.ping(netns, ip(source), ip(target), PATIENCE);
        ping.await.unwrap().is_some()
    }

    /// The same where none shall come: does not wait as long.
    pub(crate) async fn is_cut_off(&self, netns: &Netns, source: &str, target: &str) -> bool {
        let patience = Duration::from_millis(50);
        let ping = self.agent.ping(netns, ip(source), ip(target), patience);
        !matches!(ping.await, Ok(Some(_)))
    }

    pub(crate) async fn list(&self, owner: &str) -> Vec<carrick_agent::Found> {
        self.agent.list(&self.router.named(), owner).await.unwrap()
    }

    /// Pings from client `n` all the time until told to stop.
    pub(crate) fn flood(&self, client: &Namespace, n: u8) -> Flood {
        let agent = Arc::clone(&self.agent);
        let netns = client.foreign();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let source = ip(&format!("10.0.0.{n}"));
        let task = tokio::spawn(async move {
            let (mut sent, mut lost) = (0, 0);
            while !told.load(Ordering::Relaxed) {
                let ping = agent.ping(&netns, source, ip("10.0.0.0"), PATIENCE);
                lost += u32::from(ping.await.unwrap().is_none());
                sent += 1;
            }
            (sent, lost)
        });
        Flood { stop, task }
    }
}

pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(u32, u32)>,
}

impl Flood {
    /// How many were sent, and how many of them were lost.
    pub(crate) async fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// The text of an error with all its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Looks again and again until something of the kernel's own pace has happened.
pub(crate) async fn in_time(has_happened: impl AsyncFn() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let looking = async {
        while !has_happened().await {
            tick.tick().await;
        }
    };
    let limit = Duration::from_secs(60);
    assert!(
        tokio::time::timeout(limit, looking).await.is_ok(),
        "it has not happened within {limit:?}"
    );
}
