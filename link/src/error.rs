use carrick_chain::Kind;
use carrick_types::{ConnectionId, Invalid};

/// Why a link cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent could not make it.
    #[error("the agent could not make the link")]
    Agent(#[source] carrick_agent::Error),
    /// The endpoint answered with an id that another one's link has.
    #[error("the endpoint's id for the connection, {0}, is that of another link")]
    IdInUse(ConnectionId),
    /// A parameter of the mechanism is missing or wrong.
    #[error("the mechanism's parameters are not right")]
    Mechanism(#[source] Invalid),
    /// Nothing that the client offers can be done here.
    #[error("cannot support any of the requested mechanisms: {}", reasons.join("; "))]
    NoneOffered {
        /// Each offer with the reason against it.
        reasons: Vec<String>,
    },
    /// The answer says nothing about the endpoint's path segment.
    #[error("the answer has no path segment of the endpoint")]
    NoSegment,
}

impl Error {
    /// What the caller can do about it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Agent(carrick_agent::Error::Invalid(_))
            | Self::IdInUse(_)
            | Self::Mechanism(_)
            | Self::NoneOffered { .. } => Kind::Invalid,
            // A namespace or the other end's device may still come, and the next
            // try has another identifier.
            Self::Agent(
                carrick_agent::Error::NoDevice { .. }
                | carrick_agent::Error::NoNetns { .. }
                | carrick_agent::Error::Unavailable(_)
                | carrick_agent::Error::VniInUse { .. },
            ) => Kind::Unavailable,
            Self::Agent(_) | Self::NoSegment => Kind::Internal,
        }
    }
}
