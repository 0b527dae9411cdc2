use super::Kind;
use super::layout::{Field, value};

/// [`Settings::flags`]: some service is NAT, so packets to no VIP are looked
/// up in the NAT tables.
pub const SETTING_NAT: u32 = 1;
/// [`Settings::flags`]: new flows are written to the journal.
pub const SETTING_JOURNAL: u32 = 2;

/// [`Vip4::flags`]: echo requests that no rule takes are answered.
pub const ADDRESS_ANSWER_ECHO: u8 = 1;
/// [`Vip4::flags`]: a client of this address needs SNAT when it is needed at all.
pub const ADDRESS_NEAR: u8 = 2;

/// [`Server::flags`]: the number is given.
pub const SERVER_IN_USE: u8 = 1;
/// [`Server::flags`]: the address is IPv6.
pub const SERVER_V6: u8 = 2;
/// [`Server::flags`]: GRE packets carry [`Server::key`].
pub const SERVER_HAS_KEY: u8 = 4;

value! {
    /// One copy's seed and prefix lengths.
    View: 64 {
        /// Seed of the VIP tables' hash, chosen so that no bucket overflows.
        seed: u64 = 0,
        /// How many of `lengths4` are in use.
        count4: u8 = 8,
        /// How many of `lengths6` are in use.
        count6: u8 = 9,
        /// IPv4 prefix lengths, longest first.
        lengths4: [u8; 8] = 10,
        /// IPv6 prefix lengths, longest first.
        lengths6: [u8; 8] = 18,
    }
}

impl Field for View {
    const SIZE: usize = 64;

    fn put(&self, bytes: &mut [u8]) {
        bytes[..64].copy_from_slice(&self.encode());
    }

    fn get(bytes: &[u8]) -> Self {
        Self::decode(bytes[..64].try_into().expect("a view has 64 bytes"))
    }
}

value! {
    /// What holds for all packets.
    Settings: 320 {
        /// The copy of the VIP tables in force: 0 or 1.
        active: u32 = 0,
        /// [`SETTING_NAT`], [`SETTING_JOURNAL`].
        flags: u32 = 4,
        /// Places flows in buckets; secret, of this balancer alone.
        table_seed: u64 = 8,
        /// Places flows in slots; equal on all balancers.
        slot_seed: u64 = 16,
        /// The time in ticks, for a program loaded with a fixed clock.
        clock: u32 = 24,
        /// Jiffies are shifted right by this to make ticks.
        tick_shift: u32 = 28,
        /// Flows each CPU may store in a tick; 0 is without limit.
        budget: u32 = 32,
        /// Least port of SNAT.
        port_low: u16 = 36,
        /// Greatest port of SNAT.
        port_high: u16 = 38,
        /// Source of outer IPv4 headers.
        source4: [u8; 4] = 40,
        /// Source of outer IPv6 headers.
        source6: [u8; 16] = 48,
        /// Idle limits by [`Kind`] × 4 + state, in ticks.
        idle: [u16; 32] = 64,
        /// One per copy of the VIP tables.
        views: [View; 2] = 128,
        /// Source of inner Ethernet headers (VXLAN).
        mac: [u8; 6] = 256,
    }
}

value! {
    /// An IPv4 prefix of VIPs, or an address that is near.
    Vip4: 16 {
        /// The prefix, without host bits.
        address: [u8; 4] = 0,
        /// Its length.
        length: u8 = 4,
        /// 1; 0 is an empty place.
        used: u8 = 5,
        /// What happens to packets no rule takes: [`refusal`](super::refusal).
        other: u8 = 6,
        /// [`ADDRESS_ANSWER_ECHO`], [`ADDRESS_NEAR`].
        flags: u8 = 7,
        /// First rule, within the copy.
        first: u32 = 8,
        /// Number of rules; 0 is no VIP.
        count: u32 = 12,
    }
}

value! {
    /// An IPv6 prefix of VIPs, or an address that is near.
    Vip6: 32 {
        /// The prefix, without host bits.
        address: [u8; 16] = 0,
        /// Its length.
        length: u8 = 16,
        /// 1; 0 is an empty place.
        used: u8 = 17,
        /// What happens to packets no rule takes: [`refusal`](super::refusal).
        other: u8 = 18,
        /// [`ADDRESS_ANSWER_ECHO`], [`ADDRESS_NEAR`].
        flags: u8 = 19,
        /// First rule, within the copy.
        first: u32 = 20,
        /// Number of rules; 0 is no VIP.
        count: u32 = 24,
    }
}

