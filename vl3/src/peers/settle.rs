use std::time::Instant;

use super::peer::{LinkEnd, Peer};
use super::{Action, PeerId, PeerSet};

impl PeerSet {
    /// When to call [`PeerSet::tick`] at the latest; `None` if nothing is due
    /// before something happens.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        let room = self.dials_in_flight() < self.options.max_dials;
        let peers = self.peers.iter().flat_map(|(id, peer)| {
            let dial = self.dial_at(id, peer).filter(|_| room);
            [dial, self.gone_due(peer), self.dead_due(peer)]
        });
        let sweeps = self.sweeps.values().copied().map(Some);
        peers.chain(sweeps).flatten().min()
    }

    /// Brings what is closer to what is wanted, as far as it may be done now.
    pub(super) fn settle(&mut self, now: Instant) {
        self.drop_dead_links(now);
        self.drop_gone_peers(now);
        self.dial_due_peers(now);
    }

    fn drop_dead_links(&mut self, now: Instant) {
        let due = |peer: &Peer| self.dead_due(peer).is_some_and(|at| at <= now);
        for id in self.matching(due) {
            let peer = self.peers.get_mut(&id).expect("it was matched just now");
            let dead = |end: &mut LinkEnd| !end.alive();
            let (outgoing, inbound) = (peer.outgoing.take_if(dead), peer.inbound.take_if(dead));
            self.drop_outgoing(outgoing);
            self.drop_inbound(inbound);
        }
    }

    fn drop_gone_peers(&mut self, now: Instant) {
        let due = |peer: &Peer| self.gone_due(peer).is_some_and(|at| at <= now);
        let unknown = |peer: &Peer| peer.endpoint.is_none() && peer.links().next().is_none();
        for id in self.matching(|peer| due(peer) || unknown(peer)) {
            let peer = self.peers.remove(&id).expect("it was matched just now");
            self.actions
                .extend(peer.dialing.map(|dial| Action::Cancel { dial }));
            self.drop_outgoing(peer.outgoing);
            self.drop_inbound(peer.inbound);
        }
    }

    fn dial_due_peers(&mut self, now: Instant) {
        let room = self
            .options
            .max_dials
            .saturating_sub(self.dials_in_flight());
        let at = |(id, peer): (&PeerId, &Peer)| Some((self.dial_at(id, peer)?, id.clone()));
        let mut due: Vec<_> = self
            .peers
            .iter()
            .filter_map(at)
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort_unstable();
        for (_, id) in due.into_iter().take(room) {
            self.dial(&id, now);
        }
    }

    fn dial(&mut self, id: &PeerId, now: Instant) {
        let peer = self.peers.get_mut(id).expect("it is due, so it is there");
        let endpoint = peer
            .endpoint
            .clone()
            .expect("only registered peers are due");
        self.dials += 1;
        peer.dialing = Some(self.dials);
        peer.attempts = peer.attempts.saturating_add(1);
        peer.since = now;
        let attempt = peer.backoff.failures().saturating_add(1);
        self.actions.push_back(Action::Dial {
            dial: self.dials,
            endpoint,
            attempt,
        });
    }

    /// When a peer is to be dialled; `None` if not at all as things stand.
    fn dial_at(&self, id: &PeerId, peer: &Peer) -> Option<Instant> {
        self.registered_at?;
        peer.endpoint.as_ref()?;
        if peer.dialing.is_some() || peer.linked() {
            return None;
        }
        let ours = self.is_newer_than(id, peer) || peer.outgoing.is_some();
        let earliest = peer.backoff.not_before().unwrap_or(peer.since);
        Some(if ours {
            earliest
        } else {
            earliest.max(peer.grace_until)
        })
    }

    fn is_newer_than(&self, id: &PeerId, peer: &Peer) -> bool {
        match (self.registered_at, peer.registered_at()) {
            (Some(own), Some(theirs)) if own != theirs => own > theirs,
            _ => self.name > id.name,
        }
    }

    /// When a peer that its registry lost is dropped: at once if no link of it works.
    fn gone_due(&self, peer: &Peer) -> Option<Instant> {
        let gone = peer.gone_at?;
        Some(if peer.linked() {
            gone + self.options.gone_grace
        } else {
            gone
        })
    }

    /// When the first dead link of a peer is dropped.
    fn dead_due(&self, peer: &Peer) -> Option<Instant> {
        let dead = peer.links().filter_map(|end| end.dead_since).min()?;
        Some(dead + self.options.dead_grace)
    }

    fn dials_in_flight(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.dialing.is_some())
            .count()
    }

    fn matching(&self, test: impl Fn(&Peer) -> bool) -> Vec<PeerId> {
        self.peers
            .iter()
            .filter(|(_, peer)| test(peer))
            .map(|(id, _)| id.clone())
            .collect()
    }
}
