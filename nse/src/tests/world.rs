//! An endpoint's parts as `run` assembles them, over fakes at the edge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use carrick_agent::{Agent, Change, Recording};
use carrick_chain::testing::request;
use carrick_chain::{Chain, EndpointOptions, Handle, Tokens};
use carrick_grpc::{
    Channels, DialOptions, Es256Tokens, Identity, Security, SpiffeId, TokenOptions,
};
use carrick_ipam::{AddressOptions, Addresses, LeaseOptions, Leases, Prefixes};
use carrick_store::Store;
use carrick_telemetry::Metrics;
use carrick_types::{
    Connection, ConnectionId, EndpointName, Labels, Mechanism, MechanismClass, MechanismType, Mtu,
    Prefix, Route,
};
use carrick_vl3::dns::Records;
use carrick_vl3::elements::MtuElement;
use carrick_vl3::peers::{self, Domain, Event, PeerId};
use carrick_vl3::{Vl3, Vl3Options};

use super::clock::Clock;
use crate::journal::Answers;
use crate::parts::{Parts, Plane};
use crate::peering::{Ask, Dials};
use crate::policies::Rules;
use crate::{Config, serving};

/// The endpoint `nse-1` with 10.0.0.0/24 on `node-a`, and all that it may leave
/// something in.
pub(super) struct World {
    pub(super) parts: Parts,
    pub(super) agent: Arc<Recording>,
    pub(super) store: Store,
    pub(super) answers: Answers,
    clock: Option<Clock>,
}

/// What is there, in each place where something can be left.
#[derive(Debug, PartialEq)]
pub(super) struct Look {
    pub(super) agent: Vec<String>,
    pub(super) book: Vec<ConnectionId>,
    pub(super) leases: Vec<Prefix>,
    pub(super) names: usize,
    pub(super) answers: usize,
    pub(super) peers: Vec<(PeerId, Option<ConnectionId>, Vec<Prefix>)>,
    pub(super) peer_links: usize,
    pub(super) dialled: Vec<ConnectionId>,
    pub(super) workload: i64,
    pub(super) mtu: Mtu,
    pub(super) tunnels: usize,
}

impl World {
    /// With the time of the test's runtime, which is not paused.
    pub(super) async fn new(neighbor: &Neighbor) -> Self {
        let world = Self::over(&Store::in_memory().unwrap(), &Arc::new(Recording::new()));
        world.begin(neighbor).await;
        world
    }

    /// With a clock that moves though it is paused.
    pub(super) async fn timed(neighbor: &Neighbor) -> Self {
        let store = Store::in_memory().unwrap();
        let mut world = Self::over(&store, &Arc::new(Recording::new()));
        world.clock = Some(Clock::of(&store));
        world.begin(neighbor).await;
        world
    }

    async fn begin(&self, neighbor: &Neighbor) {
        self.plane().put_router(&self.parts).await;
        self.parts.vl3.handle(neighbor.seen());
    }

    /// Over what another one left; knows no peer yet.
    pub(super) fn over(store: &Store, agent: &Arc<Recording>) -> Self {
        Self {
            parts: parts(store, Arc::<Recording>::clone(agent)),
            agent: agent.clone(),
            store: store.clone(),
            answers: Answers::open(store),
            clock: None,
        }
    }

    /// Puts another agent before the one that records.
    pub(super) fn with_agent(mut self, agent: Arc<dyn Agent>) -> Self {
        self.parts.plane = Some(Plane::new(agent, &self.parts.config));
        self
    }

    pub(super) fn plane(&self) -> &Plane {
        self.parts.plane.as_ref().expect("there is an agent")
    }

    pub(super) fn chain(&self) -> Chain {
        serving::chain(&self.parts, None).unwrap()
    }

    pub(super) fn options(&self) -> EndpointOptions {
        EndpointOptions::new("nse-1", Arc::clone(&self.parts.tokens))
            .journal(self.answers.clone())
            .handle(&self.parts.handle)
            .is_stale({
                let parts = self.parts.clone();
                Arc::new(move |connection| serving::is_stale(&parts, connection))
            })
    }

    pub(super) fn endpoint(&self) -> carrick_chain::Endpoint {
        carrick_chain::Endpoint::new(self.options(), self.chain())
    }

    pub(super) fn look(&self) -> Look {
        let Parts {
            leases,
            records,
            vl3,
            mtu,
            ..
        } = &self.parts;
        let status = vl3.status().into_iter();
        let mut book = self.plane().book.link_ids();
        book.sort_unstable();
        Look {
            agent: self.agent.leftovers(),
            book,
            leases: leases.all().into_iter().map(|(prefix, _)| prefix).collect(),
            names: records.len(),
            answers: self.answers.all().unwrap().len(),
            peers: status
                .map(|peer| (peer.name, peer.connection, peer.prefixes))
                .collect(),
            peer_links: vl3.links().len(),
            dialled: self.dialled(),
            workload: vl3.metrics().active_workload.get(),
            mtu: mtu.current(),
            tunnels: self.plane().vnis.taken(),
        }
    }

    /// Of all connections that a link was ever made for, those known as peers'.
    fn dialled(&self) -> Vec<ConnectionId> {
        let changes = self.agent.calls().into_iter().flatten();
        let links = changes.filter_map(|change| match change {
            Change::PutLink(link) => Some(link.id),
            _ => None,
        });
        let links: BTreeSet<_> = links.collect();
        links
            .into_iter()
            .filter(|id| self.parts.vl3.dialled_by(id).is_some())
            .collect()
    }

