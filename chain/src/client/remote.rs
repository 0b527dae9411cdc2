use carrick_types::Connection;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::Instant;

use crate::{ConnectionEvent, Error, Selector};

/// What the client half needs from the other side: the next hop.
pub trait Remote: Send + Sync + 'static {
    /// Asks for a connection.
    fn request(
        &self,
        request: Connection,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Connection, Error>>;

    /// Closes a connection.
    fn close(&self, connection: Connection, deadline: Instant) -> BoxFuture<'_, Result<(), Error>>;

    /// Follows connections. A stream that ends, be it with an error or
    /// without, means that the other side is away.
    fn monitor(&self, selector: Selector) -> BoxFuture<'_, Result<Events, Error>>;
}

/// What [`Remote::monitor`] gives.
pub type Events = BoxStream<'static, Result<ConnectionEvent, MonitorEnd>>;

/// Why a monitor stream ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MonitorEnd {
    /// The other side says that healing shall stop (gRPC `CANCELLED`).
    #[error("the other side cancelled the monitor stream")]
    Cancelled,
    /// The other side is away, or does not serve monitoring.
    #[error("the monitor stream broke: {0}")]
    Lost(String),
}

/// A probe of a connection's data path.
pub trait Liveness: Send + Sync + 'static {
    /// Whether packets go through. The caller bounds the time it waits.
    fn alive(&self, connection: &Connection) -> BoxFuture<'_, bool>;
}
