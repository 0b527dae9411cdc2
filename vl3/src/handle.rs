use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carrick_types::{Connection, ConnectionId, EndpointName, IpFamily, Prefix};
use tokio::sync::{Notify, watch};

use crate::Metrics;
use crate::filter::{Ground, Holdings, Verdict};
use crate::peers::{Action, Event, Link, PeerId, PeerSet, PeerSetOptions, PeerStatus, Refusal};
use crate::recognise::{Forgery, RecogniseOptions, Recognition, recognise};

/// Verifies a path token with the key that an endpoint published: `verify(token, key)`.
pub type Verify = dyn Fn(&str, &str) -> bool + Send + Sync;

/// What a [`Vl3`] needs to know from the start.
pub struct Vl3Options {
    /// The endpoint's name in its registry.
    pub name: EndpointName,
    /// The networks; empty means that of the endpoint's prefixes
    /// ([`Prefix::default_network`]).
    pub networks: Vec<Prefix>,
    /// Most prefixes that one peer may announce (default 64).
    pub max_prefixes_per_peer: usize,
    /// How peers are told from clients.
    pub recognise: RecogniseOptions,
    /// Verifies tokens of peers that publish a key.
    pub verify: Box<Verify>,
    /// Bounds and times of the peer set.
    pub peers: PeerSetOptions,
}

impl fmt::Debug for Vl3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vl3Options")
            .field("name", &self.name)
            .field("networks", &self.networks)
            .finish_non_exhaustive()
    }
}

impl Vl3Options {
    /// The usual options; no token verifies.
    #[must_use]
    pub fn new(name: EndpointName) -> Self {
        Self {
            name,
            networks: Vec::new(),
            max_prefixes_per_peer: 64,
            recognise: RecogniseOptions::default(),
            verify: Box::new(|_, _| false),
            peers: PeerSetOptions::default(),
        }
    }
}

/// The network as this endpoint sees it: its own prefixes, its peers and what
/// they hold. Elements, name server and the peers' driver share it; clones are
/// the same network.
#[derive(Clone)]
pub struct Vl3(Arc<Shared>);

struct Shared {
    name: EndpointName,
    networks: Vec<Prefix>,
    recognise: RecogniseOptions,
    verify: Box<Verify>,
    metrics: Metrics,
    own: watch::Sender<Arc<[Prefix]>>,
    /// Rises when a registry told something or a link changed.
    changes: watch::Sender<u64>,
    /// Wakes the driver: there may be actions.
    wake: Notify,
    state: Mutex<State>,
}

struct State {
    peers: PeerSet,
    holdings: Holdings,
    /// Connections that peers dialled.
    inbound: HashMap<ConnectionId, PeerId>,
    /// The same from before a restart, not asked for again yet.
    restored: HashMap<ConnectionId, PeerId>,
}

