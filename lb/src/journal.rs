//! Flow records for the other balancers of a service.
//!
//! Read first: [`Exchange`], the protocol without any I/O, and [`Link`], which
//! carries it over UDP. A balancer tells its peers every flow that begins, in
//! batches; every [`REFRESH`] it tells those that had packets since; and whoever
//! joins, or has lost a datagram, asks for all. So a balancer may die at any
//! time and the others know its flows.
//!
//! A record names its server by [`Identity`], since numbers differ between
//! balancers, and carries the age of the flow's last packet, so that balancers
//! that repeat each other keep nothing alive.
//!
//! Limits: what was not sent yet when a balancer dies is lost, one interval at
//! most. Datagrams are neither encrypted nor signed; they are taken from the
//! configured peers' addresses alone, so they belong on a network of the
//! balancers' own. Per peer at most [`QUEUE`] datagrams wait; then the oldest
//! goes, and the peer will ask for all.

mod exchange;
mod link;
mod record;
#[cfg(test)]
mod tests;
mod wire;

pub use exchange::{Exchange, QUEUE, Received, Tally};
pub use link::{Error, Link, REFRESH};
pub use record::Record;

pub use crate::service::Identity;
