use super::{Weighted, ring};
use crate::dataplane::Slots;
use crate::service::TableSize;

/// The Maglev table of these servers (Eisenbud and others, "Maglev: A Fast and
/// Reliable Software Network Load Balancer", 2016, §3.4): each server prefers
/// the slots in an order made of its identity, and takes its next free one
/// whenever the [`ring`] of the weights gives it a turn.
///
/// So slots are shared by weight to within one, and a server that comes or
/// goes moves its own share and little else. Needs M + N words, and on average
/// M·ln M looks at a bit for the M slots.
///
/// No active server gives an empty table.
#[must_use]
pub fn maglev(servers: &[Weighted], size: TableSize) -> Slots {
    let turns = ring(servers);
    if turns.is_empty() {
        return Slots::default();
    }
    let mut walks = walks(servers, size);
    let mut free = Free::new(size);
    let mut slots = vec![servers[0].number; size.get() as usize];
    let forever = std::iter::repeat_with(|| turns.iter()).flatten();
    for number in forever.take(slots.len()) {
        // There are as many turns as slots, so there is a free one.
        let free = walks[number.index()].find(|slot| free.take(*slot));
        slots[free.unwrap_or_default() as usize] = number;
    }
    Slots::new(slots)
}

/// The order in which each server prefers the slots, by number.
fn walks(servers: &[Weighted], size: TableSize) -> Vec<Walk> {
    let largest = servers.iter().map(|server| server.number.index()).max();
    let mut walks = vec![Walk::new(servers[0], size); largest.map_or(0, |largest| largest + 1)];
    for server in servers {
        walks[server.number.index()] = Walk::new(*server, size);
    }
    walks
}

/// All slots from `offset` in steps of `skip`: as the size is a prime, each
/// comes once.
#[derive(Clone)]
struct Walk {
    next: u32,
    skip: u32,
    size: u32,
}

impl Walk {
    fn new(server: Weighted, size: TableSize) -> Self {
        let size = size.get();
        let below = |salt, bound: u32| {
            let rest = server.identity.salted(salt) % u64::from(bound);
            u32::try_from(rest).expect("a rest is below its 32-bit divisor")
        };
        Self {
            next: below(0, size),
            skip: below(1, size - 1) + 1,
            size,
        }
    }
}

impl Iterator for Walk {
    type Item = u32;

    /// Never ends; comes round after `size` slots.
    fn next(&mut self) -> Option<u32> {
        let slot = self.next;
        // Sizes are below 2^20, so the sum stays within 32 bits.
        self.next = slot + self.skip;
        if self.next >= self.size {
            self.next -= self.size;
        }
        Some(slot)
    }
}

/// A bit per slot: small enough to stay in the first cache.
struct Free(Vec<u64>);

impl Free {
    fn new(size: TableSize) -> Self {
        Self(vec![u64::MAX; size.get().div_ceil(64) as usize])
    }

