//! A mesh of peer sets in simulated time: messages are delayed, lost and
//! overtake each other, endpoints die and return.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use carrick_types::{ConnectionId, EndpointName};

use super::{
    Action, DialId, Domain, Endpoint, Event, Link, PeerId, PeerSet, PeerSetOptions, Reason,
};

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) nodes: Vec<Node>,
    conns: BTreeMap<ConnectionId, Conn>,
    queue: BinaryHeap<Due>,
    order: u64,
    pub(super) rng: fastrand::Rng,
    /// Longest delay of a message.
    pub(super) delay: Duration,
    /// Share of messages that are lost.
    pub(super) loss: f64,
    /// How far registries may be wrong about when an endpoint registered.
    pub(super) skew: Duration,
    /// Dials that reached an endpoint.
    pub(super) requests: usize,
}

pub(super) struct Node {
    pub(super) set: PeerSet,
    generation: u32,
    up: bool,
    registered_at: SystemTime,
    /// Whose registrations it sees.
    pub(super) sees: Vec<bool>,
    tick: Option<Instant>,
    cancelled: HashSet<DialId>,
    /// Links whose last check failed.
    suspects: HashSet<ConnectionId>,
}

/// A connection: which ends hold it.
struct Conn {
    from: usize,
    to: usize,
    from_has: bool,
    to_has: bool,
}

struct Due {
    at: Instant,
    order: u64,
    node: usize,
    generation: Option<u32>,
    what: What,
}

enum What {
    Answer(DialId, ConnectionId),
    Check,
    Closed(ConnectionId),
    Evicted(ConnectionId),
    Request(usize, DialId, ConnectionId),
    Tell(Event),
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

const CHECK: Duration = Duration::from_millis(900);

impl World {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let start = Instant::now();
        let mut world = Self {
            now: start,
            start,
            nodes: Vec::new(),
            conns: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            rng: fastrand::Rng::with_seed(seed),
            delay: Duration::from_millis(100),
            loss: 0.0,
            skew: Duration::ZERO,
            requests: 0,
        };
        for i in 0..nodes {
            let set = world.new_set(i);
            world.nodes.push(Node {
                set,
                generation: 0,
                up: false,
                registered_at: SystemTime::UNIX_EPOCH,
                sees: vec![true; nodes],
                tick: None,
                cancelled: HashSet::new(),
                suspects: HashSet::new(),
            });
        }
        world
    }

    fn new_set(&mut self, node: usize) -> PeerSet {
        let seed = self.rng.u64(..);
        PeerSet::new(
            name(node),
            PeerSetOptions {
                seed,
                ..PeerSetOptions::default()
            },
        )
    }

