use std::time::{Duration, Instant};

use carrick_types::ConnectionId;

use super::backoff::Backoff;
use super::peer::{LinkEnd, Peer};
use super::{Action, DialId, Domain, Endpoint, Link, PeerId, PeerSet, Reason};

/// What the registries say.
impl PeerSet {
    pub(super) fn seen(&mut self, endpoint: Endpoint, now: Instant) {
        if endpoint.id.name == self.name || !self.room_for(&endpoint.id) {
            return;
        }
        let grace = self.options.grace;
        let peer = self
            .peers
            .entry(endpoint.id.clone())
            .or_insert_with(|| Peer::new(now, grace));
        let old = peer.endpoint.as_ref();
        let moved = old.is_none_or(|old| {
            old.url != endpoint.url || old.registered_at != endpoint.registered_at
        });
        peer.endpoint = Some(endpoint);
        peer.stale = false;
        peer.gone_at = None;
        if moved {
            peer.backoff = Backoff::new();
            peer.was_linked = peer.linked();
            peer.grace_until = now + grace;
            let outdated = peer.dialing.take();
            self.actions
                .extend(outdated.map(|dial| Action::Cancel { dial }));
        }
    }

    pub(super) fn gone(&mut self, id: &PeerId, now: Instant) {
        if let Some(peer) = self
            .peers
            .get_mut(id)
            .filter(|peer| peer.endpoint.is_some())
        {
            peer.endpoint = None;
            peer.gone_at = Some(now);
        }
    }

    pub(super) fn resync(&mut self, domain: Domain, now: Instant) {
        for (id, peer) in &mut self.peers {
            peer.stale |= id.domain == domain;
        }
        self.sweeps.insert(domain, now + self.options.sync_grace);
    }

    pub(super) fn synced(&mut self, domain: &Domain, now: Instant) {
        self.sweeps.remove(domain);
        let stale =
            |(id, peer): (&PeerId, &Peer)| (peer.stale && id.domain == *domain).then(|| id.clone());
        let gone: Vec<_> = self.peers.iter().filter_map(stale).collect();
        for id in gone {
            self.gone(&id, now);
        }
    }
}

/// What became of links.
impl PeerSet {
    pub(super) fn dialed(&mut self, dial: DialId, id: &PeerId, link: Link, now: Instant) {
        let wins = self.wins(id);
        let Some(peer) = self
            .peers
            .get_mut(id)
            .filter(|peer| peer.dialing == Some(dial))
        else {
            self.actions.push_back(Action::Close {
                connection: link.connection,
            });
            return;
        };
        peer.dialing = None;
        peer.since = now;
        if peer.inbound.as_ref().is_some_and(LinkEnd::alive) && !wins {
            self.actions.push_back(Action::Close {
                connection: link.connection,
            });
            return;
        }
        peer.backoff = Backoff::new();
        peer.was_linked = true;
        peer.last_error = None;
        let connection = link.connection.clone();
        let end = LinkEnd::new(link, true, peer.registered_at());
        let (old, inbound) = (peer.outgoing.replace(end), peer.inbound.take());
        self.connections.insert(connection.clone(), id.clone());
        // Both led to the same prefixes; the one that goes must not have the last word.
        let replaces = old.is_some() || inbound.is_some();
        self.drop_outgoing(old.filter(|old| old.link.connection != connection));
        self.drop_inbound(inbound);
        if replaces {
            self.actions.push_back(Action::Install { connection });
        }
    }

    pub(super) fn dial_failed(
        &mut self,
        dial: DialId,
        id: &PeerId,
        reason: Reason,
        error: String,
        now: Instant,
    ) {
        let Some(peer) = self
            .peers
            .get_mut(id)
            .filter(|peer| peer.dialing == Some(dial))
        else {
            return;
        };
        peer.dialing = None;
        peer.since = now;
        peer.last_error = Some(error);
        let quick = peer.was_linked || reason == Reason::Crossed;
        let cap = if quick {
            self.options.return_cap
        } else {
            self.options.backoff_cap
        };
        peer.backoff.fail(now, cap, &mut self.rng);
    }

    pub(super) fn inbound_up(&mut self, link: Link, now: Instant) {
        let Some(peer) = self.owner(&link.connection) else {
            return;
        };
        peer.was_linked = true;
        peer.backoff = Backoff::new();
        peer.last_error = None;
        if let Some(end) = peer.end_mut(&link.connection) {
            let was_up = std::mem::replace(&mut end.up, true);
            end.link = link;
            if !was_up {
                peer.since = now;
            }
        }
    }

    pub(super) fn inbound_closed(&mut self, connection: &ConnectionId, now: Instant) {
        let grace = self.options.grace;
        let Some(peer) = self.owner(connection) else {
            return;
        };
        peer.inbound = None;
        peer.since = now;
        peer.grace_until = now + grace;
        self.after_loss(connection, now);
    }

    pub(super) fn outgoing_closed(&mut self, connection: &ConnectionId, now: Instant) {
        let Some(peer) = self.owner(connection) else {
            return;
        };
        peer.outgoing = None;
        peer.since = now;
        self.after_loss(connection, now);
    }

    /// A closed link is not dialled anew at once: its other end had a reason.
    pub(super) fn after_loss(&mut self, connection: &ConnectionId, now: Instant) {
        let id = self
            .connections
            .remove(connection)
            .expect("the caller found its owner");
        let cap = self.options.return_cap;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.backoff.fail(now, cap, &mut self.rng);
        }
    }

    pub(super) fn health(
        &mut self,
        connection: &ConnectionId,
        alive: bool,
        rtt: Option<Duration>,
        now: Instant,
    ) {
        let grace = self.options.grace;
        let Some(peer) = self.owner(connection) else {
            return;
        };
        let Some(end) = peer.end_mut(connection) else {
            return;
        };
        end.rtt = rtt.or(end.rtt);
        if end.alive() == alive {
            return;
        }
        end.dead_since = (!alive).then_some(now);
        peer.since = now;
        peer.grace_until = now + grace;
        peer.backoff = Backoff::new();
        let connection = connection.clone();
        self.actions.push_back(if alive {
            Action::Install { connection }
        } else {
            Action::Withdraw { connection }
        });
    }

    pub(super) fn owner(&mut self, connection: &ConnectionId) -> Option<&mut Peer> {
        let id = self.connections.get(connection)?;
        self.peers.get_mut(id)
    }
}
