//! Calls to the next hop.

use std::fmt;
use std::sync::Arc;

use carrick_chain::{Error, Events, Kind, MonitorEnd, Operation, Remote, Selector, Tokens};
use carrick_policy::Policies;
use carrick_proto::connection::ConnectionEvent as WireEvent;
use carrick_proto::connection::monitor_connection_client::MonitorConnectionClient;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_types::{Connection, ConnectionId};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::warn;

use crate::answers::{caller_of, judge};
use crate::convert::{
    connection_from_wire, connection_to_wire, event_from_wire, request_to_wire, selector_to_wire,
};
use crate::namespaces::Lent;
use crate::status::{chain_of, kind};
use crate::{
    Attachments, Channels, DialError, Dialled, RegistryPath, RemoteError, ServerOptions, Url,
    token_to_metadata, trace,
};

/// Gives each call what NSM expects with it: the caller's token and the trace
/// context. For any generated client: `XClient::with_interceptor(channel, …)`.
#[derive(Clone)]
pub struct CallMetadata {
    tokens: Arc<dyn Tokens>,
    registry: bool,
}

impl fmt::Debug for CallMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMetadata")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl CallMetadata {
    /// For calls of the network service kind.
    pub fn new(tokens: Arc<dyn Tokens>) -> Self {
        Self {
            tokens,
            registry: false,
        }
    }

    /// For calls to a registry, which also want a [`RegistryPath`]: ours is
    /// that of a first caller.
    pub fn for_registry(tokens: Arc<dyn Tokens>) -> Self {
        Self {
            tokens,
            registry: true,
        }
    }
}

impl Interceptor for CallMetadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.tokens.token(None);
        let token = token.map_err(|e| Status::unauthenticated(chain_of(&*e)))?;
        let metadata = request.metadata_mut();
        token_to_metadata(&token, metadata).map_err(|e| Status::internal(e.to_string()))?;
        if self.registry {
            RegistryPath::first(&token).to_metadata(metadata);
        }
        trace::inject(metadata);
        Ok(request)
    }
}

type Intercepted = tonic::service::interceptor::InterceptedService<Channel, CallMetadata>;

/// The next hop over gRPC (NSM `connect`). Cheap to make and to clone: the
/// channel is shared.
#[derive(Clone, Debug)]
pub struct RemoteEndpoint {
    requests: NetworkServiceClient<Intercepted>,
    attachments: Option<Attachments>,
    monitoring: MonitorConnectionClient<Intercepted>,
    policies: Policies,
}

impl RemoteEndpoint {
    /// The component at the other end of `channel`. With attachments, the
    /// network namespaces that a Request offers go along as file descriptors
    /// (NSM `sendfd`).
    #[must_use]
    pub fn new(channel: impl Into<Dialled>, tokens: Arc<dyn Tokens>) -> Self {
        let Dialled {
            channel,
            attachments,
        } = channel.into();
        let metadata = CallMetadata::new(tokens);
        let requests = NetworkServiceClient::with_interceptor(channel.clone(), metadata.clone());
        let monitoring = MonitorConnectionClient::with_interceptor(channel, metadata);
        Self {
            attachments,
            requests: requests.max_decoding_message_size(ServerOptions::MESSAGE_MAX),
            monitoring: monitoring.max_decoding_message_size(ServerOptions::MESSAGE_MAX),
            policies: Policies::client(),
        }
    }

    /// Judges what is answered by these policies instead of NSM's own. They are
    /// asked only where the server's identity is proved, which is over TLS.
    #[must_use]
    pub fn judged(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// The component at `url`, over the channel that all share.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub fn dial(
        channels: &Channels,
        url: &Url,
        tokens: Arc<dyn Tokens>,
    ) -> Result<Self, DialError> {
        Ok(Self::new(channels.dialled(url)?, tokens))
    }

    async fn ask(&self, mut request: Connection, deadline: Instant) -> Result<Connection, Error> {
        let fail = Failure {
            operation: Operation::Request,
            id: request.id.clone(),
        };
        let lent = Lent::attach(self.attachments.as_ref(), &mut request);
        let message = with_deadline(request_to_wire(&request), deadline);
        let mut client = self.requests.clone();
        let answer = fail.answer(timeout_at(deadline, client.request(message)).await)?;
        let (_, answer, extensions) = answer.into_parts();
        let mut answer = connection_from_wire(answer).map_err(|invalid| {
            Error::new(
                ELEMENT,
                fail.operation,
                &fail.id,
                Kind::Unavailable,
                invalid,
            )
        })?;
        let server = caller_of(&extensions);
        let Err(refused) = judge(&self.policies, &answer, server) else {
            lent.restore(&mut answer);
            return Ok(answer);
        };
        let refused = Error::new(
            ELEMENT,
            fail.operation,
            &fail.id,
            Kind::PermissionDenied,
            refused,
        );
        // After a first Request nobody else knows what to close; what was up
        // before a refresh stays up.
        if request.path.following().is_none()
            && let Err(error) = self.finish(answer, deadline).await
        {
            let error: &dyn std::error::Error = &error;
            warn!(error, "an answer that was refused could not be closed");
        }
        Err(refused)
    }

