use std::collections::BTreeSet;

use carrick_types::{Invalid, Prefix};

use super::PoolError;
use super::blocks::{Excluded, FreeBlocks};

/// Hands out prefixes of one network, of any length, aligned and never
/// overlapping; the lowest free one first.
#[derive(Clone, Debug)]
pub struct PrefixPool {
    network: Prefix,
    free: FreeBlocks,
    taken: BTreeSet<Prefix>,
    excluded: Vec<Prefix>,
}

impl PrefixPool {
    /// A pool of all of `network`.
    ///
    /// # Errors
    ///
    /// The length of `network` is 0: no network is the whole Internet.
    pub fn new(network: Prefix) -> Result<Self, Invalid> {
        if network.length() == 0 {
            return Err(Invalid::new(
                "network",
                network,
                "a prefix of length 1 or more",
            ));
        }
        Ok(Self {
            network,
            free: FreeBlocks::new(network),
            taken: BTreeSet::new(),
            excluded: Vec::new(),
        })
    }

    /// The network that is divided.
    #[must_use]
    pub fn network(&self) -> Prefix {
        self.network
    }

    /// Takes the lowest free prefix of `length` bits that shares no address
    /// with `excluded`.
    ///
    /// # Errors
    ///
    /// [`PoolError::Length`] and [`PoolError::Exhausted`].
    pub fn allocate(&mut self, length: u8, excluded: &[Prefix]) -> Result<Prefix, PoolError> {
        self.allocate_outside(length, &Excluded::new(excluded.iter().copied()))
    }

    pub(crate) fn allocate_outside(
        &mut self,
        length: u8,
        excluded: &Excluded,
    ) -> Result<Prefix, PoolError> {
        let network = self.network;
        if !(network.length()..=network.width()).contains(&length) {
            return Err(PoolError::Length { network, length });
        }
        let prefix = self
            .free
            .take_lowest(length, excluded)
            .ok_or(PoolError::Exhausted { network, length })?;
        self.taken.insert(prefix);
        Ok(prefix)
    }

    /// Takes exactly `prefix`.
    ///
    /// # Errors
    ///
    /// [`PoolError::Taken`] unless all of it is inside and free.
    pub fn reserve(&mut self, prefix: Prefix) -> Result<(), PoolError> {
        if !self.free.take(prefix) {
            let network = self.network;
            return Err(PoolError::Taken { network, prefix });
        }
        self.taken.insert(prefix);
        Ok(())
    }

    /// Never hands out any of `prefix` from now on. What is taken stays taken
    /// until it is freed.
    pub fn exclude(&mut self, prefix: Prefix) {
        if self.network.overlaps(prefix) {
            self.free.take_all(prefix);
            self.excluded.push(prefix);
        }
    }

    /// Gives back what [`PrefixPool::allocate`] or [`PrefixPool::reserve`]
    /// took; `false` if `prefix` is none of it.
    pub fn free(&mut self, prefix: Prefix) -> bool {
        if !self.taken.remove(&prefix) {
            return false;
        }
        let given = self.free.give(prefix);
        debug_assert!(given, "what is taken is not free");
        for excluded in &self.excluded {
            if excluded.overlaps(prefix) {
                self.free.take_all(*excluded);
            }
        }
        true
    }

    /// Whether all of `prefix` could be taken.
    #[must_use]
    pub fn is_free(&self, prefix: Prefix) -> bool {
        self.free.contains(prefix)
    }

    /// Whether exactly `prefix` is taken.
    #[must_use]
    pub fn is_taken(&self, prefix: Prefix) -> bool {
        self.taken.contains(&prefix)
    }

    /// What is taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = Prefix> {
        self.taken.iter().copied()
    }

    /// How many prefixes are taken.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.taken.len()
    }

    /// Number of free addresses.
    #[must_use]
    pub fn free_addresses(&self) -> u128 {
        self.free.free()
    }

    #[cfg(test)]
    pub(crate) fn blocks(&self) -> &FreeBlocks {
        &self.free
    }
}
