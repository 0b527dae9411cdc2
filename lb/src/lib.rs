//! Load balancing: VIPs, servers, policies, and the data planes that balance.

pub mod config;
pub mod control;
pub mod dataplane;
pub mod journal;
pub mod kernel;
pub mod members;
pub mod model;
pub mod nft;
pub mod packet;
pub mod policy;
pub mod preflight;
pub mod service;
pub mod tables;
pub mod unwrap;
