use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{ServerNumber, ServiceNumber, VipNumber};
use crate::service::{Identity, IdleTimeouts, Mode, OnEmpty, Policy, Server, ServiceName, Vip};

/// The difference between what a data plane holds and what it shall hold.
///
/// Applied in the order of the fields, which is the order in which nothing
/// ever names something that is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The balancer's own addresses, where they change.
    pub local: Option<Local>,
    /// Servers that are new, or whose parameters or weight change.
    pub put_servers: Vec<PutServer>,
    /// Services that are new, or whose settings or tables change.
    pub put_services: Vec<PutService>,
    /// VIPs that are new. Never in conflict with what stays, but perhaps with
    /// what `remove_vips` takes away: the two are one step.
    pub put_vips: Vec<PutVip>,
    /// VIPs that are gone. Flows that came by them are no longer balanced
    /// unless another VIP takes their packets.
    pub remove_vips: Vec<VipNumber>,
    /// Services that are gone; no VIP names them any more.
    pub remove_services: Vec<ServiceNumber>,
    /// Servers that are gone, with their flows; no table names them any more.
    pub remove_servers: Vec<ServerNumber>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Addresses of the balancer itself: the outer source of encapsulated packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Local {
    /// For servers with an IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// For servers with an IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// A server as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutServer {
    /// Its number.
    pub number: ServerNumber,
    /// The service it belongs to, put by this plan or an earlier one.
    pub service: ServiceNumber,
    /// Equal on all balancers.
    pub identity: Identity,
    /// Address, port, weight and what the mode needs. A weight of 0 may also
    /// mean that the server has left and only its known flows remain.
    pub server: Server,
    /// The mode of its service, so that one look-up suffices per packet.
    pub mode: Mode,
}

/// A service as it shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct PutService {
    /// Its number.
    pub number: ServiceNumber,
    /// Its name, for errors and status.
    pub name: ServiceName,
    /// Equal on all balancers.
    pub identity: Identity,
    /// How the server of a new flow is chosen.
    pub policy: Policy,
    /// How packets travel.
    pub mode: Mode,
    /// What happens while both tables are empty.
    pub on_empty: OnEmpty,
    /// See [`Service::affinity`](crate::service::Service::affinity).
    pub affinity: Option<Duration>,
    /// See [`Service::idle`](crate::service::Service::idle).
    pub idle: IdleTimeouts,
    /// Each server in turn, as often as its weight says, smoothly interleaved;
    /// empty when no server takes new flows.
    pub ring: Slots,
    /// The Maglev table; empty exactly when the ring is. Policies that hash
    /// choose by it; the others use it for flows they cannot remember and for
    /// packets in the middle of a flow that nobody knows.
    pub hash: Slots,
}

/// A VIP as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutVip {
    /// Its number.
    pub number: VipNumber,
    /// Equal on all balancers.
    pub identity: Identity,
    /// The packets.
    pub vip: Vip,
    /// Whose they are.
    pub service: ServiceNumber,
}

/// A table of servers by slot, shared and never changed once made.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Slots(Arc<[ServerNumber]>);

impl Slots {
    /// The slots in order.
    #[must_use]
    pub fn new(slots: impl IntoIterator<Item = ServerNumber>) -> Self {
        Self(slots.into_iter().collect())
    }

    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no slot at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The server of a slot.
    #[must_use]
    pub fn at(&self, slot: usize) -> Option<ServerNumber> {
        self.0.get(slot).copied()
    }

    /// All servers in the order of the slots.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ServerNumber> + '_ {
        self.0.iter().copied()
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots", self.0.len())
    }
}

/// What applying a plan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Slots and entries that were written.
    pub writes: usize,
    /// Flows that were forgotten with the servers and VIPs removed.
    pub flows_forgotten: u64,
}
