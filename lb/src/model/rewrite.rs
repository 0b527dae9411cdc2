//! Changes in place: addresses and ports, with the checksums that cover them.

use std::net::IpAddr;

use super::parse::{Body, Datagram};
use crate::packet::{checksum, protocol};
use crate::tables::{Key, Kind};

const CHECKSUM_4: usize = 10;

/// Where a datagram's header has its source, and its destination.
pub(super) fn addresses(v6: bool) -> (usize, usize) {
    if v6 { (8, 24) } else { (12, 16) }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Writes `new` at `at`, and adjusts the checksum at `sum` for it.
pub(super) fn put(bytes: &mut [u8], sum: Option<usize>, at: usize, new: &[u8]) {
    let old = bytes[at..at + new.len()].to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    if let Some(sum) = sum {
        adjust(bytes, sum, &old, new);
    }
}

/// Adjusts the checksum at `sum` after `old` became `new`; if nothing changed,
/// the checksum stays what it is, also when it is wrong.
pub(super) fn adjust(bytes: &mut [u8], sum: usize, old: &[u8], new: &[u8]) {
    if old == new {
        return;
    }
    let before = u16::from_be_bytes([bytes[sum], bytes[sum + 1]]);
    let after = checksum::update(before, old, new);
    bytes[sum..sum + 2].copy_from_slice(&after.to_be_bytes());
}

impl Datagram {
    /// Replaces the destination; all checksums are adjusted.
    pub(super) fn with_destination(&self, body: &Body, destination: IpAddr) -> Vec<u8> {
        self.with(body, self.source, destination, None)
    }

    /// Replaces addresses and ports by those of a key.
    pub(super) fn translated(&self, body: &Body, becomes: &Key) -> Vec<u8> {
        self.with(body, becomes.source, becomes.destination, Some(becomes))
    }

    fn with(
        &self,
        body: &Body,
        source: IpAddr,
        destination: IpAddr,
        becomes: Option<&Key>,
    ) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let (at, to) = addresses(self.is_v6());
        let header = (!self.is_v6()).then_some(CHECKSUM_4);
        put(&mut bytes, header, at, &octets(source));
        put(&mut bytes, header, to, &octets(destination));
        if body.part.is_none_or(|part| part.first) {
            let old = [octets(self.source), octets(self.destination)].concat();
            let new = [octets(source), octets(destination)].concat();
            self.adjust_transport(body, &mut bytes, &old, &new, becomes);
        }
        bytes
    }

    /// The transport's part of it: the pseudo header, and the ports.
    fn adjust_transport(
        &self,
        body: &Body,
        bytes: &mut [u8],
        old: &[u8],
        new: &[u8],
        becomes: Option<&Key>,
    ) {
        let Some((sum, pseudo)) = self.checksum(body) else {
            return;
        };
        let (old_ports, new_ports) = ports(body, bytes, becomes);
        let without = body.protocol == protocol::UDP && bytes[sum..sum + 2] == [0, 0];
        if let Some((at, new_ports)) = new_ports {
            bytes[at..at + new_ports.len()].copy_from_slice(&new_ports);
            if !without {
                adjust(bytes, sum, &old_ports, &new_ports);
            }
        }
        if without {
            return;
        }
        if pseudo {
            adjust(bytes, sum, old, new);
        }
        if body.protocol == protocol::UDP && bytes[sum..sum + 2] == [0, 0] {
            bytes[sum..sum + 2].fill(0xff);
        }
    }

    /// Where the transport's checksum stands, and whether it covers addresses.
    fn checksum(&self, body: &Body) -> Option<(usize, bool)> {
        let v6 = self.is_v6();
        match body.protocol {
            protocol::TCP => Some((body.at + 16, true)),
            protocol::UDP => Some((body.at + 6, true)),
            protocol::ICMP if !v6 => Some((body.at + 2, false)),
            protocol::ICMPV6 if v6 => Some((body.at + 2, true)),
            _ => None,
        }
    }
}

/// The bytes in which a transport has its ports or identifier: those that are
/// there, and where and what they become.
fn ports(body: &Body, bytes: &[u8], becomes: Option<&Key>) -> (Vec<u8>, Option<(usize, Vec<u8>)>) {
    let Some(becomes) = becomes else {
        return (Vec::new(), None);
    };
    let word = becomes.ports.to_le_bytes();
    let (at, new) = match becomes.kind {
        Kind::Tcp | Kind::Udp => (body.at, word.to_vec()),
        // A request has its identifier in the low half, a reply in the high one.
        Kind::Echo => (body.at + 4, vec![word[0] | word[2], word[1] | word[3]]),
        _ => return (Vec::new(), None),
    };
    (bytes[at..at + new.len()].to_vec(), Some((at, new)))
}
