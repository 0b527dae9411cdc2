//! The tables that the packet program and its control share: layout, sizes,
//! hashes. What they mean is told by `docs/load-balancer.md`.
//!
//! Read first: [`Sizes`], which says how large everything is, and
//! [`Service`] and [`Server`], the values that decide where a packet goes.
//! Values are encoded field by field at stated offsets, so that no layout
//! depends on this compiler. The program runs on little-endian machines only.

mod entry;
mod hash;
mod layout;
mod reason;
mod sizes;
mod values;

pub use entry::{Meta, NatInfo, State};
pub use hash::{Key, VipPrefix, hash, scale};
pub use reason::Reason;
pub use sizes::{Sizes, Table, WAYS};
pub use values::{
    ADDRESS_ANSWER_ECHO, ADDRESS_NEAR, CpuState, JournalRecord, Row, Rule, SERVER_HAS_KEY,
    SERVER_IN_USE, SERVER_V6, SETTING_JOURNAL, SETTING_NAT, Server, Service, Settings, Turn, View,
    Vip4, Vip6,
};

/// What a packet is, as far as flows and rules tell packets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// SCTP.
    Sctp = 2,
    /// ICMP echo, request or reply.
    Echo = 3,
    /// Any other protocol.
    Other = 4,
    /// Not a packet: the server of a client.
    Affinity = 5,
    /// Not a packet: the server of a fragmented datagram.
    Fragment = 6,
    /// Not a packet: the last server between two addresses.
    Hint = 7,
}

impl Kind {
    /// All kinds in order.
    pub const ALL: [Self; 8] = [
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::Echo,
        Self::Other,
        Self::Affinity,
        Self::Fragment,
        Self::Hint,
    ];

    /// Its bit in [`Rule::kinds`].
    #[must_use]
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The kind of the low three bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self::ALL[usize::from(bits & 7)]
    }
}

/// [`Service::mode`].
pub mod mode {
    /// Ethernet destination only.
    pub const L2: u8 = 0;
    /// GRE.
    pub const GRE: u8 = 1;
    /// IP in IP.
    pub const IPIP: u8 = 2;
    /// GUE variant 1.
    pub const GUE: u8 = 3;
    /// VXLAN.
    pub const VXLAN: u8 = 4;
    /// Destination and DSCP.
    pub const L3DSR: u8 = 5;
    /// Translation.
    pub const NAT: u8 = 6;
}

/// [`Service::policy`].
pub mod policy {
    /// Each slot of the ring in turn.
    pub const ROUND_ROBIN: u8 = 0;
    /// The less loaded of two of the ring.
    pub const LEAST: u8 = 1;
    /// Hash of the flow.
    pub const HASH: u8 = 2;
    /// Hash of the source address.
    pub const SOURCE: u8 = 3;
    /// Hash of the flow, unless over its share.
    pub const SPILL: u8 = 4;
}

/// What happens to a packet nobody takes: [`Vip4::other`], [`Service::on_empty`].
pub mod refusal {
    /// Passed to the kernel.
    pub const PASS: u8 = 0;
    /// Answered with a RST or an ICMP error.
    pub const REJECT: u8 = 1;
    /// Dropped.
    pub const DROP: u8 = 2;
}

/// [`Service::snat`].
pub mod snat {
    /// Never.
    pub const NEVER: u8 = 0;
    /// When the client is near.
    pub const NEEDED: u8 = 1;
    /// Always.
    pub const ALWAYS: u8 = 2;
}

/// Longest idle limit, in ticks: a stamp has 12 bits.
pub const MAX_TICKS: u16 = 4_000;

/// Versions of a service's value that are kept.
pub const VERSIONS: u32 = 4;

/// Prefix lengths per family that one view can have in use.
pub const MAX_LENGTHS: usize = 8;

/// Rules of one VIP prefix that are looked at.
pub const MAX_RULES: usize = 64;
