use std::io;

use carrick_types::{ConnectionId, Vni};

use crate::Netns;

/// Why the agent could not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The change makes no sense as it stands.
    #[error("the change cannot be made as it stands")]
    Invalid(#[source] carrick_types::Invalid),
    /// The kernel refused a step.
    #[error("cannot {step}")]
    Kernel {
        /// The step in words, with the names it was about.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The other end has not made its device yet ([`LinkKind::Given`](crate::LinkKind::Given));
    /// may be tried again.
    #[error("the device of connection {id} is not in {netns} (yet)")]
    NoDevice {
        /// Whose device it is.
        id: ConnectionId,
        /// Where it was looked for.
        netns: Netns,
    },
    /// A namespace is not there, or is something else.
    #[error("cannot enter {netns}")]
    NoNetns {
        /// The namespace.
        netns: Netns,
        /// What was found instead.
        #[source]
        source: io::Error,
    },
    /// The agent is not there or does not answer.
    #[error("the agent is not reachable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another VXLAN device of this node has that identifier; another one may
    /// be tried.
    #[error("VNI {vni} is in use on UDP port {port}")]
    VniInUse {
        /// The identifier.
        vni: Vni,
        /// The UDP port it is in use on.
        port: u16,
    },
}

impl Error {
    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Kernel { step, source }
    }
}
