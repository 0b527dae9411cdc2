//! What clients get of an endpoint that is its own forwarder, with real
//! programs in namespaces. Needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "clients/addresses.rs"]
mod addresses;
#[path = "clients/balanced.rs"]
mod balanced;
#[path = "clients/container.rs"]
mod container;
#[path = "clients/dns.rs"]
mod dns;
#[path = "clients/dual.rs"]
mod dual;
#[path = "clients/ends.rs"]
mod ends;
#[path = "clients/hop.rs"]
mod hop;
#[path = "clients/leases.rs"]
mod leases;
#[path = "clients/mtu.rs"]
mod mtu;
#[path = "clients/names.rs"]
mod names;
#[path = "clients/prefixes.rs"]
mod prefixes;
#[path = "clients/registration.rs"]
mod registration;
#[path = "clients/renumbering.rs"]
mod renumbering;
#[path = "clients/restarts.rs"]
mod restarts;
#[path = "clients/zero.rs"]
mod zero;