    async fn finish(&self, mut connection: Connection, deadline: Instant) -> Result<(), Error> {
        let fail = Failure {
            operation: Operation::Close,
            id: connection.id.clone(),
        };
        let _lent = Lent::attach(self.attachments.as_ref(), &mut connection);
        let message = with_deadline(connection_to_wire(&connection), deadline);
        let mut client = self.requests.clone();
        fail.answer(timeout_at(deadline, client.close(message)).await)
            .map(Response::into_inner)
    }

    async fn follow(&self, selector: Selector) -> Result<Events, Error> {
        let fail = Failure {
            operation: Operation::Request,
            id: followed(&selector),
        };
        let mut client = self.monitoring.clone();
        let events = client
            .monitor_connections(selector_to_wire(&selector))
            .await;
        let events = events.map_err(|status| fail.error(status))?;
        Ok(stream::unfold(Some(events.into_inner()), next_event).boxed())
    }
}

impl Remote for RemoteEndpoint {
    fn request(
        &self,
        request: Connection,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Connection, Error>> {
        Box::pin(self.ask(request, deadline))
    }

    fn close(&self, connection: Connection, deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.finish(connection, deadline))
    }

    fn monitor(&self, selector: Selector) -> BoxFuture<'_, Result<Events, Error>> {
        Box::pin(self.follow(selector))
    }
}

/// Our name in errors, which is NSM's.
const ELEMENT: &str = "connect";

/// The other side is told how long we wait.
fn with_deadline<T>(message: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}

/// Which call an error is about.
struct Failure {
    operation: Operation,
    id: ConnectionId,
}

impl Failure {
    fn answer<T, L>(
        &self,
        answer: Result<Result<Response<T>, Status>, L>,
    ) -> Result<Response<T>, Error>
    where
        L: std::error::Error + Send + Sync + 'static,
    {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.error(status)),
            Err(late) => {
                let kind = Kind::DeadlineExceeded;
                Err(Error::new(ELEMENT, self.operation, &self.id, kind, late))
            }
        }
    }

    fn error(&self, status: Status) -> Error {
        // What the transport says when its own clock, set to our deadline, was
        // faster than ours.
        let kind = match status.code() {
            Code::Cancelled if is_timeout(&status) => Kind::DeadlineExceeded,
            code => kind(code),
        };
        Error::new(
            ELEMENT,
            self.operation,
            &self.id,
            kind,
            RemoteError::from(status),
        )
    }
}

fn is_timeout(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    status.message() == "Timeout expired"
}

/// The id that a selector names, for errors.
fn followed(selector: &Selector) -> ConnectionId {
    let id = selector
        .segments
        .iter()
        .find_map(|segment| ConnectionId::new(&segment.id).ok());
    id.unwrap_or_else(|| ConnectionId::new("*").expect("an asterisk is an id"))
}

type EventItem = Result<carrick_chain::ConnectionEvent, MonitorEnd>;

/// The next event that makes sense, or why there is none; after an end comes
/// nothing more.
async fn next_event(
    events: Option<Streaming<WireEvent>>,
) -> Option<(EventItem, Option<Streaming<WireEvent>>)> {
    let mut events = events?;
    loop {
        let event = match events.message().await {
            Ok(event) => event?,
            Err(status) => return Some((Err(end(status)), None)),
        };
        match event_from_wire(event) {
            Ok(event) => return Some((Ok(event), Some(events))),
            // One bad event must not hide those behind it.
            Err(error) => warn!(%error, "ignoring a malformed monitor event"),
        }
    }
}

/// Only the other side's own word counts as `Cancelled`: a broken HTTP/2
/// stream has that code, too, and is just what healing is for.
fn end(status: Status) -> MonitorEnd {
    let error = RemoteError::from(status);
    if error.code() == Code::Cancelled && error.is_answer() {
        MonitorEnd::Cancelled
    } else {
        MonitorEnd::Lost(chain_of(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that the transport broke: the status has a cause.
    fn broken() -> Status {
        Status::from_error(Box::new(tonic::TimeoutExpired(())))
    }

    #[test]
    fn only_the_other_sides_own_word_cancels_a_monitor_stream() {
        assert_eq!(end(Status::cancelled("stop")), MonitorEnd::Cancelled);
        assert_eq!(broken().code(), Code::Cancelled);
        assert!(matches!(end(broken()), MonitorEnd::Lost(_)));
        assert!(matches!(
            end(Status::unavailable("restart")),
            MonitorEnd::Lost(_)
        ));
    }

    #[test]
    fn the_transports_clock_is_a_deadline_like_ours() {
        let call = Failure {
            operation: Operation::Request,
            id: ConnectionId::new("1").unwrap(),
        };
        assert_eq!(call.error(broken()).kind, Kind::DeadlineExceeded);
        assert_eq!(
            call.error(Status::cancelled("stop")).kind,
            Kind::Unavailable
        );
    }
}
