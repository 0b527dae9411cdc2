//! The chain towards a peer: fail at every element, and nothing is left at
//! either end.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use carrick_agent::{Agent, Change, End, Link, LinkKind, Netns, Router, Side};
use carrick_chain::testing::Fault;
use carrick_chain::{
    Chain, Client, ClientConnection, ClientOptions, ConnectionEvent, Error, EventKind, Events,
    Kind, Operation, Remote, Selector,
};
use carrick_types::{
    Connection, ConnectionId, IfName, Mechanism, MechanismType, Mtu, PathSegment, Route,
    ServiceName,
};
use futures::future::{BoxFuture, pending};
use futures::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use super::world::{Look, Neighbor, World};
use crate::peering::chain_to;

const GRACE: Duration = Duration::from_secs(30);

/// The peer `nse-2` with 10.0.1.0/24, as far as it is seen from here.
#[derive(Clone)]
struct Peer {
    /// Where the peer's own end of a veth is made.
    agent: Arc<carrick_agent::Recording>,
    kind: MechanismType,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    open: BTreeSet<String>,
    /// What it does instead of answering.
    fault: Option<RemoteFault>,
    /// Prefixes that it announces besides its own.
    announced: Vec<Route>,
    numbers: u32,
}

#[derive(Clone, Copy, Debug)]
enum RemoteFault {
    /// Serves it, and the answer is lost.
    AnswerLost,
    Hangs,
    Refuses,
    /// Answers with nothing but addresses of ours.
    TakesOurs,
}

impl Peer {
    fn new(world: &World, kind: MechanismType) -> Self {
        Self {
            agent: world.agent.clone(),
            kind,
            script: Arc::default(),
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn netns() -> Netns {
        Netns::Named("carrick-2".to_owned())
    }

    fn answer(&self, mut connection: Connection) -> Connection {
        let mut script = self.script();
        if connection.path.segments.len() < 2 {
            script.numbers += 1;
            connection.path.segments.push(PathSegment {
                name: "nse-2".to_owned(),
                id: format!("peer-{}", script.numbers),
                expires: Some(SystemTime::now() + Duration::from_secs(600)),
                ..PathSegment::default()
            });
        }
        script.open.insert(connection.path.segments[1].id.clone());
        let offers = std::mem::take(&mut connection.preferences);
        let offer = offers.into_iter().find(|offer| offer.kind == self.kind);
        let offer = offer.expect("it is offered");
        connection.mechanism = Some(match self.kind {
            MechanismType::Vxlan => offer.with(Mechanism::DST_IP, "192.0.2.2"),
            _ => offer,
        });
        let ours = matches!(script.fault, Some(RemoteFault::TakesOurs));
        let address = [10, 0, u8::from(!ours), 0].into();
        let ip = &mut connection.context.ip;
        ip.dst_addrs.clear();
        ip.src_routes.clear();
        ip.add_dst_addr(carrick_types::IpNet::from(std::net::IpAddr::V4(address)));
        let own = if ours { "10.0.0.0/24" } else { "10.0.1.0/24" };
        for prefix in [carrick_types::host(address.into()), own.parse().unwrap()] {
            ip.add_src_route(Route::via(prefix, address.into()));
        }
        for route in &script.announced {
            ip.add_src_route(route.clone());
        }
        connection
    }

    /// Makes both devices of a veth, as the peer does before it answers.
    async fn make(&self, answer: &Connection) {
        if self.kind != MechanismType::Kernel {
            return;
        }
        let id = ConnectionId::new(&answer.path.segments[1].id).unwrap();
        let router = Router {
            netns: Self::netns(),
            addresses: Vec::new(),
            unreachable: Vec::new(),
        };
        let link = Link {
            side: Side::Endpoint,
            owner: "nse-2".to_owned(),
            mtu: Mtu::ETHERNET,
            near: End {
                netns: Self::netns(),
                name: IfName::of("c", &id),
                addresses: Vec::new(),
                routes: Vec::new(),
            },
            neighbors: Vec::new(),
            kind: LinkKind::VethOpen {
                netns: Netns::Named("carrick-service".to_owned()),
                name: IfName::of("p", &id),
            },
            id,
        };
        let changes = vec![Change::PutRouter(router), Change::PutLink(Box::new(link))];
        self.agent.apply(changes).await.unwrap();
    }
}

impl Remote for Peer {
    fn request(&self, request: Connection, _: Instant) -> BoxFuture<'_, Result<Connection, Error>> {
        async move {
            let fault = self.script().fault;
            let refusal = Error::request("remote", &request, Kind::Unavailable, "told to fail");
            match fault {
                Some(RemoteFault::Refuses) => return Err(refusal),
                Some(RemoteFault::Hangs) => return pending().await,
                _ => {}
            }
            let answer = self.answer(request);
            self.make(&answer).await;
            match fault {
                Some(RemoteFault::AnswerLost) => Err(refusal),
                _ => Ok(answer),
            }
        }
        .boxed()
    }

    fn close(&self, connection: Connection, _: Instant) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let id = &connection.path.segments[1].id;
            self.script().open.remove(id);
            let delete = Change::DeleteLink {
                netns: Self::netns(),
                id: ConnectionId::new(id).unwrap(),
                side: Side::Endpoint,
            };
            self.agent.apply(vec![delete]).await.map_err(|error| {
                let id = &connection.id;
                Error::new("remote", Operation::Close, id, Kind::Unavailable, error)
            })
        }
        .boxed()
    }

    fn monitor(&self, _: Selector) -> BoxFuture<'_, Result<Events, Error>> {
        let initial = ConnectionEvent {
            kind: EventKind::InitialStateTransfer,
            connections: Vec::new(),
        };
        let events = stream::iter([Ok(initial)]).chain(stream::pending());
        async move { Ok(events.boxed()) }.boxed()
    }
}

