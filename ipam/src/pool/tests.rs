use std::time::{Duration, SystemTime};

use carrick_types::{Prefix, host};
use proptest::prelude::*;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn prefixes(network: &str) -> PrefixPool {
    PrefixPool::new(prefix(network)).unwrap()
}

fn addresses(network: &str) -> AddressPool {
    AddressPool::new(prefix(network), &[], Duration::ZERO).unwrap()
}

#[test]
fn prefixes_are_given_in_order_and_the_lowest_free_one_again() {
    let mut pool = prefixes("172.16.0.0/16");
    for i in 0..10 {
        assert_eq!(
            pool.allocate(24, &[]).unwrap(),
            prefix(&format!("172.16.{i}.0/24"))
        );
    }
    assert!(pool.free(prefix("172.16.3.0/24")));
    assert_eq!(pool.allocate(24, &[]).unwrap(), prefix("172.16.3.0/24"));
}

#[test]
fn an_odd_size_never_makes_a_later_prefix_overlap_it() {
    let mut pool = prefixes("172.16.0.0/16");
    pool.reserve(prefix("172.16.0.0/30")).unwrap();
    assert_eq!(pool.allocate(24, &[]).unwrap(), prefix("172.16.1.0/24"));
    assert_eq!(pool.allocate(30, &[]).unwrap(), prefix("172.16.0.4/30"));
    assert!(pool.free(prefix("172.16.0.0/30")));
    assert!(pool.free(prefix("172.16.0.4/30")));
    assert_eq!(pool.allocate(24, &[]).unwrap(), prefix("172.16.0.0/24"));
}

#[test]
fn a_length_outside_of_the_network_is_an_error() {
    let mut pool = prefixes("10.0.0.0/24");
    assert!(matches!(
        pool.allocate(16, &[]),
        Err(PoolError::Length { .. })
    ));
    assert!(matches!(
        pool.allocate(33, &[]),
        Err(PoolError::Length { .. })
    ));
    assert_eq!(pool.allocate(24, &[]).unwrap(), prefix("10.0.0.0/24"));
    let full = pool.allocate(32, &[]).unwrap_err();
    assert_eq!(full.to_string(), "no free /32 in 10.0.0.0/24");
}

#[test]
fn growing_exclusions_are_stepped_over() {
    let mut pool = prefixes("172.16.0.0/16");
    let mut excluded = Vec::new();
    for i in 0..10 {
        excluded.push(prefix(&format!("172.16.{}.0/24", 2 * i)));
        let granted = pool.allocate(24, &excluded).unwrap();
        assert_eq!(granted, prefix(&format!("172.16.{}.0/24", 2 * i + 1)));
    }
}

#[test]
fn what_is_excluded_while_it_is_taken_is_gone_once_it_is_freed() {
    let mut pool = prefixes("10.0.0.0/29");
    pool.reserve(prefix("10.0.0.0/30")).unwrap();
    pool.exclude(prefix("10.0.0.2/32"));
    assert!(pool.free(prefix("10.0.0.0/30")));
    assert!(!pool.is_free(prefix("10.0.0.2/32")));
    assert_eq!(pool.free_addresses(), 7);
}

#[test]
fn a_prefix_of_ipv6_is_divided_like_one_of_ipv4() {
    let mut pool = prefixes("2001:db8::/64");
    assert_eq!(pool.allocate(112, &[]).unwrap(), prefix("2001:db8::/112"));
    assert_eq!(
        pool.allocate(112, &[]).unwrap(),
        prefix("2001:db8::1:0/112")
    );
    assert!(pool.reserve(prefix("10.0.0.0/24")).is_err());
    assert!(!pool.free(prefix("10.0.0.0/24")));
}

#[test]
fn the_own_address_is_the_first_and_a_slash_24_serves_255_clients() {
    let mut pool = addresses("10.0.0.0/24");
    assert_eq!(pool.own_address().to_string(), "10.0.0.0");
    for i in 1..=255 {
        assert_eq!(
            pool.allocate(&[], NOW).unwrap().to_string(),
            format!("10.0.0.{i}")
        );
    }
    assert!(pool.allocate(&[], NOW).is_err());
    assert!(pool.reserve(prefix("10.0.0.0/32"), NOW).is_err());
}

