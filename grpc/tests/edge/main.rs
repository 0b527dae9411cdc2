//! The edge over real sockets: what a peer sees.

mod common;
mod descriptors;
mod namespaces;
mod policies;
mod services;
mod sockets;
mod standard;
mod traces;
