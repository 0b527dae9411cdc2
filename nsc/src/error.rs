use std::error::Error as StdError;

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The admin listener cannot be opened.
    #[error("cannot open the admin listener")]
    Admin(#[source] carrick_telemetry::Error),
    /// `CARRICK_ADMIN` is a URL, but not one for the admin listener.
    #[error("the admin listener (CARRICK_ADMIN) has no such address")]
    AdminAddress(#[from] carrick_telemetry::InvalidAddress),
    /// The prober of the data path cannot be made.
    #[error("cannot probe the data path")]
    Agent(#[source] std::io::Error),
    /// The next hop's URL cannot be dialled.
    #[error("cannot dial the next hop (NSM_CONNECT_TO)")]
    Dial(#[from] carrick_grpc::DialError),
    /// The key that the client signs with cannot be read or made.
    #[error("cannot use the client's key (CARRICK_STATE_DIR)")]
    Identity(#[from] carrick_grpc::IdentityError),
    /// The client's name makes no connection id or no identity.
    #[error("the client's name (NSM_NAME) cannot be used")]
    Name(#[source] carrick_types::Invalid),
    /// The policies cannot be used.
    #[error("cannot use the policies (CARRICK_CLIENT_POLICIES)")]
    Policies(#[from] carrick_policy::LoadError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
    /// Logs or traces cannot be set up.
    #[error("cannot set up logs and traces")]
    Telemetry(#[source] carrick_telemetry::Error),
}

/// An error and its causes in one line. A cause that only repeats what is there
/// already is left out.
pub(crate) fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