#[test]
fn without_rest_the_lowest_address_comes_again() {
    let mut pool = addresses("10.0.0.0/24");
    for _ in 0..10 {
        for last in 1..=2 {
            assert_eq!(
                pool.allocate(&[], NOW).unwrap().to_string(),
                format!("10.0.0.{last}")
            );
        }
        for last in 1..=2 {
            assert!(pool.release(prefix(&format!("10.0.0.{last}")), NOW));
        }
    }
}

#[test]
fn what_rests_goes_only_to_its_former_holder() {
    let rest = Duration::from_secs(60);
    let mut pool = AddressPool::new(prefix("10.0.0.0/24"), &[], rest).unwrap();
    let first = host(pool.allocate(&[], NOW).unwrap());
    assert!(pool.release(first, NOW));
    assert!(!pool.release(first, NOW), "once is enough");
    assert_eq!(pool.allocate(&[], NOW).unwrap().to_string(), "10.0.0.2");
    assert!(pool.reserve(first, NOW).is_err());
    pool.reclaim(first, NOW).unwrap();
    assert!(pool.reclaim(first, NOW).is_err(), "it is leased now");
    assert!(pool.release(first, NOW));
    assert_eq!(pool.allocate(&[], NOW + rest).unwrap(), first.network());
}

#[test]
fn when_nothing_else_is_left_the_longest_rested_goes_first() {
    let rest = Duration::from_secs(60);
    let mut pool = AddressPool::new(prefix("10.0.0.0/30"), &[], rest).unwrap();
    for _ in 0..3 {
        pool.allocate(&[], NOW).unwrap();
    }
    for (seconds, address) in [(1, "10.0.0.3"), (2, "10.0.0.1"), (3, "10.0.0.2")] {
        assert!(pool.release(prefix(address), NOW + Duration::from_secs(seconds)));
    }
    let soon = NOW + Duration::from_secs(4);
    let excluded = [prefix("10.0.0.3/32")];
    assert_eq!(
        pool.allocate(&excluded, soon).unwrap().to_string(),
        "10.0.0.1"
    );
    assert_eq!(pool.allocate(&[], soon).unwrap().to_string(), "10.0.0.3");
}

/// Steps of the long random walks: `CARRICK_IPAM_STEPS`, else 20,000.
fn steps() -> u32 {
    std::env::var("CARRICK_IPAM_STEPS").map_or(20_000, |steps| steps.parse().unwrap())
}

/// What is free, address by address: slow and plainly right.
struct Model {
    network: Prefix,
    free: Vec<bool>,
}

impl Model {
    fn range(&self, prefix: Prefix) -> Option<std::ops::Range<usize>> {
        let number = |address| match address {
            std::net::IpAddr::V4(address) => u32::from(address) as usize,
            std::net::IpAddr::V6(_) => unreachable!(),
        };
        let start = number(prefix.network()).checked_sub(number(self.network.network()))?;
        let range = start..start + (1 << (32 - prefix.length()));
        (range.end <= self.free.len()).then_some(range)
    }

    fn set(&mut self, prefix: Prefix, free: bool) {
        let range = self.range(prefix).expect("inside");
        assert!(
            self.free[range.clone()].iter().all(|is| *is != free),
            "{prefix} twice"
        );
        self.free[range].fill(free);
    }

    fn blocks(&self, length: u8) -> impl Iterator<Item = Prefix> {
        self.network.net().subnets(length).unwrap().map(Prefix::new)
    }

    fn lowest(&self, length: u8, excluded: &[Prefix]) -> Option<Prefix> {
        self.blocks(length).find(|block| {
            self.free[self.range(*block).unwrap()]
                .iter()
                .all(|free| *free)
                && !excluded.iter().any(|excluded| excluded.overlaps(*block))
        })
    }
}

fn any_block(random: &mut fastrand::Rng) -> Prefix {
    let length = random.u8(24..=32);
    Prefix::of([10, 0, 0, random.u8(..)].into(), length).unwrap()
}

