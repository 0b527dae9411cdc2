//! The network service endpoint: configuration, the one place where the chain
//! is listed, the edge.
//!
//! Read first: [`Config`] and [`run`]. The serving chain stands in `serving.rs`,
//! the one towards peers in `peering.rs`.
//!
//! Limits: one process serves one set of network services with one set of
//! prefixes.

pub mod config;
mod discovery;
mod error;
mod journal;
mod metrics;
mod names;
mod parts;
mod peering;
mod policies;
mod router;
mod run;
mod serving;
mod status;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::Error;
pub use run::run;
