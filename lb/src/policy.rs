//! Policies: which server a new flow goes to.
//!
//! Read first: [`ring`], which interleaves servers by weight, and [`maglev`],
//! which spreads hashes over them. Both depend on weights and identities alone,
//! so that balancers with the same servers make the same tables. [`choose`] is
//! what a data plane does with them for a new flow.
//!
//! The bounds that hold, each with a property test beside its code:
//!
//! | policy | evenness | disruption by hash alone |
//! | --- | --- | --- |
//! | weighted round robin | any run of flows is within 2 of each share; a whole ring is exact | all flows, hence the flow table and the journal |
//! | least connections | live flows per weight within a few of each other | as above |
//! | Maglev, source hash | slots within 1 of each share; flows as dice fall | removed share + 0.6 % at 65,537 slots |
//! | spill | at most `above` + 1 over the average | what was off its slot |
//! | bounded load | at most `percent` of the share, rounded up | what was off its slot |
//!
//! Limits: a ring has at most [`RING_MAX`] slots; weights that do not fit are
//! rounded to the nearest that do.

mod choose;
mod maglev;
mod ring;

pub use choose::{Chosen, Loads, choose};
pub use maglev::maglev;
pub use ring::{RING_MAX, ring};

use crate::dataplane::ServerNumber;
use crate::service::Identity;

/// A server as the tables see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighted {
    /// What the slots hold.
    pub number: ServerNumber,
    /// What decides its place in the tables, equal on all balancers.
    pub identity: Identity,
    /// Its share; 0 has no slots.
    pub weight: u16,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Servers 1, 2, … with these weights.
    pub(crate) fn servers(weights: &[u16]) -> Vec<Weighted> {
        (1..)
            .zip(weights)
            .map(|(number, weight)| Weighted {
                number: ServerNumber::new(number).unwrap(),
                identity: Identity::of(&["web", &format!("server-{number}")]),
                weight: *weight,
            })
            .collect()
    }

    /// How often each number occurs; index 0 is number 1.
    pub(crate) fn counts(picks: impl Iterator<Item = ServerNumber>, servers: usize) -> Vec<u32> {
        let mut counts = vec![0; servers];
        for pick in picks {
            counts[pick.index() - 1] += 1;
        }
        counts
    }

    /// Pearson's statistic against equal shares.
    pub(crate) fn chi_square(counts: &[u32]) -> f64 {
        let mean =
            f64::from(counts.iter().sum::<u32>()) / f64::from(u32::try_from(counts.len()).unwrap());
        counts
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2) / mean)
            .sum()
    }
}
