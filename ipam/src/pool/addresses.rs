use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use carrick_types::{Invalid, Prefix, host};

use super::blocks::Excluded;
use super::{PoolError, PrefixPool};

/// Hands out the addresses of one prefix of an endpoint, the lowest first.
///
/// The network address is the endpoint's own and is never handed out; the last
/// one is (NSM `vl3.IPAM`: a /24 serves 255 clients). What is released may rest
/// for a while: then only its former holder gets it, by [`AddressPool::reclaim`],
/// unless nothing else is left.
#[derive(Clone, Debug)]
pub struct AddressPool {
    pool: PrefixPool,
    rest: Duration,
    /// What rests, and since when. It is still taken in `pool`.
    resting: BTreeMap<Prefix, SystemTime>,
    /// The same in order of time; entries that `resting` does not confirm are old.
    order: VecDeque<(SystemTime, Prefix)>,
}

impl AddressPool {
    /// A pool of `prefix` without `excluded`, in which what is released rests for `rest`.
    ///
    /// # Errors
    ///
    /// The prefix has no room for an endpoint and a client.
    pub fn new(prefix: Prefix, excluded: &[Prefix], rest: Duration) -> Result<Self, Invalid> {
        if prefix.length() == prefix.width() {
            return Err(Invalid::new(
                "prefix",
                prefix,
                "a prefix of two addresses or more",
            ));
        }
        let mut pool = PrefixPool::new(prefix)?;
        pool.exclude(host(prefix.network()));
        for excluded in excluded {
            pool.exclude(*excluded);
        }
        Ok(Self {
            pool,
            rest,
            resting: BTreeMap::new(),
            order: VecDeque::new(),
        })
    }

    /// The prefix of all addresses.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.pool.network()
    }

    /// The endpoint's own address, which is the network's.
    #[must_use]
    pub fn own_address(&self) -> IpAddr {
        self.prefix().network()
    }

    /// Leases the lowest free address outside of `excluded`, or if there is
    /// none the one that has rested longest.
    ///
    /// # Errors
    ///
    /// [`PoolError::Exhausted`].
    pub fn allocate(&mut self, excluded: &[Prefix], now: SystemTime) -> Result<IpAddr, PoolError> {
        self.allocate_outside(&Excluded::new(excluded.iter().copied()), now)
    }

    pub(crate) fn allocate_outside(
        &mut self,
        excluded: &Excluded,
        now: SystemTime,
    ) -> Result<IpAddr, PoolError> {
        let width = self.prefix().width();
        self.allocate_prefix(width, excluded, now)
            .map(Prefix::network)
    }

    /// Leases the lowest free prefix of `length` bits outside of `excluded`.
    pub(crate) fn allocate_prefix(
        &mut self,
        length: u8,
        excluded: &Excluded,
        now: SystemTime,
    ) -> Result<Prefix, PoolError> {
        self.settle(now);
        match self.pool.allocate_outside(length, excluded) {
            Err(full @ PoolError::Exhausted { .. }) => {
                self.longest_resting(length, excluded).ok_or(full)
            }
            result => result,
        }
    }

    /// Leases exactly `prefix` to somebody new.
    ///
    /// # Errors
    ///
    /// [`PoolError::Taken`] unless it is inside, free and rested.
    pub fn reserve(&mut self, prefix: Prefix, now: SystemTime) -> Result<(), PoolError> {
        self.settle(now);
        self.pool.reserve(prefix)
    }

    /// Leases exactly `prefix` to whom held it before, rested or not.
    ///
    /// # Errors
    ///
    /// [`PoolError::Taken`] unless it is inside and not leased.
    pub fn reclaim(&mut self, prefix: Prefix, now: SystemTime) -> Result<(), PoolError> {
        if self.resting.remove(&prefix).is_some() {
            return Ok(());
        }
        self.reserve(prefix, now)
    }

    /// Gives back what was leased; `false` if `prefix` was not.
    pub fn release(&mut self, prefix: Prefix, now: SystemTime) -> bool {
        if self.resting.contains_key(&prefix) || !self.pool.is_taken(prefix) {
            return false;
        }
        if self.rest.is_zero() {
            return self.pool.free(prefix);
        }
        self.resting.insert(prefix, now);
        self.order.push_back((now, prefix));
        true
    }

    /// Number of addresses that are neither leased nor resting.
    #[must_use]
    pub fn free_addresses(&self) -> u128 {
        self.pool.free_addresses()
    }

    /// Number of addresses and prefixes leased.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.pool.taken_count() - self.resting.len()
    }

    /// Frees what has rested.
    fn settle(&mut self, now: SystemTime) {
        while let Some(&(since, prefix)) = self.order.front() {
            if self.resting.get(&prefix) == Some(&since) {
                if now
                    .duration_since(since)
                    .is_ok_and(|rested| rested < self.rest)
                {
                    return;
                }
                self.resting.remove(&prefix);
                self.pool.free(prefix);
            }
            self.order.pop_front();
        }
    }

    fn longest_resting(&mut self, length: u8, excluded: &Excluded) -> Option<Prefix> {
        let fits = |(since, prefix): &&(SystemTime, Prefix)| {
            prefix.length() == length
                && self.resting.get(prefix) == Some(since)
                && !excluded.overlaps(*prefix)
        };
        let prefix = self.order.iter().find(fits)?.1;
        self.resting.remove(&prefix);
        Some(prefix)
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> &PrefixPool {
        &self.pool
    }
}
