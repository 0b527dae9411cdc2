//! Pools: which part of a network is free. Pure: no clock is read, no I/O done.
//!
//! Read first: [`PrefixPool`], which hands out blocks of a network, and
//! [`AddressPool`], which hands out the addresses of one endpoint's prefix.

mod addresses;
mod blocks;
mod prefixes;

#[cfg(test)]
mod tests;

use carrick_types::Prefix;

pub use addresses::AddressPool;
pub(crate) use blocks::Excluded;
pub use prefixes::PrefixPool;

/// Why a pool did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Nothing of that length is free, or all that is free is excluded.
    #[error("no free /{length} in {network}")]
    Exhausted {
        /// The pool's network.
        network: Prefix,
        /// The length asked for, in bits.
        length: u8,
    },
    /// The length is shorter than the network's or longer than an address.
    #[error("prefix length {length} is not {} to {} as in {network}", network.length(), network.width())]
    Length {
        /// The pool's network.
        network: Prefix,
        /// The length asked for, in bits.
        length: u8,
    },
    /// The prefix asked for is not inside the network, or not wholly free.
    #[error("{prefix} is not free in {network}")]
    Taken {
        /// The pool's network.
        network: Prefix,
        /// The prefix asked for.
        prefix: Prefix,
    },
}
