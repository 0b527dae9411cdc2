use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Invalid, IpFamily};

/// A network prefix in its canonical form: bits behind the length are zero.
///
/// NSM carries prefixes as text and Go's components send them unmasked at
/// times (`172.16.1.0/16`); parsing masks them, so equal networks are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

impl Prefix {
    /// The prefix that `net` lies in: host bits are cleared.
    #[must_use]
    pub fn new(net: IpNet) -> Self {
        Self(net.trunc())
    }

    /// The prefix of `length` bits that holds `address`.
    ///
    /// # Errors
    ///
    /// `length` is more than the family has bits.
    pub fn of(address: IpAddr, length: u8) -> Result<Self, Invalid> {
        IpNet::new(address, length)
            .map(Self::new)
            .map_err(|_| Invalid::new("prefix length", length, "at most 32 (IPv4) or 128 (IPv6)"))
    }

    /// First address, which is the network's own.
    #[must_use]
    pub fn network(self) -> IpAddr {
        self.0.network()
    }

    /// Last address; in IPv4 the directed broadcast.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// Number of leading bits that are fixed.
    #[must_use]
    pub fn length(self) -> u8 {
        self.0.prefix_len()
    }

    /// Bits of an address of this family, 32 or 128.
    #[must_use]
    pub fn width(self) -> u8 {
        self.0.max_prefix_len()
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(self) -> IpFamily {
        IpFamily::of(self.network())
    }

    /// Whether `other` lies wholly inside (or is equal).
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        match (self.0, other.0) {
            (IpNet::V4(a), IpNet::V4(b)) => a.contains(&b),
            (IpNet::V6(a), IpNet::V6(b)) => a.contains(&b),
            _ => false,
        }
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The prefix that holds this one with half the length: the network of a
    /// vL3 (NSM `vl3.IPAM`: /16 of a /24 in IPv4, /64 of a /112 in IPv6).
    /// For lengths at or below half the width it is the prefix itself.
    #[must_use]
    pub fn default_network(self) -> Self {
        let length = self.length().min(self.width() / 2);
        Self::of(self.network(), length).unwrap_or(self)
    }

    /// The prefix as a network with length.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }
}

/// The address alone: /32 or /128.
#[must_use]
pub fn host(address: IpAddr) -> Prefix {
    Prefix(address.into())
}

/// Whether any two of `prefixes` share an address; says which.
#[must_use]
pub fn overlaps(prefixes: &[Prefix]) -> Option<(Prefix, Prefix)> {
    let mut sorted = prefixes.to_vec();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .find(|pair| pair[0].overlaps(pair[1]))
        .map(|pair| (pair[0], pair[1]))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Prefix {
    type Err = Invalid;

    /// Parses `address/length`; a bare address is taken as a host prefix.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        IpNet::from_str(text)
            .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
            .map(Self::new)
            .map_err(|_| {
                Invalid::new(
                    "prefix",
                    text,
                    "a prefix such as 10.0.0.0/24 or 2001:db8::/112",
                )
            })
    }
}

impl TryFrom<String> for Prefix {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        Self::new(net)
    }
}

impl From<Ipv4Net> for Prefix {
    fn from(net: Ipv4Net) -> Self {
        Self::new(net.into())
    }
}

impl From<Ipv6Net> for Prefix {
    fn from(net: Ipv6Net) -> Self {
        Self::new(net.into())
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        host(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn an_unmasked_prefix_is_the_network_it_lies_in() {
        assert_eq!(prefix("172.16.1.0/16"), prefix("172.16.0.0/16"));
        assert_eq!(prefix("10.0.0.1").to_string(), "10.0.0.1/32");
    }

    #[test]
    fn the_network_of_a_prefix_is_half_as_long() {
        assert_eq!(
            prefix("10.1.2.0/24").default_network(),
            prefix("10.1.0.0/16")
        );
        assert_eq!(
            prefix("2001:db8::/112").default_network(),
            prefix("2001:db8::/64")
        );
        assert_eq!(
            prefix("10.0.0.0/12").default_network(),
            prefix("10.0.0.0/12")
        );
    }

    #[test]
    fn overlap_is_found_also_when_a_short_prefix_comes_first() {
        let all = ["10.0.0.0/8", "192.168.0.0/16", "10.200.0.0/24"].map(prefix);
        assert!(overlaps(&all).is_some());
        assert!(overlaps(&all[1..]).is_none());
    }

    proptest! {
        #[test]
        fn a_prefix_survives_its_text(address: u32, length in 0u8..=32) {
            let prefix = Prefix::of(IpAddr::V4(address.into()), length).unwrap();
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Prefix>();
        }
    }
}
