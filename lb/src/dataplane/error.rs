use std::io;

/// Why a data plane did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or a program refused.
    #[error("failed to {what}")]
    Access {
        /// What was tried, as a verb and its object.
        what: String,
        /// The kernel's or library's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table has no room for the plan.
    #[error("{table} has room for {limit}, and {wanted} are wanted")]
    Full {
        /// The table.
        table: &'static str,
        /// Its size.
        limit: usize,
        /// What the plan would need.
        wanted: usize,
    },
    /// The plan names a number that neither it nor the tables hold: a bug of
    /// the caller.
    #[error("the plan names {what}, which is not there")]
    Missing {
        /// The kind and number.
        what: String,
    },
    /// This data plane, kernel or process cannot do that.
    #[error("{what} is not possible here: {why}")]
    Unsupported {
        /// The mode, policy or feature.
        what: String,
        /// The cause, and where it helps, what would change it.
        why: String,
    },
}

impl Error {
    /// An access error of the operating system.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::access(what, source)
    }

    /// An access error with its source.
    pub fn access(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Access {
            what: what.into(),
            source: source.into(),
        }
    }
}
