//! The network service client: requests services for a pod or host and keeps
//! them alive.
//!
//! Read first: [`Config`], and [`Wanted`], a service as it is asked for.
//!
//! Limits: the `KERNEL` mechanism only.

mod config;
mod service;

pub use config::{Config, LivenessTimes, VARIABLES};
pub use service::Wanted;
