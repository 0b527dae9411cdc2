//! The NSM services as they are seen from the wire.

mod authorization;
mod deadline;
mod held;
mod monitor;
mod network_service;
mod observer;

use std::time::Duration;

use carrick_chain::Endpoint;
use carrick_proto::connection::monitor_connection_server::MonitorConnectionServer;
use carrick_proto::networkservice::network_service_server::NetworkServiceServer;
use futures::future::{Either, select};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport;

use crate::{Health, KeepAlive, Listener, SocketFile};

pub use authorization::Authorization;
pub use held::{Held, Namespaces};
pub use monitor::Monitoring;
pub use network_service::Requests;
pub use observer::Observer;

/// What a server takes on.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Time that a Request has whose client names none, default 15 s.
    pub default_timeout: Duration,
    /// Most time that a Request is given, default 60 s.
    pub max_timeout: Duration,
    /// Requests served at a time, default 1024; further ones are refused as
    /// `Unavailable`, and their clients try again.
    pub max_requests: usize,
    /// Monitor streams at a time, default 16384. A forwarder opens one for
    /// each connection it carries.
    pub max_monitors: usize,
    /// Streams that one HTTP/2 connection may have, default 16384: a node's
    /// forwarder brings its monitor streams over a single one.
    pub max_streams: u32,
    /// Calls that one HTTP/2 connection may have without an answer, default
    /// 1024; further ones are refused as `ResourceExhausted`.
    pub max_calls_per_connection: usize,
    /// Who keeps the network namespaces that come with Requests.
    pub namespaces: Namespaces,
    /// Who may request, close and follow connections.
    pub authorization: Authorization,
    /// Who is told of each Request that was answered.
    pub observer: Observer,
    /// HTTP/2 PINGs by which clients that vanished are noticed.
    pub keep_alive: KeepAlive,
    /// Time that open calls have to end at shutdown, default 5 s.
    pub grace: Duration,
}

impl ServerOptions {
    /// Largest message in either direction, in bytes: gRPC's usual bound.
    pub const MESSAGE_MAX: usize = 4 << 20;
    /// Largest header list, in bytes. A registry path is the largest header:
    /// a dozen tokens of about one KiB.
    pub const HEADERS_MAX: u32 = 64 << 10;
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(15),
            max_timeout: Duration::from_secs(60),
            max_requests: 1024,
            max_monitors: 16_384,
            max_streams: 16_384,
            max_calls_per_connection: 1024,
            namespaces: Namespaces::default(),
            authorization: Authorization::default(),
            observer: Observer::default(),
            keep_alive: KeepAlive::default(),
            grace: Duration::from_secs(5),
        }
    }
}

/// The services of an endpoint: `networkservice.NetworkService`,
/// `connection.MonitorConnection`, `grpc.health.v1.Health` and reflection.
///
/// Monitor streams end with `Unavailable` when the endpoint or `stopping`
/// does, never with `Cancelled`, on which NSM's clients would stop healing.
#[must_use]
pub fn routes(
    endpoint: &Endpoint,
    options: &ServerOptions,
    health: &Health,
    stopping: &CancellationToken,
) -> Routes {
    let requests = Requests::new(endpoint.clone(), options);
    let monitoring = Monitoring::new(endpoint.clone(), options, stopping.clone());
    health
        .routes()
        .add_service(
            NetworkServiceServer::new(requests)
                .max_decoding_message_size(ServerOptions::MESSAGE_MAX),
        )
        .add_service(
            MonitorConnectionServer::new(monitoring)
                .max_decoding_message_size(ServerOptions::MESSAGE_MAX),
        )
}

/// The server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// HTTP/2 could not be served.
    #[error("the gRPC server failed")]
    Serve(#[source] transport::Error),
    /// The socket file is still there.
    #[error("cannot remove the socket {}", .0.path().display())]
    SocketFile(SocketFile, #[source] std::io::Error),
}

/// Serves until `stopping`, then takes no new call, gives those under way
/// [`ServerOptions::grace`] to end, and removes the socket file.
///
/// Streams must end on `stopping` by themselves; what has not ended by then is
/// cut off when the process ends.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve(
    listener: Listener,
    routes: Routes,
    options: &ServerOptions,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let file = listener.socket_file();
    let served = std::pin::pin!(
        builder(options)
            .add_routes(routes)
            .serve_with_incoming_shutdown(listener, stopping.clone().cancelled_owned())
    );
    let patience = std::pin::pin!(async {
        stopping.cancelled().await;
        sleep(options.grace).await;
    });
    if let Either::Left((served, _)) = select(served, patience).await {
        served.map_err(ServeError::Serve)?;
    }
    match file {
        Some(file) => file
            .remove()
            .await
            .map_err(|e| ServeError::SocketFile(file, e)),
        None => Ok(()),
    }
}

/// A server with these limits, for who serves otherwise than by [`serve`].
#[must_use]
pub fn builder(options: &ServerOptions) -> transport::Server {
    transport::Server::builder()
        .concurrency_limit_per_connection(options.max_calls_per_connection)
        .load_shed(true)
        .max_concurrent_streams(options.max_streams)
        .http2_keepalive_interval(Some(options.keep_alive.interval))
        .http2_keepalive_timeout(Some(options.keep_alive.timeout))
        .http2_max_header_list_size(ServerOptions::HEADERS_MAX)
}
