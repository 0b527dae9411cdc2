use carrick_chain::Kind;
use carrick_types::Invalid;

/// Why a link cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent could not make it.
    #[error("the agent could not make the link")]
    Agent(#[source] carrick_agent::Error),
    /// A parameter of the mechanism is missing or wrong.
    #[error("the mechanism's parameters are not right")]
    Mechanism(#[source] Invalid),
    /// Nothing that the client offers can be done here.
    #[error("cannot support any of the requested mechanisms: {}", reasons.join("; "))]
    NoneOffered {
        /// Each offer with the reason against it.
        reasons: Vec<String>,
    },
    /// A tunnel was asked for and this node has no underlay address.
    #[error("this node has no underlay address for tunnels (set CARRICK_TUNNEL_IP)")]
    NoUnderlay,
    /// The answer says nothing about the endpoint's path segment.
    #[error("the answer has no path segment of the endpoint")]
    NoSegment,
}

impl Error {
    /// What the caller can do about it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Agent(carrick_agent::Error::Invalid(_))
            | Self::Mechanism(_)
            | Self::NoneOffered { .. } => Kind::Invalid,
            Self::Agent(carrick_agent::Error::Unavailable(_)) | Self::NoUnderlay => {
                Kind::Unavailable
            }
            Self::Agent(_) | Self::NoSegment => Kind::Internal,
        }
    }
}
