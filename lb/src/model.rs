//! The data plane in plain Rust: its specification.
//!
//! Read first: [`Model`], which treats a packet as `docs/load-balancer.md` says
//! and changes its [`Memory`] as the packet program changes its maps. The model
//! does no I/O: time, CPU, interface and the kernel's routes are given to it.
//! Where text and model leave something open, the model decides; a test runs
//! both, with random packets and tables, and compares every byte.
//!
//! Limits: the model treats one packet after the other, and so says nothing of
//! two CPUs that write one entry at once; it does not know GSO.

mod choose;
mod flow;
mod forward;
mod fragment;
mod icmp;
mod memory;
mod nat;
mod parse;
mod reply;
mod rewrite;
mod run;
#[cfg(test)]
mod tests;
mod treat;
mod vip;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use memory::Memory;

use crate::tables::Sizes;

/// The data plane: tables, and what the kernel knows of the links.
#[derive(Clone, Debug)]
pub struct Model {
    /// The tables.
    pub memory: Memory,
    /// What the kernel's FIB answers; other addresses it does not know.
    pub hops: BTreeMap<IpAddr, Hop>,
}

/// How a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The CPU that treats it; below [`Sizes::cpus`].
    pub cpu: u32,
    /// The kernel's time, which counts unless the clock is fixed.
    pub jiffies: u64,
    /// The interface it came in by.
    pub interface: u32,
}

/// A next hop: link and Ethernet addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface to it.
    pub interface: u32,
    /// Its Ethernet address.
    pub destination: [u8; 6],
    /// The interface's own.
    pub source: [u8; 6],
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nowhere.
    Drop,
    /// Out of this interface.
    Out(u32),
    /// On to the kernel.
    Pass,
}

/// A packet that was treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where it goes.
    pub verdict: Verdict,
    /// Its frame, which a dropped packet has, too, but nobody sees.
    pub frame: Vec<u8>,
}

impl Model {
    /// A data plane without any service and without routes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self {
            memory: Memory::new(sizes),
            hops: BTreeMap::new(),
        }
    }

    /// Treats the packet in an Ethernet frame.
    pub fn treat(&mut self, arrival: Arrival, frame: &[u8]) -> Outcome {
        run::Run::new(self, arrival, frame).treat()
    }
}
