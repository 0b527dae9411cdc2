use carrick_policy::Refused;
use carrick_types::{EndpointName, Invalid};
use tonic::{Code, Status};

/// Why a call to a registry brought nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the registry answered is not what the API allows.
    #[error("the registry's answer is not valid")]
    Answer(#[from] Invalid),
    /// Another endpoint holds the name.
    #[error("the name of endpoint {name} belongs to another one")]
    Conflict {
        /// The name.
        name: EndpointName,
        /// What the registry said of the holder.
        #[source]
        source: Box<Status>,
    },
    /// The registry's answer is refused by a policy of ours.
    #[error("the registry's answer to {call} is not to be trusted")]
    Distrusted {
        /// The call.
        call: &'static str,
        /// Which policy, and why.
        #[source]
        source: Box<Refused>,
    },
    /// The registry did not answer in time.
    #[error("the registry did not answer {call} within {after:?}")]
    DeadlineExceeded {
        /// The call.
        call: &'static str,
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// The registry refused, and would again.
    #[error("the registry refused {call}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it said.
        #[source]
        source: Box<Status>,
    },
    /// Another endpoint registered under the name of ours, which the registry
    /// let it.
    #[error("endpoint {name} was registered by another one, at {url:?}")]
    Taken {
        /// The name.
        name: EndpointName,
        /// Where the other one listens, as the registry has it.
        url: String,
    },
    /// Our own token could not be made.
    #[error("no token could be made for the registry")]
    Token(#[source] carrick_chain::BoxError),
    /// The registry is away or not able to serve; trying again may help.
    #[error("the registry is not available for {call}")]
    Unavailable {
        /// The call.
        call: &'static str,
        /// What is known of it.
        #[source]
        source: Box<Status>,
    },
}

impl Error {
    pub(crate) fn answered(call: &'static str, status: Status) -> Self {
        let source = Box::new(status);
        match source.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused { call, source },
            _ => Self::Unavailable { call, source },
        }
    }
}
