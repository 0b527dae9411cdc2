use std::fmt;

/// What a VIP can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// ICMP and `ICMPv6` echo requests. Errors always go where the packet
    /// they speak of went.
    Icmp,
    /// Every other IP protocol, its flows told apart by addresses alone.
    Other,
    /// SCTP (RFC 9260).
    Sctp,
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Icmp, Self::Other, Self::Sctp, Self::Tcp, Self::Udp];

    /// Its name in configuration, status and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Other => "other",
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
            Self::Sctp => 4,
            Self::Icmp => 8,
            Self::Other => 16,
        }
    }
}

/// A set of protocols.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols(u8);

impl Protocols {
    /// Every protocol.
    pub const ANY: Self = Self(31);

    /// The set of these.
    #[must_use]
    pub fn of(protocols: &[Protocol]) -> Self {
        Self(protocols.iter().fold(0, |bits, p| bits | p.bit()))
    }

    /// Those in both sets.
    #[must_use]
    pub fn from_common(a: Self, b: Self) -> Self {
        Self(a.0 & b.0)
    }

    /// Whether the protocol is in the set.
    #[must_use]
    pub fn contains(self, protocol: Protocol) -> bool {
        self.0 & protocol.bit() != 0
    }

    /// Whether any protocol is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether none is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as bits: TCP 1, UDP 2, SCTP 4, ICMP echo 8, others 16.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |p| self.contains(*p))
    }
}

impl Default for Protocols {
    fn default() -> Self {
        Self::ANY
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        for (index, protocol) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", protocol.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
