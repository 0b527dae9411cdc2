use std::fmt;

use carrick_types::Invalid;

/// How the server of a new flow is chosen. Known flows stay where they are,
/// whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// The hash table's server, unless it has more than `percent` of its fair
    /// share of live flows; then the next of the ring below that.
    BoundedLoad {
        /// The bound, in percent of the fair share: 101 to 1000.
        percent: u16,
        /// Size of the hash table.
        size: TableSize,
    },
    /// The less loaded (live flows by weight) of two candidates of the ring.
    LeastConnections,
    /// Maglev hash of the 5-tuple.
    Maglev {
        /// Size of the hash table.
        size: TableSize,
    },
    /// Maglev hash of the source address alone.
    SourceHash {
        /// Size of the hash table.
        size: TableSize,
    },
    /// The hash table's server, unless it has more than `above` live flows
    /// over the average; then the least loaded of candidates of the ring.
    Spill {
        /// Flows above the average: 1 to 1000.
        above: u16,
        /// Size of the hash table.
        size: TableSize,
    },
    /// Each in turn, as often as its weight says.
    #[default]
    WeightedRoundRobin,
}

impl Policy {
    /// Its name in configuration, status and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::BoundedLoad { .. } => "bounded-load",
            Self::LeastConnections => "least-connections",
            Self::Maglev { .. } => "maglev",
            Self::SourceHash { .. } => "source-hash",
            Self::Spill { .. } => "spill",
            Self::WeightedRoundRobin => "weighted-round-robin",
        }
    }

    /// Size of the hash table. Policies that choose by the ring have one too:
    /// it serves flows that no table has room for.
    #[must_use]
    pub fn table_size(&self) -> TableSize {
        match self {
            Self::BoundedLoad { size, .. }
            | Self::Maglev { size }
            | Self::SourceHash { size }
            | Self::Spill { size, .. } => *size,
            Self::LeastConnections | Self::WeightedRoundRobin => TableSize::default(),
        }
    }
}

/// Number of slots of a hash table: a prime, so that every step through the
/// table visits every slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableSize(u32);

impl TableSize {
    /// Largest size: the greatest prime below 2^20 (2 MiB of slots).
    pub const MAX: u32 = 1_048_573;

    /// Takes a prime of 3 to [`TableSize::MAX`].
    ///
    /// # Errors
    ///
    /// The number is not a prime or out of range; [`TableSize::at_least`] finds the next one.
    pub fn new(size: u32) -> Result<Self, Invalid> {
        if (3..=Self::MAX).contains(&size) && is_prime(size) {
            return Ok(Self(size));
        }
        Err(Invalid::new(
            "policy.size",
            size,
            "a prime of 3 to 1048573, such as 65537 or 10007",
        ))
    }

    /// The smallest size with at least that many slots, or the largest.
    #[must_use]
    pub fn at_least(slots: u32) -> Self {
        (slots.max(3)..=Self::MAX)
            .find(|size| is_prime(*size))
            .map_or(Self(Self::MAX), Self)
    }

    /// The number of slots.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    /// 65,537: by hash alone, one server of 100 lost moves 0.6 % of the flows
    /// of the others.
    fn default() -> Self {
        Self(65_537)
    }
}

impl fmt::Display for TableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_size_is_a_prime() {
        for size in [3, 10_007, 65_537, 99_991, TableSize::MAX] {
            assert_eq!(TableSize::new(size).unwrap().get(), size);
        }
        for size in [0, 1, 2, 100, 65_536, TableSize::MAX + 1, u32::MAX] {
            assert!(TableSize::new(size).is_err(), "{size}");
        }
        assert_eq!(TableSize::at_least(65_536), TableSize::default());
        assert_eq!(TableSize::at_least(u32::MAX).get(), TableSize::MAX);
    }
}
