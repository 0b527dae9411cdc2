use std::fmt;
use std::sync::Arc;

use carrick_chain::Endpoint;
use carrick_proto::connection as wire;
use carrick_proto::connection::monitor_connection_server::MonitorConnection;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Authorization, ServerOptions};
use crate::convert::{events_to_wire, selector_from_wire};
use crate::{caller_of, invalid};

/// Serves `connection.MonitorConnection` with an [`Endpoint`].
pub struct Monitoring {
    endpoint: Endpoint,
    authorization: Authorization,
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
            authorization: options.authorization.clone(),
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
        let (_, extensions, message) = request.into_parts();
        let selector = selector_from_wire(message).map_err(|e| invalid(&e))?;
        (self.authorization).monitor(&self.endpoint, &selector, caller_of(&extensions))?;
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
