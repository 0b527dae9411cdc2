use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Weighted;
use crate::dataplane::Slots;

/// Most slots of a ring.
pub const RING_MAX: u64 = 65_536;

/// The ring of these servers: each as often as its weight says, so evenly
/// interleaved that after any number of picks from its beginning every server
/// has had its share but for less than one pick. Servers of weight 0 are left
/// out; no server at all gives an empty ring.
///
/// The order depends on identities, not on the order of `servers`.
#[must_use]
pub fn ring(servers: &[Weighted]) -> Slots {
    let shares = shares(servers);
    Slots::new(interleave(&shares).map(|index| shares[index].0.number))
}

/// Active servers in the order of their identities, with their number of slots.
fn shares(servers: &[Weighted]) -> Vec<(Weighted, u64)> {
    let mut active: Vec<_> = servers.iter().filter(|s| s.weight > 0).copied().collect();
    active.sort_unstable_by_key(|server| server.identity);
    let divisor = active
        .iter()
        .fold(0, |divisor, server| gcd(divisor, server.weight.into()));
    let total: u64 = active.iter().map(|s| u64::from(s.weight) / divisor).sum();
    // Whoever is rounded up to 1 is paid for beforehand.
    let room = RING_MAX - active.len() as u64;
    let fit = |weight: u64| {
        if total <= RING_MAX {
            weight
        } else {
            (weight * room / total).max(1)
        }
    };
    active
        .into_iter()
        .map(|server| (server, fit(u64::from(server.weight) / divisor)))
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One period of the interleaving, as indices of `shares`.
///
/// The j-th pick of a server with share w of W may come from slot ⌊jW/w⌋ on
/// and is due before slot ⌈(j+1)W/w⌉. Serving, of those that may come, the one
/// due first keeps every such window (Baruah and others, "Proportionate
/// progress", 1996), and keeping the windows is the bound [`ring`] states.
fn interleave(shares: &[(Weighted, u64)]) -> impl Iterator<Item = usize> {
    let shares: Vec<_> = shares.iter().map(|(_, share)| *share).collect();
    let total: u64 = shares.iter().sum();
    let mut waiting: BinaryHeap<_> = (0..shares.len())
        .map(|index| Reverse((0, index, 0)))
        .collect();
    let mut due = BinaryHeap::new();
    (0..total).map(move |slot| {
        while let Some(Reverse((_, index, pick))) = pop_until(&mut waiting, slot) {
            let before = ((pick + 1) * total).div_ceil(shares[index]);
            due.push(Reverse((before, index, pick)));
        }
        let Reverse((_, index, pick)) = due.pop().expect("every window can be kept");
        waiting.push(Reverse((
            (pick + 1) * total / shares[index],
            index,
            pick + 1,
        )));
        index
    })
}

/// The first that waits for a slot no later than `slot`.
fn pop_until(
    waiting: &mut BinaryHeap<Reverse<(u64, usize, u64)>>,
    slot: u64,
) -> Option<Reverse<(u64, usize, u64)>> {
    let Reverse((from, ..)) = waiting.peek()?;
    if *from > slot {
        return None;
    }
    waiting.pop()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{counts, servers};

    /// Greatest difference between picks and share over all prefixes.
    fn worst_lag(weights: &[u16]) -> f64 {
        let servers = servers(weights);
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let mut counts = vec![0_f64; weights.len()];
        let mut worst = 0_f64;
        for (slot, number) in (1..).zip(ring(&servers).iter()) {
            counts[number.index() - 1] += 1.0;
            for (count, weight) in counts.iter().zip(weights) {
                worst = worst.max((count - f64::from(slot) * f64::from(*weight) / total).abs());
            }
        }
        worst
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_prefix_is_within_one_of_each_share(
            weights in prop::collection::vec(0_u16..50, 1..20),
        ) {
            prop_assert!(worst_lag(&weights) < 1.0);
        }

        #[test]
        fn a_whole_ring_has_exactly_the_weights(
            weights in prop::collection::vec(0_u16..100, 1..50),
        ) {
            let servers = servers(&weights);
            let counts = counts(ring(&servers).iter(), weights.len());
            let active = weights.iter().zip(&counts).find(|(weight, _)| **weight > 0);
            if let Some((weight, count)) = active {
                for (other, times) in weights.iter().zip(&counts) {
                    prop_assert_eq!(u32::from(*other) * count, u32::from(*weight) * times);
                }
            }
        }

        #[test]
        fn the_order_of_servers_does_not_matter(
            weights in prop::collection::vec(0_u16..10, 1..20),
            turn in 0_usize..20,
        ) {
            let mut servers = servers(&weights);
            let before = ring(&servers);
            servers.rotate_left(turn % weights.len());
            prop_assert_eq!(before.iter().collect::<Vec<_>>(), ring(&servers).iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_ring_never_outgrows_its_bound_and_nobody_starves(
            weights in prop::collection::vec(1_u16.., 1..60),
        ) {
            let counts = counts(ring(&servers(&weights)).iter(), weights.len());
            let (slots, total) = (counts.iter().sum::<u32>(), weights.iter().map(|w| u32::from(*w)).sum::<u32>());
            prop_assert!(u64::from(slots) <= RING_MAX);
            for (weight, count) in weights.iter().zip(counts) {
                prop_assert!(count > 0);
                let share = f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(count) / f64::from(slots) - share).abs() < 0.002);
            }
        }
    }

    #[test]
    fn ten_thousand_flows_over_a_hundred_equal_servers_give_each_a_hundred() {
        let ring = ring(&servers(&[1; 100]));
        let picks = (0..10_000).map(|cursor| ring.at(cursor % ring.len()).unwrap());
        assert_eq!(counts(picks, 100), [100; 100]);
    }

    #[test]
    fn one_two_three_interleave() {
        let ring = ring(&servers(&[1, 2, 3]));
        assert_eq!(ring.len(), 6);
        assert!(ring.iter().zip(ring.iter().skip(1)).all(|(a, b)| a != b));
    }

    #[test]
    fn without_an_active_server_the_ring_is_empty() {
        assert!(ring(&servers(&[])).is_empty());
        assert!(ring(&servers(&[0, 0])).is_empty());
    }
}
