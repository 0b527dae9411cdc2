#![expect(
    clippy::cast_possible_truncation,
    reason = "words are taken apart into their parts"
)]

use std::net::IpAddr;

use super::Kind;

/// The hash of all tables; see `docs/load-balancer.md`, "Hash".
#[must_use]
pub fn hash(words: &[u64], last: u64, seed: u64) -> u64 {
    let mut h = words.iter().fold(seed, |h, word| {
        let h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^ (h >> 32)
    });
    h = (h ^ last).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h ^= h >> 32;
    h = h.wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 29)
}

/// Spreads the low 32 bits of `x` over 0 to `n` − 1.
#[must_use]
pub fn scale(x: u64, n: u32) -> u32 {
    (((x & 0xffff_ffff) * u64::from(n)) >> 32) as u32
}

/// What a flow entry is found by. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The ports word: packet bytes, source port in the low half.
    pub ports: u32,
    /// What it is.
    pub kind: Kind,
}

impl Key {
    /// The ports word of two ports.
    #[must_use]
    pub fn ports(source: u16, destination: u16) -> u32 {
        u32::from(source.to_be()) | u32::from(destination.to_be()) << 16
    }

    /// Source and destination port of a ports word.
    #[must_use]
    pub fn split(ports: u32) -> (u16, u16) {
        let source = u16::from_be((ports & 0xffff) as u16);
        (source, u16::from_be((ports >> 16) as u16))
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self, seed: u64) -> u64 {
        let last = u64::from(self.ports) | (self.kind as u64) << 32;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let source = u64::from(u32::from_le_bytes(source.octets()));
                let destination = u64::from(u32::from_le_bytes(destination.octets()));
                hash(&[source | destination << 32], last, seed)
            }
            (source, destination) => {
                let [a, b] = words(source);
                let [c, d] = words(destination);
                hash(&[a, b, c, d], last, seed)
            }
        }
    }

    /// Its words as a flow entry holds them: 12 or 36 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(36);
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        bytes.extend(self.ports.to_le_bytes());
        bytes
    }
}

/// A prefix as the VIP tables hash it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VipPrefix {
    /// The address without host bits.
    pub address: IpAddr,
    /// The length.
    pub length: u8,
}

impl VipPrefix {
    /// Its bucket of `buckets`.
    #[must_use]
    pub fn bucket(&self, seed: u64, buckets: u32) -> u32 {
        let last = u64::from(self.length);
        let h = match self.address {
            IpAddr::V4(v4) => hash(&[u64::from(u32::from_le_bytes(v4.octets()))], last, seed),
            IpAddr::V6(_) => hash(&words(self.address), last, seed),
        };
        scale(h, buckets)
    }
}

/// An IPv6 address as two packet words.
fn words(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let whole = u128::from_le_bytes(octets);
    [whole as u64, (whole >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_stays_below_its_bound_and_reaches_both_ends() {
        assert_eq!(scale(0, 7), 0);
        assert_eq!(scale(u64::MAX, 7), 6);
    }

    #[test]
    fn ports_stand_as_in_the_packet() {
        let word = Key::ports(0x1234, 0x5678);
        assert_eq!(word.to_le_bytes(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(Key::split(word), (0x1234, 0x5678));
    }

    #[test]
    fn a_small_change_of_a_key_changes_half_of_the_hash() {
        let key = |port| Key {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, 2]),
            ports: Key::ports(port, 80),
            kind: Kind::Tcp,
        };
        let changed: u32 = (0..1000)
            .map(|port| (key(port).hash(0) ^ key(port + 1).hash(0)).count_ones())
            .sum();
        assert!((30_000..34_000).contains(&changed), "{changed}");
    }
}
