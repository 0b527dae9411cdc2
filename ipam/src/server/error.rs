use carrick_types::{Invalid, Prefix};

/// Why no prefix is granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The prefix is just being given back; trying again helps.
    #[error("{0} is being given back")]
    Busy(Prefix),
    /// Nothing is free, or what is free is excluded.
    #[error("no free prefix{} in {networks:?}", length.map(|length| format!(" of length {length}")).unwrap_or_default())]
    Exhausted {
        /// The networks.
        networks: Vec<Prefix>,
        /// The length, if one was asked for.
        length: Option<u8>,
    },
    /// Somebody else has it, or nobody.
    #[error("{0} is not granted to the caller")]
    NotOwner(Prefix),
    /// One owner or stream has too many.
    #[error("the caller has {0} prefixes, which is the limit")]
    TooMany(usize),
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An option is wrong.
    #[error("the prefix server's options are wrong")]
    Options(#[from] Invalid),
    /// The store cannot be read.
    #[error("the grants of an earlier run cannot be read")]
    Store(#[from] carrick_store::Error),
}