    /// Starts an endpoint, anew if it ran before; it knows nothing of before.
    pub(super) fn boot(&mut self, node: usize) {
        self.kill(node);
        let set = self.new_set(node);
        let at = SystemTime::UNIX_EPOCH + (self.now - self.start);
        let it = &mut self.nodes[node];
        (it.set, it.up, it.registered_at) = (set, true, at);
        it.cancelled.clear();
        it.suspects.clear();
        self.push(self.now, node, What::Tell(Event::Registered(at)));
        self.push(self.now + CHECK, node, What::Check);
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].up {
                self.tell_of(node, other);
                self.tell_of(other, node);
            }
        }
    }

    /// Starts those that are not running.
    pub(super) fn boot_the_dead(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up {
                self.boot(node);
            }
        }
    }

    /// Ends an endpoint without a word.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].generation += 1;
        for conn in self.conns.values_mut() {
            conn.from_has &= conn.from != node;
            conn.to_has &= conn.to != node;
        }
    }

    /// The registries lose an endpoint.
    pub(super) fn expire(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let at = self.soon();
            self.push(at, other, What::Tell(Event::Gone(id(node))));
        }
    }

    fn tell_of(&mut self, listener: usize, subject: usize) {
        if self.nodes[listener].sees[subject] {
            let mut endpoint = self.endpoint(subject);
            let skew = self.skew.mul_f64(self.rng.f64());
            endpoint.registered_at = endpoint.registered_at.map(|at| at + skew);
            let at = self.soon();
            self.push(at, listener, What::Tell(Event::Seen(endpoint)));
        }
    }

    fn endpoint(&self, node: usize) -> Endpoint {
        let registered_at = Some(self.nodes[node].registered_at);
        let url = format!("tcp://{node}");
        Endpoint {
            id: id(node),
            url,
            registered_at,
            node: None,
            labels: [(Endpoint::KEY, "key")].into_iter().collect(),
        }
    }

    fn soon(&mut self) -> Instant {
        self.now + self.delay.mul_f64(self.rng.f64())
    }

    fn push(&mut self, at: Instant, node: usize, what: What) {
        self.order += 1;
        let generation = match what {
            What::Request(..) => None,
            _ => Some(self.nodes[node].generation),
        };
        self.queue.push(Due {
            at,
            order: self.order,
            node,
            generation,
            what,
        });
    }

    /// Lets `time` go by.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let ticks = self
            .nodes
            .iter()
            .filter(|node| node.up)
            .filter_map(|node| node.tick);
        ticks.chain(self.queue.peek().map(|due| due.at)).min()
    }

    fn step(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].up && self.nodes[node].tick.is_some_and(|tick| tick <= self.now) {
                self.nodes[node].set.tick(self.now);
                self.act(node);
            }
        }
        while self.queue.peek().is_some_and(|due| due.at <= self.now) {
            let due = self.queue.pop().expect("it was peeked at");
            let it = &self.nodes[due.node];
            if due
                .generation
                .is_none_or(|generation| it.up && generation == it.generation)
            {
                self.happen(due.node, due.what);
            }
        }
    }

    fn happen(&mut self, node: usize, what: What) {
        match what {
            What::Answer(dial, conn) => self.answer(node, dial, conn),
            What::Check => self.check(node),
            What::Closed(conn) => {
                self.conns.get_mut(&conn).unwrap().to_has = false;
                self.tell(node, Event::InboundClosed(conn));
            }
            What::Evicted(conn) => {
                self.conns.get_mut(&conn).unwrap().from_has = false;
                self.tell(node, Event::OutgoingClosed(conn));
            }
            What::Request(from, dial, conn) => self.request(from, node, dial, conn),
            What::Tell(event) => self.tell(node, event),
        }
    }

    fn tell(&mut self, node: usize, event: Event) {
        self.nodes[node].set.handle(event, self.now);
        self.act(node);
    }

    fn request(&mut self, from: usize, to: usize, dial: DialId, conn: ConnectionId) {
        self.requests += 1;
        let back = self.soon();
        if !self.nodes[to].up {
            return self.fail(back, from, to, dial, Reason::Unavailable);
        }
        if self.nodes[to]
            .set
            .admit(&id(from), &conn, self.now)
            .is_err()
        {
            self.act(to);
            return self.fail(back, from, to, dial, Reason::Crossed);
        }
        self.conns.insert(
            conn.clone(),
            Conn {
                from,
                to,
                from_has: false,
                to_has: true,
            },
        );
        self.push(
            self.now + Duration::from_millis(5),
            to,
            What::Tell(Event::InboundUp(Link::new(conn.clone()))),
        );
        if self.lost() {
            self.fail(
                self.now + Duration::from_secs(15),
                from,
                to,
                dial,
                Reason::Deadline,
            );
            self.push(self.now + Duration::from_secs(15), to, What::Closed(conn));
        } else {
            self.push(back, from, What::Answer(dial, conn));
        }
        self.act(to);
    }

    fn answer(&mut self, node: usize, dial: DialId, conn: ConnectionId) {
        let to = self.conns[&conn].to;
        if self.nodes[node].cancelled.contains(&dial) {
            let at = self.soon();
            return self.push(at, to, What::Closed(conn));
        }
        self.conns.get_mut(&conn).unwrap().from_has = true;
        let link = Link::new(conn);
        self.tell(
            node,
            Event::Dialed {
                dial,
                peer: id(to),
                link,
            },
        );
    }

    fn fail(&mut self, at: Instant, node: usize, to: usize, dial: DialId, reason: Reason) {
        let error = reason.as_str().to_owned();
        self.push(
            at,
            node,
            What::Tell(Event::DialFailed {
                dial,
                peer: id(to),
                reason,
                error,
            }),
        );
    }

    fn lost(&mut self) -> bool {
        self.rng.f64() < self.loss
    }

    /// Probes: a link is dead if two checks in a row find no other end.
    fn check(&mut self, node: usize) {
        self.push(self.now + CHECK, node, What::Check);
        let links: Vec<_> = self.nodes[node]
            .set
            .links()
            .map(|(_, link, alive)| (link.connection.clone(), alive))
            .collect();
        for (connection, was_alive) in links {
            let conn = &self.conns[&connection];
            let works = conn.from_has && conn.to_has;
            let suspects = &mut self.nodes[node].suspects;
            let dead = !works && !suspects.insert(connection.clone());
            if works {
                suspects.remove(&connection);
            }
            if (works && !was_alive) || (dead && was_alive) {
                self.tell(
                    node,
                    Event::Health {
                        connection,
                        alive: works,
                        rtt: None,
                    },
                );
            }
        }
    }

    fn act(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].set.action() {
            self.perform(node, action);
        }
        self.nodes[node].tick = self.nodes[node].set.next_tick();
    }

    fn perform(&mut self, node: usize, action: Action) {
        match action {
            Action::Cancel { dial } => _ = self.nodes[node].cancelled.insert(dial),
            Action::Close { connection } => {
                let conn = self.conns.get_mut(&connection).unwrap();
                assert_eq!(conn.from, node, "only the dialler closes");
                conn.from_has = false;
                let (to, at) = (conn.to, self.soon());
                self.push(at, to, What::Closed(connection));
            }
            Action::Dial { dial, endpoint, .. } => {
                let to = index(&endpoint.id);
                let conn = ConnectionId::new(format!(
                    "{node}-{to}-{}-{dial}",
                    self.nodes[node].generation
                ))
                .unwrap();
                if self.lost() {
                    self.fail(
                        self.now + Duration::from_secs(15),
                        node,
                        to,
                        dial,
                        Reason::Deadline,
                    );
                } else {
                    let at = self.soon();
                    self.push(at, to, What::Request(node, dial, conn));
                }
            }
            Action::Evict { connection } => {
                let conn = self.conns.get_mut(&connection).unwrap();
                assert_eq!(conn.to, node, "only the dialled one evicts");
                conn.to_has = false;
                let (from, at) = (conn.from, self.soon());
                self.push(at, from, What::Evicted(connection));
            }
            Action::Install { .. } | Action::Withdraw { .. } => {}
        }
    }

    /// What is not as it shall be: pairs without exactly one link that both hold.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for one in 0..self.nodes.len() {
            for other in 0..one {
                let (a, b) = (&self.nodes[one], &self.nodes[other]);
                let wanted = a.up && b.up && (a.sees[other] || b.sees[one]);
                let held = |node: &Node, peer: usize| -> Vec<_> {
                    let links = node
                        .set
                        .links()
                        .filter(|(who, _, alive)| **who == id(peer) && *alive);
                    links.map(|(_, link, _)| link.connection.clone()).collect()
                };
                let (at_a, at_b) = (held(a, other), held(b, one));
                if wanted && !(at_a.len() == 1 && at_a == at_b) {
                    faults.push(format!("{one}-{other}: {at_a:?} and {at_b:?}"));
                }
            }
        }
        let held = self.conns.iter().flat_map(|(conn, ends)| {
            let ends = [(ends.from, ends.from_has), (ends.to, ends.to_has)];
            ends.into_iter().map(move |(node, has)| (conn, node, has))
        });
        let forgotten = |node: usize, conn| self.nodes[node].set.peer_of(conn).is_none();
        let leaked = held.filter(|(conn, node, has)| *has && forgotten(*node, conn));
        faults.extend(leaked.map(|(conn, node, _)| format!("{conn} is left at {node}")));
        faults
    }
}

pub(super) fn name(node: usize) -> EndpointName {
    EndpointName::new(format!("nse-{node:03}")).unwrap()
}

pub(super) fn id(node: usize) -> PeerId {
    PeerId::new(name(node), Domain::own())
}

fn index(id: &PeerId) -> usize {
    id.name
        .as_str()
        .strip_prefix("nse-")
        .unwrap()
        .parse()
        .unwrap()
}
