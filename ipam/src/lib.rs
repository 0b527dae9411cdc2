//! Prefixes for endpoints and addresses for connections.
//!
//! A network such as 10.0.0.0/16 is divided by a prefix server ([`server`]),
//! which leases a /24 of it to each endpoint. The endpoint's [`Prefixes`] keep
//! that lease, and its [`Addresses`], an element of its chain, give each
//! connection one address out of it, recorded in [`Leases`].
//!
//! Read first: [`pool::PrefixPool`], in which nothing overlaps, and
//! [`Addresses`].
//!
//! Limits: a network of length 0 is refused, and an endpoint's own address is
//! always the network address of its first prefix of the family.

mod addresses;
pub mod inspect;
mod leases;
mod metrics;
pub mod pool;
mod prefixes;
pub mod server;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::SystemTime;

pub use addresses::{AddressOptions, Addresses, Held, IsPeer};
pub use leases::{ClientId, Error, Former, Lease, LeaseError, LeaseOptions, Leases};
pub use metrics::{EndpointMetrics, ServerMetrics};
pub use prefixes::{
    FurtherError, Grant, LinkStatus, PrefixClient, PrefixError, PrefixOptions, PrefixServer,
    Prefixes, StoredPrefix,
};

/// Where the time is read; tests bring their own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}
