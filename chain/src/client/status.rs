use std::sync::Arc;

use carrick_types::Connection;

use crate::Error;

/// How a kept connection is.
#[derive(Clone, Debug, Default)]
pub enum ClientState {
    /// It is closed, or left to itself; the last state there is.
    Closed,
    /// It was never up yet.
    #[default]
    Connecting,
    /// It was up and is mended; traffic may go on meanwhile.
    Healing,
    /// It is up, as last answered.
    Up(Arc<Connection>),
}

/// A kept connection's state and what it took.
#[derive(Clone, Debug, Default)]
pub struct ClientStatus {
    /// How it is.
    pub state: ClientState,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Times that it was closed in order to be asked for anew.
    pub reselects: u64,
    /// Why the last Request failed; gone when one succeeds.
    pub error: Option<Arc<Error>>,
}

impl ClientStatus {
    /// The connection, if it is up.
    #[must_use]
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.state {
            ClientState::Up(connection) => Some(connection),
            ClientState::Closed | ClientState::Connecting | ClientState::Healing => None,
        }
    }
}
