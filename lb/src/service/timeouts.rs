use std::time::Duration;

/// How long a flow is remembered after its last packet. Resolution is
/// about two seconds; a data plane may forget sooner only when its table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdleTimeouts {
    /// TCP with data seen after the SYN.
    pub tcp: Duration,
    /// TCP of which only SYNs were seen.
    pub tcp_opening: Duration,
    /// TCP after a FIN or RST.
    pub tcp_closing: Duration,
    /// UDP.
    pub udp: Duration,
    /// SCTP.
    pub sctp: Duration,
    /// ICMP echo and protocols without ports.
    pub other: Duration,
}

impl IdleTimeouts {
    /// The longest that may be asked for, and for affinity: what 12 bits of
    /// two-second ticks can tell apart with some to spare.
    pub const MAX: Duration = Duration::from_secs(8_000);

    /// Each with its name in the configuration.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Duration); 6] {
        [
            ("tcp", self.tcp),
            ("tcp-opening", self.tcp_opening),
            ("tcp-closing", self.tcp_closing),
            ("udp", self.udp),
            ("sctp", self.sctp),
            ("other", self.other),
        ]
    }
}

impl Default for IdleTimeouts {
    /// TCP 2 h 4 min (as RFC 5382 asks of a NAT; keep-alives come every 2 h), opening 60 s, closing 10 s; UDP 3 min; SCTP 15 min; others 30 s.
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(7_440),
            tcp_opening: Duration::from_secs(60),
            tcp_closing: Duration::from_secs(10),
            udp: Duration::from_secs(180),
            sctp: Duration::from_secs(900),
            other: Duration::from_secs(30),
        }
    }
}
