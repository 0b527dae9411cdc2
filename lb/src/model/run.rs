//! One packet on its way: what every part of the way needs.

use super::parse::Datagram;
use super::{Arrival, Hop, Memory, Model, Outcome, Verdict};
use crate::packet::Ethernet;
use crate::tables::{Reason, Settings};

/// A packet on its way.
pub(super) struct Run<'a> {
    pub(super) memory: &'a mut Memory,
    hops: &'a std::collections::BTreeMap<std::net::IpAddr, Hop>,
    pub(super) arrival: Arrival,
    pub(super) settings: Settings,
    /// The time in ticks, 12 bits.
    pub(super) now: u16,
    pub(super) frame: Vec<u8>,
}

impl<'a> Run<'a> {
    pub(super) fn new(model: &'a mut Model, arrival: Arrival, frame: &[u8]) -> Self {
        let settings = model.memory.settings();
        let ticks = if model.memory.sizes().fixed_clock == 0 {
            arrival.jiffies >> (settings.tick_shift & 63)
        } else {
            settings.clock.into()
        };
        Self {
            memory: &mut model.memory,
            hops: &model.hops,
            arrival,
            settings,
            now: u16::try_from(ticks & 0xfff).expect("twelve bits"),
            frame: frame.to_vec(),
        }
    }

    pub(super) fn cpu(&self) -> usize {
        self.arrival.cpu as usize
    }

    /// The slice of the flow tables that this CPU writes.
    pub(super) fn slice(&self) -> u32 {
        self.arrival.cpu % self.memory.sizes().slices
    }

    pub(super) fn count(&mut self, reason: Reason) {
        self.memory
            .count(self.arrival.cpu as usize, reason as usize);
    }

    /// A packet to a VIP.
    pub(super) fn count_vip(&mut self, vip: u16, bytes: usize) {
        let index = self.cpu() * self.memory.sizes().vips as usize + usize::from(vip);
        if let Some(mut row) = self.memory.vip_row(index) {
            row.packets += 1;
            row.bytes += bytes as u64;
            self.memory.set_vip_row(index, &row);
        }
    }

    /// A packet to a server.
    pub(super) fn count_server(&mut self, server: u16, bytes: usize) {
        let index = self.cpu() * self.memory.sizes().servers as usize + usize::from(server);
        if let Some(mut row) = self.memory.server_row(index) {
            row.packets += 1;
            row.bytes += bytes as u64;
            self.memory.set_server_row(index, &row);
        }
    }

    /// A flow that was stored.
    pub(super) fn count_flow(&mut self, vip: u16, server: u16) {
        let index = self.cpu() * self.memory.sizes().vips as usize + usize::from(vip);
        if let Some(mut row) = self.memory.vip_row(index) {
            row.flows += 1;
            self.memory.set_vip_row(index, &row);
        }
        let index = self.cpu() * self.memory.sizes().servers as usize + usize::from(server);
        if let Some(mut row) = self.memory.server_row(index) {
            row.flows += 1;
            self.memory.set_server_row(index, &row);
        }
    }

    // === where it ends ===

    pub(super) fn pass(mut self, reason: Reason) -> Outcome {
        self.count(reason);
        self.end(Verdict::Pass)
    }

    pub(super) fn drop(mut self, reason: Reason) -> Outcome {
        self.count(reason);
        self.end(Verdict::Drop)
    }

    pub(super) fn end(self, verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            frame: self.frame,
        }
    }

    /// Replaces the IP datagram by another; what stood behind it stays.
    pub(super) fn replace(&mut self, datagram: &Datagram, bytes: &[u8], ether_type: u16) {
        let mut frame = self.frame[..12].to_vec();
        frame.extend(ether_type.to_be_bytes());
        frame.extend(bytes);
        frame.extend(&self.frame[Ethernet::LENGTH + datagram.length()..]);
        self.frame = frame;
    }

    /// What the kernel's FIB knows of an address.
    pub(super) fn fib(&self, address: std::net::IpAddr) -> Option<Hop> {
        self.hops.get(&address).copied()
    }

    /// Sends the frame to the next hop; without one it is passed up.
    pub(super) fn send(mut self, hop: Option<Hop>) -> Outcome {
        let Some(hop) = hop else {
            return self.pass(Reason::Unresolved);
        };
        self.frame[..6].copy_from_slice(&hop.destination);
        self.frame[6..12].copy_from_slice(&hop.source);
        self.end(Verdict::Out(hop.interface))
    }
}
