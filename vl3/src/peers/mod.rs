//! The other endpoints of the service: who they are, and one link to each.

mod backoff;
mod driver;
mod endpoint;
mod event;
mod peer;
mod set;
mod settle;
mod status;
mod told;

pub use driver::{DialError, Dialer, Discovery, Peers};
pub use endpoint::{Domain, Endpoint, Link, PeerId};
pub use event::{Action, DialId, Event, Reason, Refusal};
pub use set::{PeerSet, PeerSetOptions};
pub use status::{Direction, PeerState, PeerStatus};

#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod mesh_tests;
#[cfg(test)]
mod set_tests;
#[cfg(test)]
mod sim;