    /// What [`World::look`] sees where nothing is left.
    pub(super) fn nothing() -> Look {
        Look {
            agent: vec!["router in network namespace carrick-service".to_owned()],
            book: Vec::new(),
            leases: Vec::new(),
            names: 0,
            answers: 0,
            peers: vec![(Neighbor::id(), None, Vec::new())],
            peer_links: 0,
            dialled: Vec::new(),
            workload: 0,
            mtu: Mtu::JUMBO,
            tunnels: 0,
        }
    }
}

impl carrick_chain::testing::Parts for World {
    type World = Self;

    fn parts(self) -> (EndpointOptions, Chain, Self) {
        (self.options(), self.chain(), self)
    }
}

fn parts(store: &Store, agent: Arc<dyn Agent>) -> Parts {
    let config = Arc::new(config());
    let identity = Arc::new(Identity::generate());
    let tokens: Arc<dyn Tokens> = Arc::new(tokens(&identity, "nse-1"));
    let prefixes = Prefixes::fixed(config.addresses.fixed.iter().copied()).unwrap();
    let vl3 = Vl3::new(Vl3Options {
        verify: Box::new(|token, key| carrick_grpc::verify(token, key, SystemTime::now()).is_ok()),
        ..Vl3Options::new(config.name.clone())
    });
    vl3.set_prefixes(&prefixes.current());
    let leases = Leases::open(store, LeaseOptions::default()).unwrap();
    let peers = vl3.clone();
    let options = AddressOptions {
        is_peer: Arc::new(move |connection| serving::is_peer(&peers, connection)),
        ..AddressOptions::default()
    };
    let (handle, dials) = (Handle::default(), Dials::default());
    let ask = Ask {
        handle: handle.clone(),
        dials: dials.clone(),
    };
    let rules = Rules::load(&config.policies, &Metrics::new()).unwrap();
    Parts {
        plane: Some(Plane::new(agent, &config)),
        addresses: Addresses::new(leases.clone(), prefixes.clone(), options),
        config,
        vl3,
        prefixes,
        leases,
        records: Records::default(),
        mtu: MtuElement::new(Mtu::JUMBO, Arc::new(ask)),
        handle,
        tokens,
        identity,
        channels: Channels::new(Security::insecure(), DialOptions::default()),
        dials,
        rules,
    }
}

fn config() -> Config {
    let settings = BTreeMap::from([
        ("NSM_NAME", "nse-1"),
        ("NSM_SERVICE_NAMES", "service"),
        ("CARRICK_PREFIXES", "10.0.0.0/24"),
        ("CARRICK_STATE_DIR", ""),
        ("CARRICK_TUNNEL_IP", "192.0.2.1"),
        ("NODE_NAME", "node-a"),
    ]);
    Config::read(&settings).unwrap()
}

pub(super) fn tokens(identity: &Identity, name: &str) -> Es256Tokens {
    let subject = SpiffeId::new("carrick", name).unwrap();
    Es256Tokens::new(identity, subject, &TokenOptions::default())
}

/// The endpoint `nse-2` with 10.0.1.0/24, which dials.
pub(super) struct Neighbor(pub(super) Identity);

impl Neighbor {
    pub(super) fn new() -> Self {
        Self(Identity::generate())
    }

    pub(super) fn id() -> PeerId {
        PeerId::new(EndpointName::new("nse-2").unwrap(), Domain::own())
    }

    /// Its registration.
    pub(super) fn seen(&self) -> Event {
        self.seen_as("nse-2")
    }

    pub(super) fn seen_as(&self, name: &str) -> Event {
        let key = self.0.public_key_text();
        Event::Seen(peers::Endpoint {
            id: PeerId::new(EndpointName::new(name).unwrap(), Domain::own()),
            url: "tcp://192.0.2.2:5000".to_owned(),
            registered_at: Some(SystemTime::UNIX_EPOCH),
            node: None,
            labels: [(peers::Endpoint::KEY, key)].into_iter().collect(),
        })
    }

    pub(super) fn request(&self, offer: Mechanism) -> Connection {
        self.request_as("nse-2", offer)
    }

    pub(super) fn request_as(&self, name: &str, offer: Mechanism) -> Connection {
        let mut request = request(name, "peer");
        request.path.segments[0].token = tokens(&self.0, name).token(None).unwrap().value;
        request.labels = [(carrick_vl3::recognise::PEER_LABEL, name)]
            .into_iter()
            .collect();
        announce(&mut request, "10.0.1.0/24");
        request.preferences = vec![offer];
        request
    }
}

/// Has a peer's Request announce one more prefix, by way of 10.0.1.0.
pub(super) fn announce(request: &mut Connection, prefix: &str) {
    let ip = &mut request.context.ip;
    ip.add_src_addr("10.0.1.0/32".parse().unwrap());
    for prefix in ["10.0.1.0/32", prefix] {
        let route = Route::via(prefix.parse().unwrap(), [10, 0, 1, 0].into());
        ip.add_dst_route(route);
    }
}

/// A client in the namespace of process 12.
pub(super) fn client(id: &str) -> Connection {
    offering(id, kernel("file:///proc/12/ns/net"))
}

pub(super) fn offering(id: &str, offer: Mechanism) -> Connection {
    let mut request = request("nsc", id);
    request.labels = [("podName", format!("pod-{id}"))]
        .into_iter()
        .collect::<Labels>();
    request.preferences = vec![offer];
    request
}

pub(super) fn kernel(url: &str) -> Mechanism {
    Mechanism::new(MechanismClass::Local, MechanismType::Kernel).with(Mechanism::INODE_URL, url)
}

pub(super) fn vxlan(from: &str, vni: u32) -> Mechanism {
    Mechanism::new(MechanismClass::Remote, MechanismType::Vxlan)
        .with(Mechanism::SRC_IP, from)
        .with(Mechanism::VNI, vni)
}