fn connect(world: &World, chain: Chain, peer: &Peer) -> ClientConnection {
    let options = ClientOptions::new("nse-1", Arc::clone(&world.parts.tokens));
    let id = ConnectionId::new("to-nse-2").unwrap();
    let wanted = Connection::new(id, ServiceName::new("service").unwrap());
    Client::new(options, chain, peer.clone()).connect(wanted)
}

fn chain(world: &World) -> Chain {
    chain_to(&world.parts, &Neighbor::id())
}

async fn positions(neighbor: &Neighbor) -> RangeInclusive<usize> {
    0..=chain(&World::new(neighbor).await).len()
}

/// What is left of the link here; the peer's router is there once it served.
fn left(world: &World) -> Look {
    let mut look = world.look();
    look.agent
        .retain(|what| !what.starts_with("router in network namespace carrick-2"));
    look
}

async fn failed(kept: &ClientConnection) {
    let mut status = kept.watch();
    let failed = status.wait_for(|status| status.error.is_some()).await;
    failed.expect("it is kept");
}

#[tokio::test(start_paused = true)]
async fn a_link_to_a_peer_is_made_refreshed_and_closed() {
    let neighbor = Neighbor::new();
    for kind in [MechanismType::Kernel, MechanismType::Vxlan] {
        let world = World::new(&neighbor).await;
        let peer = Peer::new(&world, kind.clone());
        let kept = connect(&world, chain(&world), &peer);
        let answer = kept.up().await.unwrap();
        let (up, links) = (left(&world), world.agent.links());
        let own_end = links.iter().find(|link| link.side == Side::Client).unwrap();
        assert_eq!(own_end.near.routes.len(), 2);
        assert_eq!((up.book.len(), up.tunnels), (1, 1));
        assert_eq!(
            answer.context.ip.src_addrs,
            ["10.0.0.0/32".parse().unwrap()]
        );

        let mut status = kept.watch();
        let requests = status.borrow_and_update().requests;
        kept.refresh();
        let refreshed =
            status.wait_for(|status| status.requests > requests && status.connection().is_some());
        refreshed.await.unwrap();
        assert_eq!((left(&world), world.agent.links()), (up, links));

        assert!(kept.close(GRACE).await);
        assert_eq!(left(&world), World::nothing(), "{kind}");
        assert!(peer.script().open.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_fails_at_any_element_leaves_nothing() {
    let neighbor = Neighbor::new();
    let faults = [
        || Fault::request(Kind::Unavailable),
        || Fault::answer_lost(Kind::Unavailable),
        Fault::hang,
    ];
    for kind in [MechanismType::Kernel, MechanismType::Vxlan] {
        for position in positions(&neighbor).await {
            for fault in faults {
                let world = World::new(&neighbor).await;
                let peer = Peer::new(&world, kind.clone());
                let once = chain(&world).with_fault(position, fault().at(1));
                let kept = connect(&world, once, &peer);
                failed(&kept).await;
                // It is tried again from nothing, and then it works.
                assert!(kept.up().await.is_some());
                assert!(kept.close(GRACE).await);
                assert_eq!(left(&world), World::nothing(), "{kind} at {position}");
                assert!(peer.script().open.is_empty());

                let peer = Peer::new(&world, kind.clone());
                let kept = connect(&world, chain(&world).with_fault(position, fault()), &peer);
                failed(&kept).await;
                kept.close(GRACE).await;
                assert_eq!(left(&world), World::nothing(), "{kind} at {position}");
                assert!(peer.script().open.is_empty());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fails_in_any_way_leaves_nothing_here() {
    let neighbor = Neighbor::new();
    let faults = [
        RemoteFault::AnswerLost,
        RemoteFault::Hangs,
        RemoteFault::Refuses,
        RemoteFault::TakesOurs,
    ];
    for fault in faults {
        let world = World::new(&neighbor).await;
        let peer = Peer::new(&world, MechanismType::Vxlan);
        peer.script().fault = Some(fault);
        let kept = connect(&world, chain(&world), &peer);
        failed(&kept).await;
        kept.close(GRACE).await;
        assert_eq!(left(&world), World::nothing(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_fails_at_any_call_leaves_nothing_and_a_refresh_what_is_up() {
    let neighbor = Neighbor::new();
    for call in 0..3 {
        let world = World::new(&neighbor).await;
        let peer = Peer::new(&world, MechanismType::Vxlan);
        world.agent.fail_at(call);
        let kept = connect(&world, chain(&world), &peer);
        if call == 0 {
            failed(&kept).await;
        }
        kept.up().await.unwrap();
        let (up, links) = (left(&world), world.agent.links());
        assert_eq!(links.len(), 1);
        kept.refresh();
        if call == 1 {
            failed(&kept).await;
        }
        let mut status = kept.watch();
        status
            .wait_for(|status| status.requests > 1 && status.error.is_none())
            .await
            .unwrap();
        assert_eq!(
            (left(&world), world.agent.links()),
            (up, links),
            "call {call}"
        );
        world.agent.recover();
        assert!(kept.close(GRACE).await);
        assert_eq!(left(&world), World::nothing(), "call {call}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_peers_answer_only_what_is_its_own_is_routed() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let peer = Peer::new(&world, MechanismType::Vxlan);
    let hostile = [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "10.0.0.0/24",
        "10.0.0.0/16",
    ];
    peer.script().announced = hostile
        .iter()
        .map(|prefix| Route::via(prefix.parse().unwrap(), [10, 0, 1, 0].into()))
        .collect();
    let kept = connect(&world, chain(&world), &peer);
    kept.up().await.unwrap();
    let links = world.agent.links();
    let routes: Vec<_> = links[0]
        .near
        .routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    assert_eq!(routes, ["10.0.1.0/32", "10.0.1.0/24"]);
    assert!(kept.close(GRACE).await);
    assert_eq!(left(&world), World::nothing());
}
