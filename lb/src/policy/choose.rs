use crate::dataplane::{ServerNumber, Slots};
use crate::service::Policy;

/// How many servers of the ring are looked at for one with room.
const CANDIDATES: u32 = 8;

/// Live flows, as far as a data plane counts them.
pub trait Loads {
    /// Live flows of one server.
    fn live(&self, server: ServerNumber) -> u64;
    /// Its weight; never 0 for a server of the ring.
    fn weight(&self, server: ServerNumber) -> u64;
    /// Live flows of all servers of the ring.
    fn total_live(&self) -> u64;
    /// Weights of all servers of the ring.
    fn total_weight(&self) -> u64;
}

/// The server of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Where the flow goes.
    pub server: ServerNumber,
    /// Whether any balancer would choose it by the hash alone: such a flow
    /// outlives the balancer without a journal.
    pub on_slot: bool,
}

/// Chooses the server of a new flow: `hash` is of the 5-tuple, or of the
/// source alone for [`Policy::SourceHash`]; `cursor` counts the picks from the
/// ring and is shared by all who choose.
///
/// `None` when the tables are empty.
pub fn choose(
    policy: Policy,
    ring: &Slots,
    table: &Slots,
    hash: u64,
    cursor: &mut u64,
    loads: &impl Loads,
) -> Option<Chosen> {
    let on_slot = by_hash(table, hash)?;
    let server = match policy {
        Policy::WeightedRoundRobin => next(ring, cursor)?,
        Policy::LeastConnections => {
            let (first, second) = (next(ring, cursor)?, by_hash(ring, hash >> 32)?);
            less_loaded(loads, first, second)
        }
        Policy::Spill { above, .. } => {
            let over = |server| over(loads, server, 256, above.into());
            spill(ring, cursor, on_slot, over)?
        }
        Policy::BoundedLoad { percent, .. } => {
            let over = |server| over(loads, server, u64::from(percent) * 256 / 100, 0);
            spill(ring, cursor, on_slot, over)?
        }
        Policy::Maglev { .. } | Policy::SourceHash { .. } => on_slot,
    };
    Some(Chosen {
        server,
        on_slot: server == on_slot,
    })
}

/// The slot of a hash: its lower half scaled, not divided, since division is slow.
fn by_hash(slots: &Slots, hash: u64) -> Option<ServerNumber> {
    let slot = ((hash & 0xffff_ffff) * slots.len() as u64) >> 32;
    slots.at(usize::try_from(slot).ok()?)
}

fn next(ring: &Slots, cursor: &mut u64) -> Option<ServerNumber> {
    let slot = cursor.checked_rem(ring.len() as u64)?;
    *cursor = cursor.wrapping_add(1);
    ring.at(usize::try_from(slot).ok()?)
}

fn less_loaded(loads: &impl Loads, a: ServerNumber, b: ServerNumber) -> ServerNumber {
    if loads.live(b) * loads.weight(a) < loads.live(a) * loads.weight(b) {
        b
    } else {
        a
    }
}

/// `on_slot` unless it is over; then the first of the next few that is not.
fn spill(
    ring: &Slots,
    cursor: &mut u64,
    on_slot: ServerNumber,
    over: impl Fn(ServerNumber) -> bool,
) -> Option<ServerNumber> {
    if !over(on_slot) {
        return Some(on_slot);
    }
    for _ in 0..CANDIDATES {
        let server = next(ring, cursor)?;
        if !over(server) {
            return Some(server);
        }
    }
    Some(on_slot)
}