value! {
    /// Which packets of a prefix go to which service.
    Rule: 32 {
        /// A bit per [`Kind`] of 0 to 4.
        kinds: u8 = 0,
        /// L3DSR: the DSCP of the VIP.
        dscp: u8 = 1,
        /// Least port; kinds without ports take no notice.
        low: u16 = 2,
        /// Greatest port.
        high: u16 = 4,
        /// Service number.
        service: u16 = 6,
        /// VIP number, which its counters go by.
        vip: u16 = 8,
        /// The VIP's identity, for control only.
        identity: u64 = 16,
    }
}

value! {
    /// One version of a service.
    Service: 128 {
        /// [`mode`](super::mode).
        mode: u8 = 0,
        /// [`policy`](super::policy).
        policy: u8 = 1,
        /// What happens while `slots_count` is 0: [`refusal`](super::refusal).
        on_empty: u8 = 2,
        /// [`snat`](super::snat).
        snat: u8 = 3,
        /// UDP port of GUE and VXLAN.
        port: u16 = 4,
        /// 1; 0 is an empty place.
        used: u8 = 6,
        /// First slot of the hash table; a multiple of 32.
        slots_base: u32 = 8,
        /// Its slots.
        slots_count: u32 = 12,
        /// First slot of the ring; a multiple of 32.
        ring_base: u32 = 16,
        /// Its slots.
        ring_count: u32 = 20,
        /// Sum of the servers' weights.
        total_weight: u32 = 24,
        /// Flows above the average.
        spill_above: u16 = 28,
        /// The share in 256ths.
        spill_factor: u16 = 30,
        /// Affinity in ticks; 0 is none.
        affinity: u16 = 32,
        /// First of its SNAT addresses; those of IPv4 come first.
        sources_base: u32 = 36,
        /// SNAT addresses of IPv4.
        sources4: u32 = 40,
        /// SNAT addresses of IPv6.
        sources6: u32 = 44,
        /// Idle limits by [`Kind`] × 4 + state, in ticks.
        idle: [u16; 32] = 48,
        /// The service's identity, for control only.
        identity: u64 = 112,
    }
}

value! {
    /// A server of one service.
    Server: 64 {
        /// [`SERVER_IN_USE`], [`SERVER_V6`], [`SERVER_HAS_KEY`].
        flags: u8 = 0,
        /// Its service.
        service: u16 = 2,
        /// NAT: its port; 0 keeps the packet's.
        port: u16 = 4,
        /// Its weight; 0 while it drains.
        weight: u16 = 6,
        /// Its address; IPv4 in the first four bytes.
        address: [u8; 16] = 8,
        /// Ethernet destination of packets to it.
        hop_mac: [u8; 6] = 24,
        /// Ethernet source of packets to it.
        hop_source: [u8; 6] = 32,
        /// Interface to it; 0 asks the kernel's FIB.
        ifindex: u32 = 40,
        /// GRE key or VNI.
        key: u32 = 44,
        /// VXLAN: inner Ethernet destination.
        mac: [u8; 6] = 48,
        /// Largest outer IP packet to it; 0 is without limit.
        mtu: u16 = 54,
        /// The server's identity, for control only.
        identity: u64 = 56,
    }
}

value! {
    /// What the flows of a service share.
    Turn: 64 {
        /// Turns taken of the ring.
        cursor: u64 = 0,
        /// Live flows.
        flows: u64 = 8,
    }
}

value! {
    /// Counters of a VIP or server on one CPU.
    Row: 32 {
        /// Packets.
        packets: u64 = 0,
        /// Bytes of IP.
        bytes: u64 = 8,
        /// Flows stored.
        flows: u64 = 16,
    }
}

value! {
    /// What one CPU keeps for itself.
    CpuState: 64 {
        /// The tick `stored` speaks of.
        tick: u32 = 0,
        /// Flows stored in that tick.
        stored: u32 = 4,
        /// Sequence number of the last journal record.
        journal: u64 = 8,
    }
}

value! {
    /// A flow that was stored.
    JournalRecord: 64 {
        /// From 1, by one per record; written last, and 0 while the rest is written.
        sequence: u64 = 0,
        /// 4 or 6.
        family: u8 = 8,
        /// [`Kind`].
        kind: u8 = 9,
        /// Service number.
        service: u16 = 10,
        /// Server number.
        server: u16 = 12,
        /// VIP number.
        vip: u16 = 14,
        /// Client; IPv4 in the first four bytes.
        source: [u8; 16] = 16,
        /// VIP address.
        destination: [u8; 16] = 32,
        /// Ports word.
        ports: u32 = 48,
        /// The entry's `meta`.
        meta: u32 = 52,
    }
}

impl Service {
    /// The idle limit of a flow, in ticks.
    #[must_use]
    pub fn limit(&self, kind: Kind, state: super::State) -> u16 {
        self.idle[kind as usize * 4 + state as usize]
    }
}