    /// Takes the slot if it was free.
    fn take(&mut self, slot: u32) -> bool {
        let word = &mut self.0[(slot / 64) as usize];
        let bit = 1 << (slot % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::dataplane::ServerNumber;
    use crate::policy::testing::{chi_square, counts, servers};
    use crate::service::Identity;

    fn size(slots: u32) -> TableSize {
        TableSize::new(slots).unwrap()
    }

    fn moved(before: &Slots, after: &Slots) -> usize {
        before
            .iter()
            .zip(after.iter())
            .filter(|(a, b)| a != b)
            .count()
    }

    /// Share of the slots of others that move when server 50 of 100 leaves.
    fn unneeded(slots: u32) -> f64 {
        let mut servers = servers(&[1; 100]);
        let before = maglev(&servers, size(slots));
        let gone = servers.remove(49);
        let after = maglev(&servers, size(slots));
        let own = before
            .iter()
            .filter(|number| *number == gone.number)
            .count();
        (moved(&before, &after) - own) as f64 / f64::from(slots)
    }

    #[test]
    fn a_server_lost_moves_its_share_and_little_else() {
        for (slots, bound) in [
            (10_007, 0.025),
            (16_381, 0.02),
            (65_537, 0.01),
            (99_991, 0.01),
        ] {
            let unneeded = unneeded(slots);
            assert!(unneeded < bound, "{slots}: {unneeded}");
        }
        // The figure the documentation gives for the default size.
        assert!(unneeded(65_537) < 0.0075, "{}", unneeded(65_537));
    }

    #[test]
    fn a_server_drained_and_back_leaves_the_table_as_it_was() {
        let mut weights = [1; 20];
        let before = maglev(&servers(&weights), size(10_007));
        weights[7] = 0;
        let drained = maglev(&servers(&weights), size(10_007));
        assert!(drained.iter().all(|number| number.get() != 8));
        weights[7] = 1;
        assert_eq!(moved(&before, &maglev(&servers(&weights), size(10_007))), 0);
    }

    #[test]
    fn ten_servers_lost_at_once_move_two_percent_of_the_others_at_most() {
        let servers = servers(&[1; 100]);
        let before = maglev(&servers, size(65_537));
        let after = maglev(&servers[10..], size(65_537));
        let needed = before.iter().filter(|number| number.get() <= 10).count();
        let unneeded = (moved(&before, &after) - needed) as f64 / 65_537.0;
        assert!(unneeded < 0.02, "{unneeded}");
    }

    #[test]
    fn sizes_beyond_sixteen_bits_are_filled_completely() {
        let servers = servers(&[1; 300]);
        for slots in [65_537, 69_997, 99_991, 300_007] {
            let table = maglev(&servers, size(slots));
            let counts = counts(table.iter(), 300);
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= 1, "{slots}: {min} to {max}");
        }
    }

    #[test]
    fn a_hash_spreads_ten_thousand_flows_as_fair_dice_do() {
        let table = maglev(&servers(&[1; 100]), size(65_537));
        for seed in 0..5 {
            let seed = Identity::of(&["flows", &format!("{seed}")]);
            let picks = (0..10_000).map(|flow| {
                let slot = seed.salted(flow) % 65_537;
                table.at(usize::try_from(slot).unwrap()).unwrap()
            });
            let chi = chi_square(&counts(picks, 100));
            assert!(chi <= 139.0, "{chi}");
        }
    }

    #[test]
    fn balancers_that_number_servers_differently_agree() {
        let ours = servers(&[1; 30]);
        let mut theirs = ours.clone();
        theirs.reverse();
        for (number, server) in (1..).zip(&mut theirs) {
            server.number = ServerNumber::new(number).unwrap();
        }
        let identities = |servers: &[Weighted], table: &Slots| -> Vec<_> {
            let of = |number| {
                servers
                    .iter()
                    .find(|s| s.number == number)
                    .unwrap()
                    .identity
            };
            table.iter().map(of).collect()
        };
        assert_eq!(
            identities(&ours, &maglev(&ours, size(10_007))),
            identities(&theirs, &maglev(&theirs, size(10_007)))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn slots_are_shared_by_weight_to_within_one(
            weights in prop::collection::vec(0_u16..20, 1..30),
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let table = maglev(&servers(&weights), size(4_099));
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (weight, count) in weights.iter().zip(counts(table.iter(), weights.len())) {
                let share = 4_099.0 * f64::from(*weight) / total;
                prop_assert!((f64::from(count) - share).abs() < 1.0);
            }
        }

        #[test]
        fn a_walk_visits_every_slot(seed in any::<u64>(), slots in 3_u32..2_000) {
            let size = TableSize::at_least(slots);
            let server = Weighted { identity: Identity::from_bits(seed.max(1)).unwrap(), ..servers(&[1])[0] };
            let visited: HashSet<_> = Walk::new(server, size).take(size.get() as usize).collect();
            prop_assert_eq!(visited.len(), size.get() as usize);
        }

        #[test]
        fn one_server_changed_never_moves_more_than_its_share_and_a_fiftieth(
            servers_count in 20_usize..120,
            gone in 0_usize..20,
        ) {
            let mut servers = servers(&vec![1; servers_count]);
            let before = maglev(&servers, size(16_381));
            let gone = servers.remove(gone);
            let after = maglev(&servers, size(16_381));
            let own = before.iter().filter(|number| *number == gone.number).count();
            let unneeded = (moved(&before, &after) - own) as f64 / 16_381.0;
            prop_assert!(unneeded < 0.02, "{}", unneeded);
        }
    }
}