impl fmt::Debug for Vl3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vl3")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl Vl3 {
    /// Key in a connection's extra context under which an answer to a peer
    /// says whose it is, so that a restarted endpoint knows without asking a
    /// registry. Never read from a Request.
    pub const PEER_KEY: &str = "carrick.io/peer";

    /// A network without peers.
    #[must_use]
    pub fn new(options: Vl3Options) -> Self {
        let state = State {
            peers: PeerSet::new(options.name.clone(), options.peers),
            holdings: Holdings::new(options.max_prefixes_per_peer),
            inbound: HashMap::new(),
            restored: HashMap::new(),
        };
        Self(Arc::new(Shared {
            name: options.name,
            networks: options.networks,
            recognise: options.recognise,
            verify: options.verify,
            metrics: Metrics::default(),
            own: watch::Sender::new(Arc::new([])),
            changes: watch::Sender::new(0),
            wake: Notify::new(),
            state: Mutex::new(state),
        }))
    }

    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        &self.0.name
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Sets the endpoint's own prefixes, the first of a family being that of its address.
    pub fn set_prefixes(&self, prefixes: &[Prefix]) {
        self.0.own.send_replace(prefixes.into());
    }

    /// The endpoint's own prefixes, as they change.
    #[must_use]
    pub fn prefixes(&self) -> watch::Receiver<Arc<[Prefix]>> {
        self.0.own.subscribe()
    }

    /// The endpoint's own addresses, one for each family: the network address
    /// of its first prefix (NSM `vl3.IPAM`: `selfAddress`).
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let own = self.0.own.borrow();
        [IpFamily::V4, IpFamily::V6]
            .into_iter()
            .filter_map(|family| own.iter().find(|prefix| prefix.family() == family))
            .map(|prefix| prefix.network())
            .collect()
    }

    /// The network and what of it is ours.
    #[must_use]
    pub fn ground(&self) -> Ground {
        let own = self.0.own.borrow().to_vec();
        let mut networks = self.0.networks.clone();
        if networks.is_empty() {
            networks = own.iter().map(|prefix| prefix.default_network()).collect();
            networks.dedup();
        }
        Ground { networks, own }
    }

    /// Tells what happened to a peer or a link.
    pub fn handle(&self, event: Event) {
        match &event {
            Event::Dialed { .. } => _ = self.0.metrics.links.inc(),
            Event::DialFailed { reason, .. } => {
                Metrics::count(&self.0.metrics.failed_dials, reason.as_str());
            }
            _ => {}
        }
        self.with(|state| state.peers.handle(event, now()));
    }

    /// How it stands with each peer.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.state().peers.status(now())
    }

    /// The links that are up and whether their data path works.
    #[must_use]
    pub fn links(&self) -> Vec<(PeerId, Link, bool)> {
        let state = self.state();
        state
            .peers
            .links()
            .map(|(id, link, alive)| (id.clone(), link.clone(), alive))
            .collect()
    }

    /// Where a peer listens, while it is registered.
    #[must_use]
    pub fn url_of(&self, peer: &PeerId) -> Option<String> {
        let state = self.state();
        let mut named = state.peers.named(peer.name.as_str());
        let endpoint = named.find(|endpoint| endpoint.id == *peer)?;
        Some(endpoint.url.clone())
    }

    /// Whether a connection is a link that is up and whose data path works.
    #[must_use]
    pub fn is_alive(&self, connection: &ConnectionId) -> bool {
        self.state().peers.is_alive(connection)
    }

    /// Rises whenever a peer or a link changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The peer that dialled a connection; `None` for a client's.
    #[must_use]
    pub fn dialled_by(&self, connection: &ConnectionId) -> Option<PeerId> {
        self.state().inbound.get(connection).cloned()
    }

    /// Takes note of a connection that was served before a restart. To be
    /// called with the stored answer before it is run through the chain again:
    /// then a peer's is known as such even while no registry is reachable.
    pub fn restore(&self, answer: &Connection) {
        let peer = answer
            .context
            .extra
            .get(Self::PEER_KEY)
            .and_then(|text| PeerId::from_stored(text));
        if let Some(peer) = peer {
            self.state().restored.insert(answer.id.clone(), peer);
        }
    }

    /// Judges what a peer announces; what is accepted is its from then on.
    pub fn accept(&self, peer: &PeerId, announced: impl IntoIterator<Item = Prefix>) -> Verdict {
        let ground = self.ground();
        let mut state = self.state();
        let State {
            peers, holdings, ..
        } = &mut *state;
        let verdict = holdings.accept(peer, announced, &ground, &|id| peers.is_linked(id));
        for (prefix, reason) in &verdict.refused {
            tracing::warn!(%peer, %prefix, "prefix not taken: {reason}");
            Metrics::count(&self.0.metrics.refused_prefixes, reason.as_str());
        }
        verdict
    }

    pub(crate) fn recognise(&self, request: &Connection) -> Recognition {
        let state = self.state();
        let name = request.client_name().unwrap_or_default();
        let restored = state.restored.get(&request.id).cloned();
        let known = restored.or_else(|| state.inbound.get(&request.id).cloned());
        let known = known.filter(|peer| peer.name.as_str() == name);
        let named: Vec<_> = state.peers.named(name).cloned().collect();
        drop(state);
        let recognition = recognise(request, &named, self.0.recognise, &*self.0.verify);
        match recognition {
            Recognition::Forged(Forgery::Unregistered) | Recognition::Client if known.is_some() => {
                known.map_or(Recognition::Client, Recognition::Peer)
            }
            Recognition::Peer(peer) if peer.name == self.0.name => {
                Recognition::Forged(Forgery::Unregistered)
            }
            other => other,
        }
    }

    pub(crate) fn admit(&self, peer: &PeerId, connection: &ConnectionId) -> Result<(), Refusal> {
        self.with(|state| {
            state.peers.admit(peer, connection, now())?;
            if state
                .inbound
                .insert(connection.clone(), peer.clone())
                .is_none()
            {
                self.0.metrics.received_dials.inc();
            }
            Ok(())
        })
        .inspect_err(|_| _ = self.0.metrics.yielded_dials.inc())
    }

    pub(crate) fn measured(&self, connection: &ConnectionId, rtt: Option<Duration>) {
        self.state().peers.measured(connection, rtt);
    }

    pub(crate) fn inbound_up(&self, link: Link) {
        self.handle(Event::InboundUp(link));
    }

    pub(crate) fn inbound_closed(&self, connection: &ConnectionId) {
        let mut state = self.state();
        state.inbound.remove(connection);
        state.restored.remove(connection);
        drop(state);
        self.handle(Event::InboundClosed(connection.clone()));
    }

    /// What to do now, and when to look again.
    pub(crate) fn due(&self) -> (Vec<Action>, Option<Instant>) {
        let mut state = self.state();
        state.peers.tick(now());
        let actions = std::iter::from_fn(|| state.peers.action()).collect();
        (actions, state.peers.next_tick())
    }

    /// Waits until there may be something to do.
    pub(crate) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// A link by its connection, with those of its prefixes that are still its peer's.
    pub(crate) fn link(&self, connection: &ConnectionId) -> Option<Link> {
        let state = self.state();
        let (id, link, _) = state
            .peers
            .links()
            .find(|(_, link, _)| link.connection == *connection)?;
        let held = state.holdings.of(id);
        let mut link = link.clone();
        link.prefixes.retain(|prefix| held.contains(prefix));
        Some(link)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        let State {
            peers, holdings, ..
        } = &mut *state;
        holdings.retain(|peer| peers.knows(peer));
        let (known, linked) = (peers.len(), peers.linked());
        drop(state);
        self.0
            .metrics
            .peers
            .set(known.try_into().unwrap_or(i64::MAX));
        self.0
            .metrics
            .linked_peers
            .set(linked.try_into().unwrap_or(i64::MAX));
        self.0
            .changes
            .send_modify(|count| *count = count.wrapping_add(1));
        self.0.wake.notify_one();
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock that tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
