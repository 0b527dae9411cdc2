use std::time::{Duration, SystemTime};

use carrick_types::ConnectionId;

use super::{Domain, Endpoint, Link, PeerId};

/// Counts the dials of a [`PeerSet`](super::PeerSet); tells a late answer from the awaited one.
pub type DialId = u64;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A dial was answered: the link is up.
    Dialed {
        /// Which dial.
        dial: DialId,
        /// To whom.
        peer: PeerId,
        /// What came of it.
        link: Link,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Which dial.
        dial: DialId,
        /// To whom.
        peer: PeerId,
        /// Why.
        reason: Reason,
        /// The same in words, for the status.
        error: String,
    },
    /// A registry no longer has an endpoint.
    Gone(PeerId),
    /// Probes of a link say whether its data path works.
    Health {
        /// The link's connection.
        connection: ConnectionId,
        /// Whether it works.
        alive: bool,
        /// Round trip time of the last answered probe.
        rtt: Option<Duration>,
    },
    /// An inbound link is closed, whoever closed it.
    InboundClosed(ConnectionId),
    /// An inbound link that was admitted is up, or was refreshed.
    InboundUp(Link),
    /// An outgoing link was closed by the peer, or given up by its keeper.
    OutgoingClosed(ConnectionId),
    /// The own endpoint is registered, since when.
    Registered(SystemTime),
    /// A registry begins to tell all it has again; what it does not repeat is gone.
    Resync(Domain),
    /// A registry has an endpoint.
    Seen(Endpoint),
    /// A registry has told all it has.
    Synced(Domain),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give up a dial that has not been answered.
    Cancel {
        /// Which dial.
        dial: DialId,
    },
    /// Close an outgoing link.
    Close {
        /// Its connection.
        connection: ConnectionId,
    },
    /// Connect to a peer; answer with [`Event::Dialed`] or [`Event::DialFailed`].
    Dial {
        /// Number of the dial.
        dial: DialId,
        /// Whom to dial.
        endpoint: Endpoint,
        /// How often it was tried since it last worked, from 1.
        attempt: u32,
    },
    /// Close an inbound link.
    Evict {
        /// Its connection.
        connection: ConnectionId,
    },
    /// Send packets for the peer's prefixes over the link again.
    Install {
        /// Its connection.
        connection: ConnectionId,
    },
    /// Send nothing over the link but probes.
    Withdraw {
        /// Its connection.
        connection: ConnectionId,
    },
}

/// Why a dial failed; the label of a metric, hence few and fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The peer is dialling us, or has a link already.
    Crossed,
    /// No answer in time.
    Deadline,
    /// The peer does not let us in.
    Denied,
    /// The answer could not be used.
    Invalid,
    /// Nobody is there, or not ready.
    Unavailable,
}

impl Reason {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Crossed,
        Self::Deadline,
        Self::Denied,
        Self::Invalid,
        Self::Unavailable,
    ];

    /// The word in metrics and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crossed => "crossed",
            Self::Deadline => "deadline",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why an inbound link is not admitted. Trying again later may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is a working link to this peer already.
    #[error("there is a working link to this endpoint already")]
    AlreadyLinked,
    /// Both ends dialled at once, and the other dial is the one that counts.
    #[error("both endpoints dial each other, and this dial yields")]
    Crossed,
    /// There are as many peers as there may be.
    #[error("there are {0} peers already, which is the limit")]
    Full(usize),
    /// It has our own name.
    #[error("it bears this endpoint's own name")]
    Itself,
}
