use std::error::Error as StdError;

use carrick_types::{Connection, ConnectionId};

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A Close.
    Close,
    /// A Request.
    Request,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Close => "Close",
            Self::Request => "Request",
        })
    }
}

/// What kind of failure it is: what the caller can do about it. The gRPC edge
/// turns it into a status code in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Too late: the deadline passed.
    DeadlineExceeded,
    /// The pool is empty; others must leave first.
    Exhausted,
    /// Our bug.
    Internal,
    /// The Request is wrong and will stay wrong.
    Invalid,
    /// The caller may not do this.
    PermissionDenied,
    /// Something we need is away or not ready yet; trying again may help.
    Unavailable,
}

/// Why a connection could not be served: which element, which call, which
/// connection; `source()` says what the element said.
#[derive(Debug, thiserror::Error)]
#[error("{element}: {operation} of connection {connection} failed")]
pub struct Error {
    /// The element that failed.
    pub element: &'static str,
    /// The call it failed in.
    pub operation: Operation,
    /// The connection it failed for.
    pub connection: ConnectionId,
    /// What the caller can do about it.
    pub kind: Kind,
    /// What the element said.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// Says that `element` could not serve a Request.
    pub fn request(
        element: &'static str,
        connection: &Connection,
        kind: Kind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(element, Operation::Request, &connection.id, kind, source)
    }

    /// Says that `element` could not close.
    pub fn close(
        element: &'static str,
        connection: &Connection,
        kind: Kind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(element, Operation::Close, &connection.id, kind, source)
    }

    /// Says that `element` failed in `operation`.
    pub fn new(
        element: &'static str,
        operation: Operation,
        connection: &ConnectionId,
        kind: Kind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            element,
            operation,
            connection: connection.clone(),
            kind,
            source: source.into(),
        }
    }
}
