//! The edge over real sockets: what a peer sees.

mod common;
mod services;
mod sockets;
mod standard;
mod traces;