#[test]
fn a_long_random_walk_agrees_with_a_map_of_every_address() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut pool = prefixes("10.0.0.0/24");
    let mut model = Model {
        network: pool.network(),
        free: vec![true; 256],
    };
    let mut taken: Vec<Prefix> = Vec::new();
    for step in 0..steps() {
        let block = any_block(&mut random);
        match random.u8(..5) {
            0 | 1 => {
                let excluded: Vec<_> = (0..random.usize(..4))
                    .map(|_| any_block(&mut random))
                    .collect();
                let expected = model.lowest(block.length(), &excluded);
                assert_eq!(
                    pool.allocate(block.length(), &excluded).ok(),
                    expected,
                    "step {step}"
                );
                taken.extend(expected);
                if let Some(prefix) = expected {
                    model.set(prefix, false);
                }
            }
            2 => {
                let free = model.free[model.range(block).unwrap()]
                    .iter()
                    .all(|free| *free);
                assert_eq!(pool.is_free(block), free, "step {step}");
                assert_eq!(pool.reserve(block).is_ok(), free, "step {step}");
                if free {
                    taken.push(block);
                    model.set(block, false);
                }
            }
            _ if !taken.is_empty() => {
                let prefix = taken.swap_remove(random.usize(..taken.len()));
                assert!(pool.free(prefix), "step {step}");
                model.set(prefix, true);
            }
            _ => assert!(!pool.free(block)),
        }
        let free = model.free.iter().filter(|free| **free).count();
        assert_eq!(
            pool.free_addresses(),
            free as u128,
            "leased and free make up the prefix"
        );
    }
    taken.sort_unstable();
    assert_eq!(pool.taken().collect::<Vec<_>>(), taken);
}

/// Entries probed per allocation when `leased` are leased and every second
/// one of them was given back.
fn probes(leased: u32) -> u64 {
    let mut pool = prefixes("10.0.0.0/8");
    let all: Vec<_> = (0..leased)
        .map(|_| pool.allocate(32, &[]).unwrap())
        .collect();
    all.iter()
        .step_by(2)
        .for_each(|prefix| assert!(pool.free(*prefix)));
    let before = pool.blocks().probes.get();
    for _ in 0..100 {
        pool.allocate(32, &[]).unwrap();
        pool.allocate(30, &[]).unwrap();
    }
    pool.blocks().probes.get() - before
}

#[test]
fn an_allocation_out_of_a_hundred_times_more_costs_no_more_probes() {
    let (few, many) = (probes(1_000), probes(100_000));
    assert!(
        many <= few + few / 10,
        "{few} probes with 1,000 leases, {many} with 100,000"
    );
}

proptest! {
    #[test]
    fn no_address_is_leased_twice_and_leased_and_free_make_up_the_prefix(
        choices in proptest::collection::vec((any::<bool>(), 0usize..64), 0..200),
        excluded in proptest::collection::vec((0u8..64, 26u8..=32), 0..4),
        rest in 0u64..3,
    ) {
        let excluded: Vec<_> = excluded
            .into_iter()
            .map(|(last, length)| Prefix::of([10, 0, 0, last].into(), length).unwrap())
            .collect();
        let network = prefix("10.0.0.0/26");
        let mut pool = AddressPool::new(network, &excluded, Duration::from_secs(rest)).unwrap();
        let size = pool.free_addresses();
        let mut leased = Vec::new();
        let mut now = NOW;
        for (take, index) in choices {
            now += Duration::from_secs(1);
            if take {
                if let Ok(address) = pool.allocate(&[], now) {
                    prop_assert!(network.contains(address) && address != network.network());
                    prop_assert!(!excluded.iter().any(|excluded| excluded.contains(address)));
                    prop_assert!(!leased.contains(&address));
                    leased.push(address);
                } else {
                    prop_assert_eq!(leased.len() as u128, size);
                }
            } else if index < leased.len() {
                prop_assert!(pool.release(host(leased.swap_remove(index)), now));
            }
            prop_assert_eq!(pool.leased(), leased.len());
            let resting = pool.inner().taken_count() - pool.leased();
            prop_assert_eq!(pool.free_addresses() + (leased.len() + resting) as u128, size);
        }
    }

    #[test]
    fn free_blocks_are_aligned_disjoint_and_as_large_as_can_be(
        taken in proptest::collection::vec((0u32..1024, 22u8..=32), 0..40),
    ) {
        let mut pool = prefixes("10.0.0.0/22");
        for (offset, length) in taken {
            let _ = pool.reserve(Prefix::of((0x0a00_0000 + offset).to_be_bytes().into(), length).unwrap());
        }
        let free: Vec<_> = pool.blocks().iter().collect();
        prop_assert!(carrick_types::overlaps(&free).is_none());
        for block in &free {
            let buddies = free.iter().filter(|other| {
                block.length() > 22
                    && other.length() == block.length()
                    && Prefix::of(block.network(), block.length() - 1).unwrap().covers(**other)
            });
            prop_assert!(buddies.count() <= 1, "both halves of a block are free");
        }
    }
}
