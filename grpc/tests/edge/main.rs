//! The edge over real sockets: what a peer sees.

mod common;
mod descriptors;
mod mutual_tls;
mod namespaces;
mod services;
mod sockets;
mod standard;
mod traces;
