//! Services, VIPs and servers as typed objects.
//!
//! Read first: [`Service`], which is what a user asks for, and [`Vip`], which
//! says which packets belong to it. Nothing here does I/O. A [`Service`] may be
//! made in any state; [`Service::check`] tells everything that is wrong with
//! it, and nothing that fails it reaches a data plane.

mod check;
mod identity;
mod mac;
mod mode;
mod policy;
mod ports;
mod protocols;
mod server;
mod timeouts;
mod vip;

pub use check::{Problem, Problems};
pub use identity::Identity;
pub use mac::MacAddr;
pub use mode::{Dscp, Mode, Snat};
pub use policy::{Policy, TableSize};
pub use ports::{PortRange, Ports};
pub use protocols::{Protocol, Protocols};
pub use server::{Server, ServerId};
pub use timeouts::IdleTimeouts;
pub use vip::Vip;

pub use carrick_types::{ServiceName, Vni};

use std::time::Duration;

/// What is done with packets of a service that has no server for new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnEmpty {
    /// Silence, counted.
    Drop,
    /// A TCP reset, or ICMP port unreachable for everything else.
    #[default]
    Reject,
}

/// One balanced service: what belongs to it, and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique on a balancer and equal on all balancers of it.
    pub name: ServiceName,
    /// The packets that belong to it; at least one.
    pub vips: Vec<Vip>,
    /// How the server of a new flow is chosen.
    pub policy: Policy,
    /// How a packet gets to its server.
    pub mode: Mode,
    /// The servers, each with its own id; may be empty.
    pub servers: Vec<Server>,
    /// What happens while no server takes new flows.
    pub on_empty: OnEmpty,
    /// New flows of a client go to its last server for this long after the
    /// last packet of any of its flows; a client is a source address.
    pub affinity: Option<Duration>,
    /// How long flows are remembered without a packet.
    pub idle: IdleTimeouts,
}

impl Service {
    /// A service of that name with the defaults: weighted round robin, L2, no
    /// affinity, reject when empty; no VIP and no server yet.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            vips: Vec::new(),
            policy: Policy::default(),
            mode: Mode::L2,
            servers: Vec::new(),
            on_empty: OnEmpty::default(),
            affinity: None,
            idle: IdleTimeouts::default(),
        }
    }

    /// Servers that take new flows: those with a weight above 0.
    pub fn active(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.weight > 0)
    }

    /// The identity of the service, equal on every balancer.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::of(&[self.name.as_str()])
    }

    /// The identity of one of its servers, equal on every balancer: made of
    /// the two names alone, so that a server keeps its flows when its address
    /// or weight changes.
    #[must_use]
    pub fn server_identity(&self, server: &ServerId) -> Identity {
        Identity::of(&[self.name.as_str(), server.as_str()])
    }
}
