use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use carrick_types::{ConnectionId, EndpointName};

use super::peer::{LinkEnd, Peer};
use super::{Action, DialId, Domain, Endpoint, Event, Link, PeerId, Refusal};

/// Bounds and times of a [`PeerSet`].
#[derive(Clone, Debug)]
pub struct PeerSetOptions {
    /// Most peers; further ones are not taken up (default 1024).
    pub max_peers: usize,
    /// Most dials in flight (default 16).
    pub max_dials: usize,
    /// How long the older endpoint waits for the newer one's dial before it
    /// dials itself (default 10 s): the other may not know our domain.
    pub grace: Duration,
    /// How long a working link is kept for a peer that its registry lost (default 1 min).
    pub gone_grace: Duration,
    /// How long a link whose data path is dead is kept (default 30 s).
    pub dead_grace: Duration,
    /// Longest delay between dials (default 30 s).
    pub backoff_cap: Duration,
    /// Longest delay between dials of a peer that was linked before (default 2 s).
    pub return_cap: Duration,
    /// How long after a registry began to tell all it has what it did not
    /// repeat counts as gone, where it does not say that it is through (default 5 s).
    pub sync_grace: Duration,
    /// Seed of the jitter; endpoints should differ.
    pub seed: u64,
}

impl Default for PeerSetOptions {
    fn default() -> Self {
        Self {
            max_peers: 1024,
            max_dials: 16,
            grace: Duration::from_secs(10),
            gone_grace: Duration::from_secs(60),
            dead_grace: Duration::from_secs(30),
            backoff_cap: Duration::from_secs(30),
            return_cap: Duration::from_secs(2),
            sync_grace: Duration::from_secs(5),
            seed: fastrand::u64(..),
        }
    }
}

/// The other endpoints of the service, and what to do so that there is exactly
/// one working link to each; no I/O, no clock.
///
/// Tell it what happened ([`PeerSet::handle`], [`PeerSet::admit`]), do what it
/// says ([`PeerSet::action`]) and come back in time ([`PeerSet::next_tick`]).
///
/// # Rules
///
/// - The newer endpoint by registration dials the older, ties by name. The
///   older dials too if nothing came within [`PeerSetOptions::grace`].
/// - Of two links that crossed, the one dialled by the endpoint with the
///   greater name stays. Names do not change, so both ends judge alike even
///   while their registries differ.
/// - An endpoint without a key ([`Endpoint::key`]) is one of NSM's own, which
///   never gives up a link that it dialled and asks without a pause when it is
///   refused: of two links with such a one, that which it dialled stays.
/// - A dial in flight is never given up because of a crossing one: until both
///   are up nobody knows whether either will be.
/// - A link whose data path dies carries nothing but probes from then on, and
///   the peer is dialled anew; whichever works first is used.
/// - An endpoint with our own name is ourselves, in whatever domain it is seen.
#[derive(Debug)]
pub struct PeerSet {
    pub(crate) name: EndpointName,
    pub(crate) options: PeerSetOptions,
    pub(crate) registered_at: Option<SystemTime>,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// Whose link a connection is.
    pub(crate) connections: HashMap<ConnectionId, PeerId>,
    /// When what is stale in a domain is gone.
    pub(crate) sweeps: BTreeMap<Domain, Instant>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) dials: DialId,
    refused_peers: u64,
}