/// Whether the server has `above` flows more than its part of all by weight,
/// times `factor` / 256.
fn over(loads: &impl Loads, server: ServerNumber, factor: u64, above: u64) -> bool {
    let scale = loads.total_weight() * 256;
    let part = loads.total_live() * loads.weight(server) * factor;
    loads.total_live() > 0 && loads.live(server) * scale >= part + above * scale
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{chi_square, servers};
    use crate::policy::{maglev, ring};
    use crate::service::{Identity, TableSize};

    fn size() -> TableSize {
        TableSize::new(10_007).unwrap()
    }

    /// Counts of live flows, as a data plane keeps them.
    struct Counted {
        live: Vec<u64>,
        total: u64,
        weights: Vec<u16>,
    }

    impl Counted {
        fn add(&mut self, server: usize) {
            self.live[server] += 1;
            self.total += 1;
        }

        /// The first servers lose all their flows.
        fn lose(&mut self, servers: usize) {
            self.total -= self.live[..servers].iter().sum::<u64>();
            self.live[..servers].fill(0);
        }
    }

    impl Loads for Counted {
        fn live(&self, server: ServerNumber) -> u64 {
            self.live[server.index() - 1]
        }
        fn weight(&self, server: ServerNumber) -> u64 {
            self.weights[server.index() - 1].into()
        }
        fn total_live(&self) -> u64 {
            self.total
        }
        fn total_weight(&self) -> u64 {
            self.weights.iter().map(|weight| u64::from(*weight)).sum()
        }
    }

    /// Opens flows by one policy, and closes some.
    struct Balancer {
        policy: Policy,
        ring: Slots,
        table: Slots,
        cursor: u64,
        seed: Identity,
        opened: u64,
        off_slot: u64,
        loads: Counted,
    }

    impl Balancer {
        fn new(policy: Policy, weights: &[u16], seed: u64) -> Self {
            let servers = servers(weights);
            Self {
                policy,
                ring: ring(&servers),
                table: maglev(&servers, size()),
                cursor: 0,
                seed: Identity::of(&["seed", &seed.to_string()]),
                opened: 0,
                off_slot: 0,
                loads: Counted {
                    live: vec![0; weights.len()],
                    total: 0,
                    weights: weights.to_vec(),
                },
            }
        }

        fn open(&mut self) -> usize {
            let hash = self.seed.salted(self.opened);
            let chosen = choose(
                self.policy,
                &self.ring,
                &self.table,
                hash,
                &mut self.cursor,
                &self.loads,
            )
            .unwrap();
            self.opened += 1;
            self.off_slot += u64::from(!chosen.on_slot);
            let server = chosen.server.index() - 1;
            self.loads.add(server);
            server
        }

        fn filled(policy: Policy, weights: &[u16], seed: u64, flows: u64) -> Self {
            let mut balancer = Self::new(policy, weights, seed);
            for _ in 0..flows {
                balancer.open();
            }
            balancer
        }

        fn spread(&self) -> (u64, u64) {
            let live = &self.loads.live;
            (*live.iter().min().unwrap(), *live.iter().max().unwrap())
        }
    }

    #[test]
    fn round_robin_gives_a_hundred_servers_a_hundred_flows_each() {
        let balancer = Balancer::filled(Policy::WeightedRoundRobin, &[1; 100], 1, 10_000);
        assert_eq!(balancer.spread(), (100, 100));
    }

    #[test]
    fn two_balancers_stay_within_two_of_even() {
        let mut live = vec![0; 100];
        for (seed, flows) in [(1, 5_037), (2, 4_963)] {
            let one = Balancer::filled(Policy::WeightedRoundRobin, &[1; 100], seed, flows);
            for (sum, part) in live.iter_mut().zip(&one.loads.live) {
                *sum += part;
            }
        }
        assert!(
            live.iter().all(|count| (98..=102).contains(count)),
            "{live:?}"
        );
    }

    #[test]
    fn least_connections_fills_first_who_has_lost_flows() {
        let mut balancer = Balancer::filled(Policy::LeastConnections, &[1; 100], 1, 10_000);
        let (min, max) = balancer.spread();
        assert!(max - min <= 3, "{min} to {max}");
        balancer.loads.lose(50);
        let filled = (0..4_000).filter(|_| balancer.open() < 50).count();
        assert!(
            filled > 2_900,
            "{filled} of 4000, where round robin gives 2000"
        );
    }

    #[test]
    fn hash_policies_spread_as_fair_dice_do() {
        for seed in 0..5 {
            let policy = Policy::Maglev { size: size() };
            let live = Balancer::filled(policy, &[1; 100], seed, 10_000).loads.live;
            let counts: Vec<_> = live
                .iter()
                .map(|count| u32::try_from(*count).unwrap())
                .collect();
            assert!(chi_square(&counts) <= 139.0, "{}", chi_square(&counts));
        }
    }

    #[test]
    fn three_balancers_map_the_same_flows_alike() {
        let policy = Policy::SourceHash { size: size() };
        let mut balancers: Vec<_> = (0..3)
            .map(|_| Balancer::new(policy, &[1, 2, 3, 4], 9))
            .collect();
        for _ in 0..1_000 {
            let picks: Vec<_> = balancers.iter_mut().map(Balancer::open).collect();
            assert!(picks.iter().all(|pick| *pick == picks[0]), "{picks:?}");
        }
    }

    #[test]
    fn spill_leaves_most_flows_on_their_slot() {
        let policy = Policy::Spill {
            above: 5,
            size: size(),
        };
        let balancer = Balancer::filled(policy, &[1; 100], 1, 10_000);
        assert!(balancer.off_slot < 800, "{} of 10000", balancer.off_slot);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn weighted_shares_are_exact_to_one(weights in prop::collection::vec(1_u16..9, 1..30), flows in 1_u64..3_000) {
            let balancer = Balancer::filled(Policy::WeightedRoundRobin, &weights, 1, flows);
            let total = balancer.loads.total_weight() as f64;
            for (live, weight) in balancer.loads.live.iter().zip(&weights) {
                let share = flows as f64 * f64::from(*weight) / total;
                prop_assert!((*live as f64 - share).abs() < 1.0);
            }
        }

        #[test]
        fn spill_never_exceeds_the_average_by_more_than_asked(
            above in 1_u16..10, seed in any::<u64>(), flows in 100_u64..5_000,
        ) {
            let policy = Policy::Spill { above, size: size() };
            let balancer = Balancer::filled(policy, &[1; 50], seed, flows);
            let (_, max) = balancer.spread();
            let bound = flows.div_ceil(50) + u64::from(above) + 1;
            prop_assert!(max <= bound, "{} above {}", max, bound);
        }

        #[test]
        fn bounded_load_never_exceeds_its_percentage(
            percent in 101_u16..200, seed in any::<u64>(), flows in 100_u64..5_000,
        ) {
            let policy = Policy::BoundedLoad { percent, size: size() };
            let balancer = Balancer::filled(policy, &[1; 50], seed, flows);
            let (_, max) = balancer.spread();
            let bound = (flows * u64::from(percent)).div_ceil(100 * 50) + 1;
            prop_assert!(max <= bound, "{} above {}", max, bound);
        }
    }

    #[test]
    fn nothing_is_chosen_from_empty_tables() {
        let loads = Counted {
            live: vec![],
            total: 0,
            weights: vec![],
        };
        let empty = Slots::default();
        for policy in [Policy::WeightedRoundRobin, Policy::Maglev { size: size() }] {
            assert_eq!(choose(policy, &empty, &empty, 7, &mut 0, &loads), None);
        }
    }
}
