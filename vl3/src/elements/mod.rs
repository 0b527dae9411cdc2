//! The chain elements of a vL3, server side and client side.

mod announce;
mod dns;
mod mtu;
mod peer;
mod recognise;

pub use announce::Announce;
pub use dns::{DnsContext, DnsContextOptions};
pub use mtu::{MtuElement, MtuOpen, Refresh};
pub use peer::PeerClient;
pub use recognise::{Recognise, Role};

#[cfg(test)]
mod tests;
