use std::net::IpAddr;

use carrick_types::{ConnectionId, ExtraPrefixRequest, IpFamily, Prefix};

use super::record::{ClientId, Lease};

/// What a connection asks for.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) connection: &'a ConnectionId,
    pub(crate) client: Option<ClientId>,
    /// Addresses that the client says it has.
    pub(crate) claimed: &'a [IpAddr],
    pub(crate) excluded: &'a [Prefix],
    pub(crate) extra: &'a [ExtraPrefixRequest],
}

/// What a connection is given, and what must be on disk before it is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whose plan it is.
    pub(super) connection: Option<ConnectionId>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) extra: Vec<Prefix>,
    pub(crate) put: Vec<(Prefix, Lease)>,
    pub(crate) remove: Vec<Prefix>,
    /// What goes back to another connection of the same client.
    pub(crate) give_back: Vec<(Prefix, Lease)>,
    /// Of `put`, what nobody had before.
    pub(super) fresh: Vec<Prefix>,
    /// Of `put`, what another connection of the same client had, and which.
    pub(super) taken_over: Option<(ConnectionId, Vec<Prefix>)>,
}

impl Plan {
    pub(crate) fn is_written(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty() && self.give_back.is_empty()
    }
}

/// Why a connection gets no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// All that is free is in the prefixes that the client excludes.
    #[error(
        "no free {family:?} address in {prefixes:?} outside of the prefixes that the client excludes"
    )]
    Excluded {
        /// The family.
        family: IpFamily,
        /// The endpoint's prefixes.
        prefixes: Vec<Prefix>,
    },
    /// A further prefix must have at least 1 bit more than the endpoint's, and
    /// their number is limited.
    #[error(
        "extra prefixes: {required} of length {length} are not within {limit} and {prefixes:?}"
    )]
    Extra {
        /// The length asked for.
        length: u8,
        /// How many are required.
        required: u32,
        /// Most that one connection gets.
        limit: u32,
        /// The endpoint's prefixes.
        prefixes: Vec<Prefix>,
    },
    /// Everything is leased.
    #[error("no free {family:?} address or prefix of length {length} in {prefixes:?}")]
    Full {
        /// The family.
        family: IpFamily,
        /// The length that was wanted.
        length: u8,
        /// The endpoint's prefixes.
        prefixes: Vec<Prefix>,
    },
    /// No prefix has been granted yet (NSM `vl3.IPAM`).
    #[error("prefix pool is initializing")]
    Initializing,
}
