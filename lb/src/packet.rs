//! Packets: parsing, building, checksums.
//!
//! Headers are plain values: what `decode` reads, `encode` writes again, byte
//! for byte as long as the checksums were right. [`Packet`] puts an IP header,
//! a [`Transport`] and a payload together; [`Ethernet`] frames it; [`tunnel`]
//! wraps and unwraps it as the forwarding modes do; [`fragments`] splits it.
//!
//! Limits: an IPv6 packet's extension headers are those a balancer meets
//! (hop-by-hop, routing, destination options, fragment); SCTP chunks and TCP
//! options are bytes.

pub mod checksum;
mod error;
mod ethernet;
mod fragment;
mod icmp;
mod ip;
mod ipv4;
mod ipv6;
mod sctp;
mod tcp;
mod transport;
pub mod tunnel;
mod udp;
mod whole;

pub use error::Error;
pub use ethernet::{Ethernet, ethertype};
pub use fragment::fragments;
pub use icmp::{Icmp, Problem};
pub use ip::Ip;
pub use ipv4::Ipv4;
pub use ipv6::{Extension, Ipv6};
pub use sctp::Sctp;
pub use tcp::{Tcp, TcpFlags};
pub use transport::Transport;
pub use udp::Udp;
pub use whole::Packet;

/// Numbers of protocols above IP (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200 §4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header (RFC 8200 §4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: u8 = 44;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// `ICMPv6` (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6: no next header (RFC 8200 §4.7).
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options (RFC 8200 §4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// Reads `N` bytes at `at`, if they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Reads a big-endian 16-bit word at `at`; zero beyond the end, which callers
/// rule out by a check of the whole header.
fn word(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_be_bytes)
}

/// Reads a big-endian 32-bit word at `at`, like [`word`].
fn long(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_be_bytes)
}

/// The length of something that fits an IP packet, as a header says it.
///
/// # Panics
///
/// It does not fit: a caller built a packet of more than 65535 bytes.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("an IP packet has at most 65535 bytes")
}
