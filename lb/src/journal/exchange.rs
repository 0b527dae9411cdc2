use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Record;
use super::wire::{Body, Datagram, Kind};

/// Most datagrams that wait for one peer: about 10 MB.
pub const QUEUE: usize = 8_192;

/// How long after asking for all a balancer asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The protocol of one balancer with its peers: takes records, datagrams and
/// the time, and says what to send and what to remember.
#[derive(Debug)]
pub struct Exchange {
    run: u64,
    peers: BTreeMap<SocketAddr, Peer>,
    tally: Tally,
}

/// What went over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Tally {
    /// Records sent, to all peers together.
    pub sent: u64,
    /// Records received.
    pub received: u64,
    /// Datagrams that are no good, or of nobody we know.
    pub refused: u64,
    /// Datagrams of peers that did not arrive.
    pub missed: u64,
    /// Records that went since a peer's queue was full.
    pub overflowed: u64,
    /// Flows that the data plane overwrote before they could be told.
    pub overwritten: u64,
    /// Flows remembered for others.
    pub inserted: u64,
    /// Records of servers that are not here.
    pub unknown_server: u64,
}

/// What a datagram brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Flows to remember.
    pub records: Vec<Record>,
    /// The peer wants all flows: [`Exchange::answer`].
    pub asked: bool,
}

#[derive(Debug, Default)]
struct Peer {
    queue: VecDeque<Body>,
    sent: u64,
    /// Its run, and the sequence it sends next.
    heard: Option<(u64, u64)>,
    /// All was told, with nothing missing.
    joined: bool,
    /// Something is missing since it was asked.
    gap: bool,
    asked: Option<Instant>,
}

impl Exchange {
    /// A balancer with these peers. `run` differs from that of every earlier
    /// process, so that peers notice a restart.
    #[must_use]
    pub fn new(run: u64, peers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            run,
            peers: peers
                .into_iter()
                .map(|peer| (peer, Peer::default()))
                .collect(),
            tally: Tally::default(),
        }
    }

    /// Tells all peers these flows.
    pub fn tell(&mut self, records: impl IntoIterator<Item = Record>) {
        let bodies = Body::of(records);
        for peer in self.peers.values_mut() {
            self.tally.overflowed += peer.push(bodies.iter().cloned());
        }
    }

    /// Tells a peer that asked all flows.
    pub fn answer(&mut self, peer: SocketAddr, records: impl IntoIterator<Item = Record>) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            let end = std::iter::once(Body::bare(Kind::End));
            self.tally.overflowed += peer.push(Body::of(records).into_iter().chain(end));
        }
    }

    /// Takes a datagram.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8]) -> Received {
        let known = self.peers.get_mut(&from);
        let Some((peer, datagram)) = known.zip(Datagram::read(bytes)) else {
            self.tally.refused += 1;
            return Received::default();
        };
        self.tally.missed += peer.hear(datagram.run, datagram.sequence);
        self.tally.received += datagram.records.len() as u64;
        if datagram.kind == Kind::End {
            peer.joined = !peer.gap;
            // What was missing is asked for once more.
            peer.asked = peer.asked.filter(|_| peer.joined);
        }
        Received {
            records: datagram.records,
            asked: datagram.kind == Kind::Ask,
        }
    }

    /// What to send now: at most `each` datagrams to each peer.
    pub fn send(&mut self, now: Instant, each: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        for (address, peer) in &mut self.peers {
            peer.ask(now);
            for body in peer.queue.drain(..each.min(peer.queue.len())) {
                peer.sent += 1;
                self.tally.sent += u64::from(body.count());
                out.push((*address, body.datagram(self.run, peer.sent)));
            }
        }
        out
    }

    /// Whether something waits to be sent.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.peers.values().any(|peer| !peer.queue.is_empty())
    }

    /// Peers that have told all their flows.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.peers.values().filter(|peer| peer.joined).count()
    }

    /// All peers.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// What went over the wire so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The counts that whoever applies records adds to.
    pub fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }
}

impl Peer {
    /// Queues bodies; gives the number of records that had to go for them.
    fn push(&mut self, bodies: impl Iterator<Item = Body>) -> u64 {
        let mut gone = 0;
        for body in bodies {
            if self.queue.len() == QUEUE {
                gone += self
                    .queue
                    .pop_front()
                    .map_or(0, |body| u64::from(body.count()));
                // The peer sees a sequence missing and asks for all.
                self.sent += 1;
            }
            self.queue.push_back(body);
        }
        gone
    }

    /// Notes a sequence; gives the number of those before it that are missing.
    fn hear(&mut self, run: u64, sequence: u64) -> u64 {
        let expected = match self.heard {
            Some((known, next)) if known == run => next,
            // A new run begins at 1; what it knows it tells when asked.
            _ => {
                self.joined = false;
                self.gap = false;
                self.asked = None;
                sequence
            }
        };
        let missing = sequence.saturating_sub(expected);
        self.heard = Some((run, expected.max(sequence + 1)));
        if missing > 0 {
            self.gap = true;
            self.joined = false;
        }
        missing
    }

    /// Asks for all, where that is due.
    fn ask(&mut self, now: Instant) {
        let waited = |asked| now.saturating_duration_since(asked) >= ASK_AGAIN;
        if !self.joined && self.asked.is_none_or(waited) {
            self.asked = Some(now);
            self.gap = false;
            self.queue.push_front(Body::bare(Kind::Ask));
        }
    }
}
