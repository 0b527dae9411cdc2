//! The routed virtual layer 3 network: peers, their prefixes, workload names, MTU.
//!
//! Read first: [`peers::PeerSet`], which decides on the links to the other
//! endpoints, and [`Vl3`], the network that elements, name server and the
//! peers' driver share.
//!
//! Limits: no transit, an endpoint announces its own prefixes only; every
//! endpoint of a service has a link to every other, 1024 of them unless told
//! otherwise; endpoints of different domains must not bear the same name as
//! ourselves.

pub mod dns;
pub mod elements;
pub mod filter;
mod handle;
pub mod health;
mod metrics;
pub mod mtu;
pub mod peers;
pub mod recognise;
#[cfg(test)]
mod testing;

pub use handle::{Verify, Vl3, Vl3Options};
pub use metrics::{Cause, Metrics};
