use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Largest IP packet that a link carries, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// Least value: what every IPv6 link must carry (RFC 8200 §5).
    pub const MIN: Self = Self(1280);
    /// What an Ethernet link carries unless told otherwise.
    pub const ETHERNET: Self = Self(1500);
    /// Where the network-wide minimum of a vL3 starts (NSM `vl3mtu`).
    pub const JUMBO: Self = Self(9000);
    /// Greatest value that a Linux `veth` or `vxlan` device takes.
    pub const MAX: Self = Self(65_535);
    /// What VXLAN over IPv4 takes of a packet: inner Ethernet 14, VXLAN 8,
    /// UDP 8, IPv4 20 (RFC 7348 §5).
    pub const VXLAN_OVERHEAD_V4: u32 = 50;
    /// What VXLAN over IPv6 takes of a packet.
    pub const VXLAN_OVERHEAD_V6: u32 = 70;

    /// Takes 1280 to 65535 bytes.
    ///
    /// # Errors
    ///
    /// The value is outside that range.
    pub fn new(bytes: u32) -> Result<Self, Invalid> {
        if (Self::MIN.0..=Self::MAX.0).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Invalid::new("MTU", bytes, "1280 to 65535 bytes"))
        }
    }

    /// What is left when `overhead` bytes go to an encapsulation, but never
    /// less than [`Mtu::MIN`].
    #[must_use]
    pub fn less(self, overhead: u32) -> Self {
        Self(self.0.saturating_sub(overhead).max(Self::MIN.0))
    }

    /// The value in bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Mtu {
    type Error = Invalid;

    fn try_from(bytes: u32) -> Result<Self, Invalid> {
        Self::new(bytes)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}
