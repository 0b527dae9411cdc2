use std::time::{Duration, Instant, SystemTime};

use carrick_types::ConnectionId;

use super::backoff::Backoff;
use super::{DialId, Endpoint, Link};

/// What the set knows of one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its registration; `None` if no registry has it (any more).
    pub(crate) endpoint: Option<Endpoint>,
    /// Not repeated yet since its registry began to tell all.
    pub(crate) stale: bool,
    /// When the registry lost it.
    pub(crate) gone_at: Option<Instant>,
    /// When we may dial although it is up to the peer.
    pub(crate) grace_until: Instant,
    /// The dial in flight.
    pub(crate) dialing: Option<DialId>,
    pub(crate) outgoing: Option<LinkEnd>,
    pub(crate) inbound: Option<LinkEnd>,
    pub(crate) backoff: Backoff,
    /// It was linked since it registered, so it is worth asking often.
    pub(crate) was_linked: bool,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    /// When its state last changed.
    pub(crate) since: Instant,
}

/// One link to a peer.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    pub(crate) link: Link,
    /// Its chain has been through.
    pub(crate) up: bool,
    /// When its data path was found dead.
    pub(crate) dead_since: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    /// Registration of the peer it was made with: a later one is another process.
    pub(crate) instance: Option<SystemTime>,
}

impl LinkEnd {
    pub(crate) fn new(link: Link, up: bool, instance: Option<SystemTime>) -> Self {
        Self {
            link,
            up,
            dead_since: None,
            rtt: None,
            instance,
        }
    }

    pub(crate) fn alive(&self) -> bool {
        self.dead_since.is_none()
    }
}

impl Peer {
    pub(crate) fn new(now: Instant, grace: Duration) -> Self {
        Self {
            endpoint: None,
            stale: false,
            gone_at: None,
            grace_until: now + grace,
            dialing: None,
            outgoing: None,
            inbound: None,
            backoff: Backoff::new(),
            was_linked: false,
            attempts: 0,
            last_error: None,
            since: now,
        }
    }

    pub(crate) fn registered_at(&self) -> Option<SystemTime> {
        self.endpoint.as_ref()?.registered_at
    }

    /// Its links, the outgoing one first.
    pub(crate) fn links(&self) -> impl Iterator<Item = &LinkEnd> {
        self.outgoing.iter().chain(&self.inbound)
    }

    pub(crate) fn end_mut(&mut self, connection: &ConnectionId) -> Option<&mut LinkEnd> {
        self.outgoing
            .iter_mut()
            .chain(&mut self.inbound)
            .find(|end| end.link.connection == *connection)
    }

    /// Whether a link to it works, or is being made by it.
    pub(crate) fn linked(&self) -> bool {
        self.links().any(LinkEnd::alive)
    }
}
