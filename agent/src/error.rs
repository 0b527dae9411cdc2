/// Why the agent could not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The change makes no sense as it stands.
    #[error("the change cannot be made as it stands")]
    Invalid(#[source] carrick_types::Invalid),
    /// The agent is not there or does not answer.
    #[error("the agent is not reachable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refused a step.
    #[error("cannot {step}")]
    Kernel {
        /// The step in words, with the names it was about.
        step: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}