impl PeerSet {
    /// The peers of the endpoint `name`: none yet.
    #[must_use]
    pub fn new(name: EndpointName, options: PeerSetOptions) -> Self {
        Self {
            name,
            registered_at: None,
            peers: BTreeMap::new(),
            connections: HashMap::new(),
            sweeps: BTreeMap::new(),
            actions: VecDeque::new(),
            rng: fastrand::Rng::with_seed(options.seed),
            dials: 0,
            refused_peers: 0,
            options,
        }
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Dialed { dial, peer, link } => self.dialed(dial, &peer, link, now),
            Event::DialFailed {
                dial,
                peer,
                reason,
                error,
            } => {
                self.dial_failed(dial, &peer, reason, error, now);
            }
            Event::Gone(peer) => self.gone(&peer, now),
            Event::Health {
                connection,
                alive,
                rtt,
            } => self.health(&connection, alive, rtt, now),
            Event::InboundClosed(connection) => self.inbound_closed(&connection, now),
            Event::InboundUp(link) => self.inbound_up(link, now),
            Event::OutgoingClosed(connection) => self.outgoing_closed(&connection, now),
            Event::Registered(at) => self.registered_at = Some(at),
            Event::Resync(domain) => self.resync(domain, now),
            Event::Seen(endpoint) => self.seen(endpoint, now),
            Event::Synced(domain) => self.synced(&domain, now),
        }
        self.settle(now);
    }

    /// Does what was due at `now`.
    pub fn tick(&mut self, now: Instant) {
        let due: Vec<_> = self
            .sweeps
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(d, _)| d.clone())
            .collect();
        for domain in due {
            self.synced(&domain, now);
        }
        self.settle(now);
    }

    /// The next thing to do, in order.
    pub fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether an inbound link of `peer` may be made. A connection that was
    /// admitted once stays so: asking again is a refresh.
    ///
    /// # Errors
    ///
    /// There is a better link already, the limit is reached, or it is ourselves.
    pub fn admit(
        &mut self,
        id: &PeerId,
        connection: &ConnectionId,
        now: Instant,
    ) -> Result<(), Refusal> {
        if id.name == self.name {
            return Err(Refusal::Itself);
        }
        let (wins, grace) = (self.wins(id), self.options.grace);
        if !self.room_for(id) {
            return Err(Refusal::Full(self.options.max_peers));
        }
        let peer = self
            .peers
            .entry(id.clone())
            .or_insert_with(|| Peer::new(now, grace));
        let instance = peer.registered_at();
        if peer
            .inbound
            .as_ref()
            .is_some_and(|end| end.link.connection == *connection)
        {
            return Ok(());
        }
        let same = |end: &LinkEnd| end.alive() && end.instance == instance;
        if wins && peer.outgoing.as_ref().is_some_and(same) {
            return Err(Refusal::AlreadyLinked);
        }
        if wins && peer.dialing.is_some() && peer.backoff.failures() == 0 && !peer.linked() {
            return Err(Refusal::Crossed);
        }
        let end = LinkEnd::new(Link::new(connection.clone()), false, instance);
        let old = peer.inbound.replace(end);
        peer.since = now;
        let outgoing = peer.outgoing.take();
        self.connections.insert(connection.clone(), id.clone());
        self.drop_inbound(old);
        self.drop_outgoing(outgoing);
        self.settle(now);
        Ok(())
    }

    /// Takes note of a round trip time, for the status.
    pub fn measured(&mut self, connection: &ConnectionId, rtt: Option<Duration>) {
        if let Some(end) = self
            .owner(connection)
            .and_then(|peer| peer.end_mut(connection))
        {
            end.rtt = rtt.or(end.rtt);
        }
    }

    /// Peers that were not taken up for want of room.
    #[must_use]
    pub fn refused_peers(&self) -> u64 {
        self.refused_peers
    }

    /// Whose link a connection is.
    #[must_use]
    pub fn peer_of(&self, connection: &ConnectionId) -> Option<&PeerId> {
        self.connections.get(connection)
    }

    /// Whether a connection is a link that is up and whose data path works.
    #[must_use]
    pub fn is_alive(&self, connection: &ConnectionId) -> bool {
        let peer = self.peer_of(connection).and_then(|id| self.peers.get(id));
        let mut links = peer.into_iter().flat_map(Peer::links);
        links.any(|end| end.link.connection == *connection && end.up && end.alive())
    }

    /// Whether a peer is in the set.
    #[must_use]
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether a link to `peer` works, or is being made by it.
    #[must_use]
    pub fn is_linked(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(Peer::linked)
    }

    /// Number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there are no peers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The registrations of all peers.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.peers
            .values()
            .filter_map(|peer| peer.endpoint.as_ref())
    }

    /// The registrations under a name, in whatever domain.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints()
            .filter(move |endpoint| endpoint.id.name.as_str() == name)
    }

    /// The links that are up: to whom, what was agreed, whether it works.
    pub fn links(&self) -> impl Iterator<Item = (&PeerId, &Link, bool)> {
        self.peers.iter().flat_map(|(id, peer)| {
            let up = peer.links().filter(|end| end.up);
            up.map(move |end| (id, &end.link, end.alive()))
        })
    }

    /// Whether, of two links that crossed, the one that we dialled stays.
    pub(crate) fn wins(&self, id: &PeerId) -> bool {
        let endpoint = self.peers.get(id).and_then(|peer| peer.endpoint.as_ref());
        let yields = endpoint.is_none_or(|endpoint| endpoint.key().is_some());
        yields && self.name > id.name
    }

    pub(crate) fn drop_inbound(&mut self, end: Option<LinkEnd>) {
        if let Some(end) = end {
            let connection = end.link.connection;
            self.connections.remove(&connection);
            self.actions.push_back(Action::Evict { connection });
        }
    }

    pub(crate) fn drop_outgoing(&mut self, end: Option<LinkEnd>) {
        if let Some(end) = end {
            let connection = end.link.connection;
            self.connections.remove(&connection);
            self.actions.push_back(Action::Close { connection });
        }
    }

    pub(super) fn room_for(&mut self, id: &PeerId) -> bool {
        let room = self.peers.contains_key(id) || self.peers.len() < self.options.max_peers;
        self.refused_peers += u64::from(!room);
        room
    }
}
