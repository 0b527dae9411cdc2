macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was treated as it was; counted per CPU.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in statistics and in the specification.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// Passed: neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// Passed: no VIP, and no answer of NAT.
    NotVip = "not_vip",
    /// Passed: an IP header that is wrong or cut short.
    Unparsed = "unparsed",
    /// Dropped: to a VIP, but cut short.
    Malformed = "malformed",
    /// To a VIP, but to no port or protocol of a service.
    OtherPort = "other_port",
    /// To a service without servers.
    NoServer = "no_server",
    /// A RST or an ICMP error was sent.
    Rejected = "rejected",
    /// Dropped, as the service or VIP asks, or since it cannot be rejected.
    Dropped = "dropped",
    /// A flow was stored.
    NewFlow = "new_flow",
    /// Over the budget of new flows: by hash, not stored.
    Flood = "flood",
    /// No place in the flow table: by hash, not stored.
    Full = "full",
    /// In the middle of a flow nobody knows: by hash.
    Unknown = "unknown",
    /// The server of a known flow is gone.
    Moved = "moved",
    /// Fragments to VIPs.
    Fragment = "fragment",
    /// A fragment that came before its first one.
    FragmentEarly = "fragment_early",
    /// A first fragment whose flow belongs elsewhere than its fragments went.
    FragmentSplit = "fragment_split",
    /// An ICMP error, sent to the server it speaks of.
    IcmpError = "icmp_error",
    /// Dropped: an ICMP error that speaks of nothing known.
    IcmpUnknown = "icmp_unknown",
    /// Passed: other ICMP to a VIP.
    IcmpOther = "icmp_other",
    /// An echo request was answered here.
    EchoAnswered = "echo_answered",
    /// A packet-too-big was sent.
    TooBig = "too_big",
    /// Too big, but for the kernel to fragment.
    TooBigPassed = "too_big_passed",
    /// Passed up as no next hop is known.
    Unresolved = "unresolved",
    /// Translated back.
    NatReply = "nat_reply",
    /// Dropped: no source address or port is free.
    NatNoPort = "nat_no_port",
    /// Dropped: over budget or no place in the NAT table.
    NatNoRoom = "nat_no_room",
    /// Chosen by the ring, as the hash's server is over its share.
    Spilled = "spilled",
    /// Chosen by affinity.
    Affinity = "affinity",
    /// Dropped: a table did not hold what another promised.
    Internal = "internal",
}
