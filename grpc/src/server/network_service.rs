use carrick_chain::{Endpoint, Error, Kind};
use carrick_proto::connection as wire;
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_server::NetworkService;
use carrick_types::Connection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, error, info, info_span};

use super::{ServerOptions, deadline};
use crate::convert::{connection_from_wire, connection_to_wire, request_from_wire};
use crate::{
    ConnectInfo, Descriptors, Peer, caller_of, invalid, namespaces, status, token_from_metadata,
    trace,
};

/// Serves `networkservice.NetworkService` with an [`Endpoint`].
#[derive(Debug)]
pub struct Requests {
    endpoint: Endpoint,
    options: ServerOptions,
    permits: Semaphore,
}

impl Requests {
    /// The service of an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint, options: &ServerOptions) -> Self {
        let permits = Semaphore::new(options.max_requests);
        Self {
            endpoint,
            options: options.clone(),
            permits,
        }
    }

    /// How long the chain has, and when the client is told even if the chain
    /// does not answer.
    fn deadlines(&self, metadata: &MetadataMap) -> (Instant, Instant) {
        let timeout = deadline::timeout(metadata, &self.options);
        let margin = deadline::margin(timeout);
        let now = Instant::now();
        (now + timeout - margin, now + timeout - margin / 2)
    }

    async fn serve(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<wire::Connection>, Status> {
        let (deadline, end) = self.deadlines(request.metadata());
        let _permit = self.permits.try_acquire().map_err(|_| {
            Status::unavailable(format!(
                "{} Requests are being served",
                self.options.max_requests
            ))
        })?;
        let descriptors = descriptors(&request);
        let (metadata, extensions, message) = request.into_parts();
        let mut connection = request_from_wire(message).map_err(|e| invalid(&e))?;
        take_token(&mut connection, &metadata);
        record(&connection);
        let authorization = &self.options.authorization;
        authorization.request(&self.endpoint, &connection, caller_of(&extensions))?;
        let held = self
            .options
            .namespaces
            .receive(descriptors.as_ref(), &connection);
        let held = timeout_at(end, held).await.map_err(|_| late())?;
        let held = held.map_err(|e| invalid(&e))?;
        let answer = timeout_at(end, self.endpoint.request(connection, deadline)).await;
        drop(held);
        let mut answer = answer.map_err(|_| late())?.map_err(|e| refuse(&e))?;
        namespaces::give(descriptors.as_ref(), &mut answer);
        Ok(Response::new(connection_to_wire(&answer)))
    }

    async fn finish(&self, request: Request<wire::Connection>) -> Result<Response<()>, Status> {
        let (_, end) = self.deadlines(request.metadata());
        let descriptors = descriptors(&request);
        let (metadata, extensions, message) = request.into_parts();
        let mut connection = connection_from_wire(message).map_err(|e| invalid(&e))?;
        take_token(&mut connection, &metadata);
        record(&connection);
        let authorization = &self.options.authorization;
        authorization.close(&self.endpoint, &connection, caller_of(&extensions))?;
        namespaces::give_back(descriptors.as_ref(), &connection);
        let closed = timeout_at(end, self.endpoint.close(connection)).await;
        closed.map_err(|_| late())?.map_err(|e| refuse(&e))?;
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl NetworkService for Requests {
    async fn request(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<wire::Connection>, Status> {
        let span = info_span!(
            "request",
            otel.kind = "server",
            peer.addr = %peer(&request),
            connection.id = Empty,
            network_service = Empty,
        );
        trace::adopt(&span, request.metadata());
        let observed = self.options.observer.begin();
        observed.answer(self.serve(request).instrument(span).await)
    }

    async fn close(&self, request: Request<wire::Connection>) -> Result<Response<()>, Status> {
        let span = info_span!(
            "close",
            otel.kind = "server",
            peer.addr = %peer(&request),
            connection.id = Empty,
            network_service = Empty,
        );
        trace::adopt(&span, request.metadata());
        self.finish(request).instrument(span).await
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    let info = request.extensions().get::<ConnectInfo>();
    info.map_or(Peer::Tcp(None), |info| info.peer)
}

fn descriptors<T>(request: &Request<T>) -> Option<Descriptors> {
    let info = request.extensions().get::<ConnectInfo>();
    info.and_then(|info| info.descriptors.clone())
}

fn record(connection: &Connection) {
    let span = Span::current();
    span.record("connection.id", connection.id.as_str());
    span.record("network_service", connection.network_service.as_str());
}

/// Puts the caller's token where it belongs (NSM `updatetoken`): in the
/// caller's segment, which is the current one as long as our own is not
/// entered. Without one the segment stays as the caller sent it.
fn take_token(connection: &mut Connection, metadata: &MetadataMap) {
    let index = connection.path.index;
    match (
        token_from_metadata(metadata),
        connection.path.segments.get_mut(index),
    ) {
        (Some(token), Some(segment)) => {
            segment.token = token.value;
            segment.expires = Some(token.expires);
        }
        (None, _) => debug!("the caller sent no token"),
        (Some(_), None) => debug!("the caller has no path segment for its token"),
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the deadline passed; what was begun is undone")
}

/// Here an error leaves the process, so here it is logged. What the caller can
/// cause at will is not worth more than a debug line.
fn refuse(error: &Error) -> Status {
    let status = status(error);
    match error.kind {
        Kind::Internal => error!(error = status.message(), "refused"),
        Kind::Invalid | Kind::PermissionDenied => debug!(error = status.message(), "refused"),
        Kind::DeadlineExceeded | Kind::Exhausted | Kind::Unavailable => {
            info!(error = status.message(), "refused");
        }
    }
    status
}
