//! The network service client: requests services for a pod or host and keeps
//! them alive.
//!
//! Read first: [`Config`], and [`Nsc`], which [`run`] runs as a process.
//!
//! Limits: the `KERNEL` mechanism only; plaintext only.

mod awareness;
mod client;
mod config;
mod dns;
mod error;
mod excluded;
mod kept;
mod liveness;
mod metrics;
mod service;
mod status;
mod tokens;
mod wanted;

pub use client::{Nsc, run};
pub use config::{Config, LivenessTimes, VARIABLES};
pub use dns::{LocalDns, Switch};
pub use error::Error;
pub use service::Wanted;
pub use status::{ConnectionState, ConnectionStatus, DnsStatus, Status};
