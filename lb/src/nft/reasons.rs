//! Why packets were dropped, or chosen for without memory.

/// A reason, by the number its counter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The client's last server took its new flow.
    Affinity,
    /// Dropped for want of a server, or of a sensible answer.
    Dropped,
    /// Nothing was remembered for want of room.
    Full,
    /// An ICMP error that went to the flow's server.
    IcmpError,
    /// A map did not hold what another promised.
    Internal,
    /// A new flow and nobody to take it.
    NoServer,
    /// Answered with a reset or port unreachable.
    Rejected,
    /// TCP in the middle of a flow that nobody remembers.
    Unknown,
}

impl Reason {
    pub(super) const ALL: [Self; 8] = [
        Self::Affinity,
        Self::Dropped,
        Self::Full,
        Self::IcmpError,
        Self::Internal,
        Self::NoServer,
        Self::Rejected,
        Self::Unknown,
    ];

    /// The key of its counter, which never changes.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::NoServer => 1,
            Self::Rejected => 2,
            Self::Dropped => 3,
            Self::Full => 4,
            Self::Unknown => 5,
            Self::IcmpError => 6,
            Self::Affinity => 7,
            Self::Internal => 8,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::Dropped => "dropped",
            Self::Full => "full",
            Self::IcmpError => "icmp_error",
            Self::Internal => "internal",
            Self::NoServer => "no_server",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}
