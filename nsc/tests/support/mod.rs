//! What the tests start: an endpoint that gives addresses, and clients.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_agent::{Agent, Change, Error as AgentError, Found, Netns, Protocol, Socket};
use carrick_chain::testing::{Check, Count, TestTokens};
use carrick_chain::{
    Chain, ConnectionEvent, Element, Endpoint, EndpointOptions, Error, EventKind, Next, Selector,
};
use carrick_grpc::{Health, Security, ServeError, ServerOptions, Url, listen, routes, serve};
use carrick_lifecycle::{Outcome, Signal};
use carrick_nsc::{Config, ConnectionState, Nsc, Status};
use carrick_types::{Connection, Route, State};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Time in which everything here has happened on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, what).await;
    ended.expect("it happens in time")
}

pub(crate) fn is_up(status: &Status) -> bool {
    let mut all = status.connections.iter();
    all.all(|connection| connection.state == ConnectionState::Up)
}

/// Where the sockets of one test are.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn url(&self) -> Url {
        Url::unix(self.path("nse.sock"))
    }

    pub(crate) fn config(&self, settings: &[(&'static str, &'static str)]) -> Config {
        let (url, state) = (self.url().to_string(), self.path("state"));
        let mut source = BTreeMap::from([
            ("NSM_CONNECT_TO", url.as_str()),
            ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1"),
            ("NSM_LIVENESS_CHECK_INTERVAL", "10ms"),
            ("CARRICK_STATE_DIR", state.to_str().unwrap()),
            ("NODE_NAME", "node-1"),
            // The machine's own file is none of a test's business.
            ("NSM_LOCAL_DNS_SERVER_ENABLED", "false"),
            ("POD_NAME", "web"),
        ]);
        source.extend(settings.iter().copied());
        Config::read(&source).unwrap()
    }

    /// Asks the admin listener: status code and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("admin.sock")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }
}

/// An endpoint that is served.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) count: Count,
    requests: Arc<Mutex<Vec<Connection>>>,
    refusals: Arc<AtomicUsize>,
    stopping: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start(place: &Place) -> Self {
        let (count, stopping) = (Count::default(), CancellationToken::new());
        let requests = Arc::<Mutex<Vec<Connection>>>::default();
        let refusals = Arc::<AtomicUsize>::default();
        let (seen, refused) = (Arc::clone(&requests), Arc::clone(&refusals));
        let look = Check::new(move |connection| {
            seen.lock().unwrap().push(connection.clone());
            let is_reselect = connection.state == State::ReselectRequested;
            if !is_reselect && take_one(&refused) {
                return Err("this endpoint is gone".into());
            }
            Ok(())
        });
        let chain = Chain::default()
            .then(look)
            .then(count.clone())
            .then(Addresses::default());
        let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
        let options = ServerOptions::default();
        let health = Health::new(Health::ENDPOINT).await;
        let routes = routes(&endpoint, &options, &health, &stopping);
        let listener = listen(&place.url(), &Security::insecure()).await.unwrap();
        let stop = stopping.clone();
        Self {
            endpoint,
            count,
            requests,
            refusals,
            stopping,
            task: tokio::spawn(async move { serve(listener, routes, &options, stop).await }),
        }
    }

    /// Its only connection.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        let connections = self.endpoint.connections();
        assert_eq!(connections.len(), 1);
        connections[0].clone()
    }

    /// What it was asked for last.
    pub(crate) fn last_request(&self) -> Connection {
        self.requests.lock().unwrap().last().unwrap().clone()
    }

    /// Refuses that many Requests, unless they are reselects.
    pub(crate) fn refuse(&self, requests: usize) {
        self.refusals.store(requests, Ordering::SeqCst);
    }

    /// Waits for a Close from now on.
    pub(crate) fn until_closed(&self) -> impl Future<Output = ()> + use<> {
        let events = self.endpoint.monitor(Selector::default());
        async move {
            let is_delete = |event: &ConnectionEvent| event.kind == EventKind::Delete;
            let mut deletes = events.filter(|event| std::future::ready(is_delete(event)));
            deletes.next().await.expect("the endpoint serves");
        }
    }

    /// Ends without closing anything, and takes its socket away.
    pub(crate) async fn stop(self) {
        self.endpoint.stop(PATIENCE).await;
        self.stopping.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

/// Whether there is one left to take.
fn take_one(count: &AtomicUsize) -> bool {
    let less = |count: usize| count.checked_sub(1);
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

/// Takes the first mechanism, and gives an address to each new connection, or
/// the one it asks for.
#[derive(Default)]
struct Addresses(AtomicU8);

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
        let chosen = connection.mechanism.take();
        connection.mechanism = chosen.or_else(|| connection.preferences.first().cloned());
        let ip = &mut connection.context.ip;
        if ip.src_addrs.is_empty() {
            let host = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            ip.add_src_addr(format!("10.0.0.{host}/32").parse().unwrap());
        }
        ip.add_dst_addr("10.0.0.0/32".parse().unwrap());
        let gateway = "10.0.0.0".parse().unwrap();
        ip.add_src_route(Route::via("10.0.0.0/16".parse().unwrap(), gateway));
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

/// A client that runs as a process would: in a runtime of its own.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    task: JoinHandle<Outcome>,
    signals: mpsc::Sender<Signal>,
    status: watch::Receiver<Status>,
    is_cut: Arc<AtomicBool>,
}

impl Running {
    pub(crate) fn start(place: &Place, settings: &[(&'static str, &'static str)]) -> Self {
        let nsc = Nsc::new(place.config(settings)).unwrap();
        let (signals, received) = mpsc::channel(2);
        let is_cut = Arc::<AtomicBool>::default();
        let agent = Arc::new(Echoes(Arc::clone(&is_cut)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            status: nsc.watch(),
            task: runtime.spawn(async move { nsc.run(agent, received).await.unwrap() }),
            runtime: Some(runtime),
            signals,
            is_cut,
        }
    }

    pub(crate) async fn until(&mut self, is_so: impl FnMut(&Status) -> bool) -> Status {
        let status = within(self.status.wait_for(is_so)).await;
        status.expect("the client runs").clone()
    }

    pub(crate) async fn signal(&self, signal: Signal) {
        self.signals.send(signal).await.unwrap();
    }

    pub(crate) async fn end(mut self) -> Outcome {
        self.signal(Signal::Terminate).await;
        let task = std::mem::replace(&mut self.task, tokio::spawn(std::future::pending()));
        let outcome = within(task).await.unwrap();
        self.kill();
        outcome
    }

    /// As SIGKILL: every task is gone between two instructions.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// No echo is answered any more.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

/// A runtime must not be dropped where others run.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Answers pings until the wire is cut; makes nothing.
struct Echoes(Arc<AtomicBool>);

impl Agent for Echoes {
    fn apply(&self, _: Vec<Change>) -> BoxFuture<'_, Result<(), AgentError>> {
        panic!("a client makes no links")
    }

    fn list<'a>(
        &'a self,
        _: &'a Netns,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, AgentError>> {
        panic!("a client asks for no links")
    }

    fn ping<'a>(
        &'a self,
        _: &'a Netns,
        _: IpAddr,
        _: IpAddr,
        _: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, AgentError>> {
        let is_cut = self.0.load(Ordering::SeqCst);
        std::future::ready(Ok((!is_cut).then_some(Duration::ZERO))).boxed()
    }

    fn bind<'a>(
        &'a self,
        _: &'a Netns,
        _: Protocol,
        _: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, AgentError>> {
        panic!("a client binds no sockets through its agent")
    }
}
