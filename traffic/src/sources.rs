//! Source addresses: random, repeatable, none twice before all were used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A sequence of addresses out of a prefix. The same prefix and seed give the same sequence; every address comes once
/// before any comes again. The network's own address and IPv4's broadcast address are left out.
#[derive(Clone, Debug)]
pub struct Sources {
    prefix: IpNet,
    keys: [u64; ROUNDS],
    first: u64,
    size: u64,
    half: u32,
}

const ROUNDS: usize = 4;

impl Sources {
    /// All host addresses of `prefix` in an order that `seed` decides. Of more than 2⁶² addresses only the first 2⁶²
    /// are used.
    #[must_use]
    pub fn new(prefix: IpNet, seed: u64) -> Self {
        let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len()).min(62);
        let all = 1u64 << bits;
        let (first, size) = match (&prefix, bits) {
            (_, 0) => (0, 1),
            (_, 1) => (0, 2),
            (IpNet::V4(_), _) => (1, all - 2),
            (IpNet::V6(_), _) => (1, all - 1),
        };
        let mut state = seed;
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        let half = bits.div_ceil(2).max(1);
        Self {
            prefix,
            keys,
            first,
            size,
            half,
        }
    }

    /// How many different addresses there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Address number `index` of the sequence, which begins again after [`Self::size`].
    ///
    /// # Panics
    ///
    /// Never: the sequence has only addresses of its prefix.
    #[must_use]
    pub fn address(&self, index: u64) -> IpAddr {
        let host = self.first + self.permute(index % self.size);
        match self.prefix.network() {
            IpAddr::V4(network) => {
                let host = u32::try_from(host).expect("an IPv4 prefix has at most 2³² addresses");
                Ipv4Addr::from_bits(network.to_bits() | host).into()
            }
            IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits() | u128::from(host)).into(),
        }
    }

    /// A Feistel network permutes the next even power of two; what falls outside is permuted again.
    fn permute(&self, index: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let mut value = index;
        loop {
            let (mut left, mut right) = (value >> self.half, value & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            value = (left << self.half) | right;
            if value < self.size {
                return value;
            }
        }
    }
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn sources(prefix: &str, seed: u64) -> Sources {
        Sources::new(prefix.parse().unwrap(), seed)
    }

    #[test]
    fn network_and_broadcast_addresses_are_never_used() {
        let sources = sources("20.0.0.0/24", 1);
        let all: HashSet<_> = (0..sources.size()).map(|i| sources.address(i)).collect();
        assert_eq!(all.len(), 254);
        assert!(!all.contains(&"20.0.0.0".parse().unwrap()));
        assert!(!all.contains(&"20.0.0.255".parse().unwrap()));
    }

    #[test]
    fn another_seed_gives_another_order() {
        let order = |seed| -> Vec<_> {
            (0..50)
                .map(|i| sources("20.0.0.0/16", seed).address(i))
                .collect()
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn a_host_prefix_is_one_address() {
        assert_eq!(
            sources("10.1.2.3/32", 9).address(5),
            "10.1.2.3".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            sources("fd00::7/128", 9).address(5),
            "fd00::7".parse::<IpAddr>().unwrap()
        );
    }

    proptest! {
        #[test]
        fn no_address_comes_twice_before_all_were_used(length in 20u8..=32, seed: u64) {
            let prefix = format!("20.16.0.0/{length}").parse::<IpNet>().unwrap().trunc();
            let sources = Sources::new(prefix, seed);
            let seen: HashSet<_> = (0..sources.size()).map(|i| sources.address(i)).collect();
            prop_assert_eq!(seen.len() as u64, sources.size());
            prop_assert!(seen.iter().all(|address| prefix.contains(address)));
        }

        #[test]
        fn every_address_is_of_the_prefix(length in 0u8..=128, seed: u64, index: u64) {
            let prefix = format!("2001:db8::/{length}").parse::<IpNet>().unwrap().trunc();
            prop_assert!(prefix.contains(&Sources::new(prefix, seed).address(index)));
        }
    }
}
