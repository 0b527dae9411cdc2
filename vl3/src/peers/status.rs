use std::time::{Duration, Instant};

use carrick_types::{ConnectionId, Prefix};
use serde::Serialize;

use super::peer::{LinkEnd, Peer};
use super::{PeerId, PeerSet};

/// How it stands with one peer, for people and tools.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its name, with `@domain` if it is another's.
    pub name: PeerId,
    /// Its domain, if it is another's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where it listens, while it is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How it is.
    pub state: PeerState,
    /// Who dialled the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The link's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Prefixes that are reached through it.
    pub prefixes: Vec<Prefix>,
    /// Round trip time of the last answered probe, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Dials so far.
    pub attempts: u32,
    /// Why the last dial failed, until one works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How long it has been so, in milliseconds.
    pub since_ms: u64,
}

/// How it is with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Its link's data path does not work.
    Dead,
    /// A dial is in flight.
    Dialing,
    /// The registry lost it, its link still works.
    Gone,
    /// Its link works.
    Linked,
    /// It is up to the peer to dial, or a dial failed and is due again.
    Waiting,
}

/// Who dialled a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outgoing,
}

impl PeerSet {
    /// How it stands with each peer, in order of their names.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<PeerStatus> {
        self.peers
            .iter()
            .map(|(id, peer)| peer.status(id, now))
            .collect()
    }

    /// How many peers are in each state.
    #[must_use]
    pub fn linked(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.links().any(|end| end.up && end.alive()))
            .count()
    }
}

impl Peer {
    fn status(&self, id: &PeerId, now: Instant) -> PeerStatus {
        let end = self
            .links()
            .find(|end| end.alive())
            .or_else(|| self.links().next());
        PeerStatus {
            name: id.clone(),
            domain: id.domain.name().map(str::to_owned),
            url: self.endpoint.as_ref().map(|endpoint| endpoint.url.clone()),
            state: self.state(end),
            direction: end.map(|end| self.direction(end)),
            connection: end.map(|end| end.link.connection.clone()),
            prefixes: end.map(|end| end.link.prefixes.clone()).unwrap_or_default(),
            rtt_us: end
                .and_then(|end| end.rtt)
                .map(|rtt| rtt.as_micros().try_into().unwrap_or(u64::MAX)),
            attempts: self.attempts,
            last_error: self.last_error.clone(),
            since_ms: millis(now.saturating_duration_since(self.since)),
        }
    }

    fn state(&self, end: Option<&LinkEnd>) -> PeerState {
        match end {
            Some(end) if end.up && end.alive() && self.gone_at.is_some() => PeerState::Gone,
            Some(end) if end.up && end.alive() => PeerState::Linked,
            _ if self.dialing.is_some() => PeerState::Dialing,
            Some(end) if !end.alive() => PeerState::Dead,
            _ => PeerState::Waiting,
        }
    }

    fn direction(&self, end: &LinkEnd) -> Direction {
        let outgoing = self
            .outgoing
            .as_ref()
            .is_some_and(|out| std::ptr::eq(out, end));
        if outgoing {
            Direction::Outgoing
        } else {
            Direction::Inbound
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
