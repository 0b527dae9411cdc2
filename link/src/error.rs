use carrick_agent::{Link, Netns};
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
    /// The client's namespace is not there, or not yet.
    #[error("mechanism.parameters.inodeURL: there is no such network namespace")]
    FarNetns(#[source] carrick_agent::Error),
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
    /// The agent's reason, by the name of the mechanism's parameter if it is
    /// about one; `router` is not the client's namespace.
    pub(crate) fn of_agent(error: carrick_agent::Error, router: &Netns) -> Self {
        match error {
            carrick_agent::Error::Invalid(mut invalid) if invalid.field == Link::FAR_NAME => {
                "mechanism.parameters.name".clone_into(&mut invalid.field);
                Self::Mechanism(invalid)
            }
            error @ carrick_agent::Error::NoNetns { .. } if !is_about(&error, router) => {
                Self::FarNetns(error)
            }
            other => Self::Agent(other),
        }
    }

    /// What the caller can do about it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Agent(carrick_agent::Error::Invalid(_))
            | Self::IdInUse(_)
            | Self::Mechanism(_)
            | Self::NoneOffered { .. } => Kind::Invalid,
            // A namespace or the other end's device may still come, and the next
            // try has another identifier.
            Self::FarNetns(_)
            | Self::Agent(
                carrick_agent::Error::NoDevice { .. }
                | carrick_agent::Error::NoNetns { .. }
                | carrick_agent::Error::Unavailable(_)
                | carrick_agent::Error::VniInUse { .. },
            ) => Kind::Unavailable,
            Self::Agent(_) | Self::NoSegment => Kind::Internal,
        }
    }
}

fn is_about(error: &carrick_agent::Error, wanted: &Netns) -> bool {
    matches!(error, carrick_agent::Error::NoNetns { netns, .. } if netns == wanted)
}
