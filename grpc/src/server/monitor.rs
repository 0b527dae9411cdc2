use std::fmt;
use std::sync::Arc;

use carrick_chain::Endpoint;
use carrick_proto::connection as wire;
use carrick_proto::connection::monitor_connection_server::MonitorConnection;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::ServerOptions;
use crate::convert::{events_to_wire, selector_from_wire};
use crate::invalid;

/// Serves `connection.MonitorConnection` with an [`Endpoint`].
pub struct Monitoring {
    endpoint: Endpoint,
    max: usize,
    streams: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl fmt::Debug for Monitoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitoring")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Monitoring {
    /// The service of an endpoint; its streams end on `stopping`.
    #[must_use]
    pub fn new(endpoint: Endpoint, options: &ServerOptions, stopping: CancellationToken) -> Self {
        let max = options.max_monitors;
        Self {
            endpoint,
            max,
            streams: Arc::new(Semaphore::new(max)),
            stopping,
        }
    }
}

#[tonic::async_trait]
impl MonitorConnection for Monitoring {
    type MonitorConnectionsStream = BoxStream<'static, Result<wire::ConnectionEvent, Status>>;

    async fn monitor_connections(
        &self,
        request: Request<wire::MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::unavailable(format!("{} monitor streams are being served", self.max))
        })?;
        let selector = selector_from_wire(request.into_inner()).map_err(|e| invalid(&e))?;
        let events = self.endpoint.monitor(selector);
        // Never `Cancelled`, on which NSM's clients stop healing.
        let end = stream::once(async move {
            drop(permit);
            Err(Status::unavailable("the endpoint is ending"))
        });
        let events = events
            .flat_map(|event| stream::iter(events_to_wire(&event)))
            .map(Ok)
            .take_until(self.stopping.clone().cancelled_owned())
            .chain(end);
        Ok(Response::new(events.boxed()))
    }
}
