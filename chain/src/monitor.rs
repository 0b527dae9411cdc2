//! `MonitorConnections`: who wants to hear of which connections.

mod hub;
mod queue;
mod selector;

pub(crate) use hub::Hub;
pub use hub::Monitor;
pub use selector::Selector;

use std::sync::Arc;

use carrick_types::Connection;

/// What kind of news a [`ConnectionEvent`] is (NSM `ConnectionEventType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The connections are closed.
    Delete,
    /// All there are at the beginning; maybe none.
    InitialStateTransfer,
    /// The connections are new or changed.
    Update,
}

/// News of connections (NSM `ConnectionEvent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// What kind of news.
    pub kind: EventKind,
    /// The connections as this component sees them: `id` and `path.index` are
    /// its own.
    pub connections: Vec<Arc<Connection>>,
}
