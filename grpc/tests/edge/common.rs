//! What the tests serve and call.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use carrick_chain::{Chain, Element, Endpoint, EndpointOptions, Error, Kind, Next, Tokens};
use carrick_grpc::Channel;
use carrick_grpc::{
    Channels, DialOptions, Health, InsecureTokens, Security, ServeError, ServerOptions, SpiffeId,
    TokenOptions, Url, builder, listen, routes,
};
use carrick_proto::connection as wire;
use carrick_proto::connection::monitor_connection_server::{
    MonitorConnection, MonitorConnectionServer,
};
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_types::{Connection, ConnectionId, PathSegment, ServiceName};
use futures::stream::{self, BoxStream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint as ChannelEndpoint, Server, Uri};
use tonic::{Request, Response, Status};

/// Gives an address; the services `full` and `slow` are as their names say.
struct Addresses {
    slow: Arc<Notify>,
}

impl Element for Addresses {
    const NAME: &'static str = "addresses";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        match connection.network_service.as_str() {
            "full" => {
                return Err(Error::request(
                    Self::NAME,
                    &connection,
                    Kind::Exhausted,
                    "no free address",
                ));
            }
            "slow" => {
                self.slow.notify_one();
                std::future::pending::<()>().await;
            }
            _ => connection
                .context
                .ip
                .add_src_addr("10.0.0.1/32".parse().unwrap()),
        }
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn tokens(name: &str) -> InsecureTokens {
    let subject = SpiffeId::new("example.org", name).unwrap();
    InsecureTokens::new(subject, &TokenOptions::default())
}

pub(crate) fn client_tokens() -> Arc<dyn Tokens> {
    Arc::new(tokens("client"))
}

pub(crate) fn options() -> ServerOptions {
    ServerOptions::default()
}

pub(crate) fn channels() -> Channels {
    Channels::new(Security::insecure(), DialOptions::default())
}

/// A new name in a directory that lives as long as the test's thread; a static
/// one would never be removed.
pub(crate) fn unix() -> Url {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    DIRECTORY.with(|directory| Url::unix(directory.path().join(format!("{count}.sock"))))
}

pub(crate) fn tcp(host: &str) -> Url {
    Url::tcp(host, 0)
}

/// A client's Request, as from its first hop.
pub(crate) fn request(service: &str) -> Connection {
    let id = ConnectionId::new("client-1").unwrap();
    let mut connection = Connection::new(id, ServiceName::new(service).unwrap());
    connection.path.segments.push(PathSegment {
        name: "client".into(),
        id: "client-1".into(),
        expires: Some(SystemTime::now() + Duration::from_secs(600)),
        ..PathSegment::default()
    });
    connection
}

fn endpoint(slow: &Arc<Notify>) -> Endpoint {
    let chain = Chain::default().then(Addresses {
        slow: Arc::clone(slow),
    });
    Endpoint::new(EndpointOptions::new("nse", tokens("nse")), chain)
}

/// An endpoint that is being served.
pub(crate) struct Served {
    pub(crate) url: Url,
    pub(crate) endpoint: Endpoint,
    pub(crate) health: Health,
    slow: Arc<Notify>,
    accepted: Arc<AtomicUsize>,
    stopping: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    pub(crate) async fn start(url: &Url, options: &ServerOptions) -> Self {
        let listener = listen(url, &Security::insecure()).await.unwrap();
        let url = listener.url().clone();
        let accepted = Arc::new(AtomicUsize::new(0));
        let listener = listener.on_accept({
            let accepted = Arc::clone(&accepted);
            move |_| {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let slow = Arc::new(Notify::new());
        let endpoint = endpoint(&slow);
        let health = Health::new(Health::ENDPOINT).await;
        let stopping = CancellationToken::new();
        let routes = routes(&endpoint, options, &health, &stopping);
        let server = tokio::spawn({
            let (options, stopping) = (options.clone(), stopping.clone());
            async move { carrick_grpc::serve(listener, routes, &options, stopping).await }
        });
        Self {
            url,
            endpoint,
            health,
            slow,
            accepted,
            stopping,
            server,
        }
    }

    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        self.server.await.unwrap().unwrap();
    }

    /// HTTP/2 connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A Request for `slow` is in the chain.
    pub(crate) async fn slow_begun(&self) {
        self.slow.notified().await;
    }

    pub(crate) fn channel(&self) -> Channel {
        channels().channel(&self.url).unwrap()
    }

    pub(crate) fn raw_client(&self) -> NetworkServiceClient<Channel> {
        NetworkServiceClient::new(self.channel())
    }
}

/// An endpoint at the other end of a pipe in memory.
pub(crate) async fn pipe(options: &ServerOptions) -> Channel {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let health = Health::new(Health::ENDPOINT).await;
    let endpoint = endpoint(&Arc::new(Notify::new()));
    let routes = routes(&endpoint, options, &health, &CancellationToken::new());
    let incoming = stream::iter([Ok::<_, Infallible>(theirs)]).chain(stream::pending());
    tokio::spawn(
        builder(options)
            .add_routes(routes)
            .serve_with_incoming(incoming),
    );
    let mut ours = Some(TokioIo::new(ours));
    let connect = tower::service_fn(move |_: Uri| {
        let ours = ours.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { ours.map_err(std::io::Error::from) }
    });
    ChannelEndpoint::from_static("http://localhost")
        .connect_with_connector_lazy(connect)
        .into()
}

/// A server in a runtime of its own, which can end without a word.
pub(crate) struct DyingServer(tokio::runtime::Runtime);

impl DyingServer {
    /// As if the process was killed: every task and socket is gone.
    pub(crate) fn die(self) {
        self.0.shutdown_background();
    }
}

pub(crate) async fn dying_server() -> (Url, DyingServer) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let url = runtime
        .spawn(async {
            let served = Served::start(&unix(), &options()).await;
            let url = served.url.clone();
            tokio::spawn(async move {
                let _served = served;
                std::future::pending::<()>().await;
            });
            url
        })
        .await
        .unwrap();
    (url, DyingServer(runtime))
}

struct Cancelling;

#[tonic::async_trait]
impl MonitorConnection for Cancelling {
    type MonitorConnectionsStream = BoxStream<'static, Result<wire::ConnectionEvent, Status>>;

    async fn monitor_connections(
        &self,
        _: Request<wire::MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let events = [
            Ok(wire::ConnectionEvent::default()),
            Err(Status::cancelled("stop")),
        ];
        Ok(Response::new(stream::iter(events).boxed()))
    }
}

pub(crate) async fn cancelling_server() -> Url {
    let listener = listen(&unix(), &Security::insecure()).await.unwrap();
    let url = listener.url().clone();
    let service = MonitorConnectionServer::new(Cancelling);
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(listener),
    );
    url
}
