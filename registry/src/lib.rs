//! Network services and their endpoints: a registry that stands alone, and the
//! client of ours and of NSM's.
//!
//! Read first: [`Registry`], the store without I/O whose rules are those of NSM
//! (`registry.NetworkServiceRegistry`, `registry.NetworkServiceEndpointRegistry`),
//! and [`Client`], with whose [`Registration`] an endpoint stays known and with
//! whose [`EndpointWatch`] it learns of others.
//!
//! Limits: one domain, as names with `@domain` are kept as they are and not
//! sent on; who may write is decided by name ownership alone; entries are at
//! most 64 KiB.

mod backoff;
mod client;
mod error;
mod matching;
mod metadata;
mod model;
mod registration;
mod server;
mod socket;
mod store;
mod watch;
mod watching;
mod wire;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions};
pub use error::Error;
pub use matching::matching;
pub use model::{Destination, Endpoint, EndpointQuery, Match, Service, ServiceQuery};
pub use registration::{Registration, RegistrationOptions, RegistrationState};
pub use server::{Server, ServerOptions};
pub use store::{Change, Limits, Now, Refused, Registry};
pub use watching::{EndpointWatch, Event};
