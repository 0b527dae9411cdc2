//! The network service endpoint: configuration, the one place where the chain
//! is listed, the edge.

pub mod config;

pub use config::Config;
