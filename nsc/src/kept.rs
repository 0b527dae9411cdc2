//! The task of one connection: adopt or connect, follow, end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_chain::{Client, ClientConnection, ClientState, ClientStatus, Liveness, Remote};
use carrick_grpc::{RemoteEndpoint, RemoteError};
use carrick_telemetry::Condition;
use carrick_types::{Connection, ConnectionId, MechanismType, State};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::MISSES;
use crate::error::causes;
use crate::metrics::Counters;
use crate::{ConnectionState, Status};

/// A connection that did not end as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// Its next hop holds it until it expires.
    #[error("connection {0} could not be closed; its next hop holds it until it expires")]
    Left(ConnectionId),
    /// The task that kept it ended by itself.
    #[error("connection {0} is no longer kept")]
    Lost(ConnectionId),
}

/// What all connections of a client share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) remote: RemoteEndpoint,
    /// Probes what a former process had; `None` where nothing is probed.
    pub(crate) data_path: Option<Arc<dyn Liveness>>,
    pub(crate) request_timeout: Duration,
    /// Time for closing; `None` leaves the connections to a successor.
    pub(crate) close_within: Option<Duration>,
    pub(crate) counters: Counters,
    pub(crate) board: Arc<watch::Sender<Status>>,
}

/// One connection of a client.
pub(crate) struct Kept {
    pub(crate) shared: Arc<Shared>,
    pub(crate) wanted: Connection,
    /// Its place on the board.
    pub(crate) number: usize,
    pub(crate) is_up: Condition,
}

/// Answers that refuse an adopted connection before it is asked for anew: what
/// a former process had may be served by nobody any more.
const REFUSALS: u64 = 5;

impl Kept {
    /// Keeps the connection until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), NotKept> {
        let (connection, is_adopted) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            begun = self.begin() => begun,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => self.end(connection).await,
            last = self.follow(&connection, is_adopted) => {
                self.show(&last, &ClientStatus { state: ClientState::Closed, ..last.clone() });
                Err(NotKept::Lost(self.wanted.id.clone()))
            }
        }
    }

    /// Goes on with what a former process had, or asks for the first time; the
    /// next hop may well not be there yet.
    async fn begin(&self) -> (ClientConnection, bool) {
        let client = &self.shared.client;
        if let Some(mut existing) = self.existing().await {
            if existing.state == State::Down && !self.answers(&existing).await {
                info!(connection.id = %self.wanted.id, "it is down and does not answer, asking for another endpoint");
                return (client.connect(reselected(&self.wanted, existing)), false);
            }
            // It names the network namespace by the former process's id.
            existing.mechanism = None;
            match client.adopt(self.wanted.clone(), existing) {
                Ok(connection) => return (connection, true),
                Err(error) => warn!(%error, "cannot go on with the connection there is"),
            }
        }
        (client.connect(self.wanted.clone()), false)
    }

    async fn existing(&self) -> Option<Connection> {
        let id = &self.wanted.id;
        let deadline = Instant::now() + self.shared.request_timeout;
        match self.shared.client.existing(id, deadline).await {
            Ok(Some(existing)) if self.is_wanted(&existing) => {
                info!(connection.id = %id, "going on with the connection there is");
                Some(existing)
            }
            Ok(Some(other)) => {
                self.give_back(other).await;
                None
            }
            Ok(None) => None,
            Err(error) => {
                info!(connection.id = %id, error = causes(&error), "cannot ask for former connections");
                None
            }
        }
    }

    fn is_wanted(&self, existing: &Connection) -> bool {
        let kind = existing.mechanism.as_ref().map(|mechanism| &mechanism.kind);
        existing.network_service == self.wanted.network_service
            && kind.is_none_or(|kind| *kind == MechanismType::Kernel)
    }

    /// Whether packets still go through to what a former process had.
    async fn answers(&self, existing: &Connection) -> bool {
        let Some(data_path) = &self.shared.data_path else {
            return false;
        };
        for _ in 0..MISSES {
            if data_path.alive(existing).await {
                return true;
            }
        }
        false
    }

    /// Closes a connection of this id to another service, asked for under
    /// former settings.
    async fn give_back(&self, mut other: Connection) {
        let id = &self.wanted.id;
        info!(connection.id = %id, network_service = %other.network_service, "closing the connection to a former service");
        other.id = id.clone();
        other.path.index = 0;
        let deadline = Instant::now() + self.shared.request_timeout;
        if let Err(error) = self.shared.remote.close(other, deadline).await {
            warn!(connection.id = %id, error = causes(&error), "Close failed");
        }
    }

    /// Tells what happens; returns the last status when nobody keeps the
    /// connection any more.
    async fn follow(&self, connection: &ClientConnection, is_adopted: bool) -> ClientStatus {
        let mut watch = connection.watch();
        let mut before = ClientStatus::default();
        let mut is_stuck = Stuck::new(is_adopted);
        loop {
            let now = watch.borrow_and_update().clone();
            self.show(&before, &now);
            if is_stuck.see(&now) {
                warn!(connection.id = %connection.id(), "nobody serves the adopted connection, asking anew");
                connection.reselect();
            }
            before = now;
            if watch.changed().await.is_err() {
                return before;
            }
        }
    }

    async fn end(&self, connection: ClientConnection) -> Result<(), NotKept> {
        let watch = connection.watch();
        let is_closed = if let Some(grace) = self.shared.close_within {
            connection.close(grace).await
        } else {
            connection.abandon().await;
            true
        };
        self.post(&watch.borrow());
        if is_closed {
            Ok(())
        } else {
            Err(NotKept::Left(self.wanted.id.clone()))
        }
    }

    fn show(&self, before: &ClientStatus, now: &ClientStatus) {
        self.shared.counters.count(before, now);
        let state = ConnectionState::from(&now.state);
        self.post(now);
        if state != ConnectionState::from(&before.state) {
            self.log(now);
        }
        match state {
            ConnectionState::Up => self.is_up.met(),
            ConnectionState::Closed | ConnectionState::Connecting | ConnectionState::Healing => {
                let why = now.error.as_deref().map(|error| causes(error));
                self.is_up
                    .unmet(why.unwrap_or_else(|| format!("{state:?}")));
            }
        }
    }

    fn post(&self, now: &ClientStatus) {
        self.shared.board.send_modify(|status| {
            if let Some(line) = status.connections.get_mut(self.number) {
                line.update(now, SystemTime::now());
            }
        });
    }

    fn log(&self, now: &ClientStatus) {
        let id = &self.wanted.id;
        match &now.state {
            ClientState::Up(answer) => {
                let endpoint = answer.endpoint.as_ref().map(ToString::to_string);
                let addresses = &answer.context.ip.src_addrs;
                info!(connection.id = %id, endpoint, ?addresses, "connection is up");
            }
            ClientState::Healing => warn!(connection.id = %id, "connection is broken, healing"),
            ClientState::Closed | ClientState::Connecting => {}
        }
    }
}

/// What to ask for in place of a connection whose endpoint is lost: it is the
/// same to those in between, by its path, and new to the endpoint that they
/// choose. NSM's client asks with the lost one's addresses, which are another
/// endpoint's or somebody else's by now.
fn reselected(wanted: &Connection, existing: Connection) -> Connection {
    let mut path = existing.path;
    path.index = 0;
    Connection {
        path,
        state: State::ReselectRequested,
        ..wanted.clone()
    }
}

/// Finds out that nobody serves what was adopted: its next hop is there, but
/// keeps refusing it.
struct Stuck {
    is_over: bool,
    refusals: u64,
    failures: u64,
}

impl Stuck {
    fn new(is_adopted: bool) -> Self {
        Self {
            is_over: !is_adopted,
            refusals: 0,
            failures: 0,
        }
    }

    /// Whether it shows now, which it does once.
    fn see(&mut self, now: &ClientStatus) -> bool {
        self.is_over |= now.connection().is_some();
        if self.is_over || now.failures == self.failures {
            return false;
        }
        self.failures = now.failures;
        if now.error.as_deref().is_some_and(is_answer) {
            self.refusals += 1;
        }
        self.is_over = self.refusals >= REFUSALS;
        self.is_over
    }
}

fn is_answer(error: &carrick_chain::Error) -> bool {
    let remote = error.source.downcast_ref::<RemoteError>();
    remote.is_some_and(RemoteError::is_answer)
}

#[cfg(test)]
mod tests {
    use carrick_chain::testing::TestTokens;
    use carrick_chain::{
        Chain, ClientOptions, ConnectionEvent, Error, EventKind, Events, Selector,
    };
    use carrick_grpc::{Security, Url, dial};
    use carrick_telemetry::{Metrics, Readiness};
    use carrick_types::{EndpointName, Mechanism, MechanismClass, PathSegment, ServiceName};
    use futures::future::BoxFuture;
    use futures::{FutureExt, StreamExt, stream};
    use tokio::sync::mpsc;

    use super::*;

    /// A next hop that holds a connection, and answers whatever it is asked.
    struct Hop {
        held: Arc<Connection>,
        asked: mpsc::Sender<Connection>,
    }

    impl Remote for Hop {
        fn request(
            &self,
            request: Connection,
            _: Instant,
        ) -> BoxFuture<'_, Result<Connection, Error>> {
            async move {
                self.asked.send(request.clone()).await.unwrap();
                Ok(request)
            }
            .boxed()
        }

        fn close(&self, _: Connection, _: Instant) -> BoxFuture<'_, Result<(), Error>> {
            std::future::ready(Ok(())).boxed()
        }

        fn monitor(&self, _: Selector) -> BoxFuture<'_, Result<Events, Error>> {
            let event = ConnectionEvent {
                kind: EventKind::InitialStateTransfer,
                connections: vec![Arc::clone(&self.held)],
            };
            let events = stream::once(std::future::ready(Ok(event))).chain(stream::pending());
            std::future::ready(Ok(events.boxed())).boxed()
        }
    }

    struct Answers(bool);

    impl Liveness for Answers {
        fn alive(&self, _: &Connection) -> BoxFuture<'_, bool> {
            std::future::ready(self.0).boxed()
        }
    }

    fn wanted() -> Connection {
        let service = ServiceName::new("vl3").unwrap();
        let mut wanted = Connection::new(ConnectionId::new("nsc-0").unwrap(), service);
        let kernel = Mechanism::new(MechanismClass::Local, MechanismType::Kernel);
        wanted.preferences.push(kernel);
        wanted
    }

    /// What a manager holds of a former process.
    fn held(state: State) -> Connection {
        let mut held = wanted();
        let segment = |name: &str, id: &str| PathSegment {
            name: name.into(),
            id: id.into(),
            ..PathSegment::default()
        };
        held.path.segments = vec![segment("nsc", "nsc-0"), segment("nsmgr", "m")];
        held.path.index = 1;
        held.endpoint = Some(EndpointName::new("nse-1").unwrap());
        held.mechanism = held.preferences.first().cloned();
        let ip = &mut held.context.ip;
        ip.add_src_addr("172.16.0.7/32".parse().unwrap());
        held.state = state;
        held
    }

    /// The first thing that a client asks for which finds `held`.
    async fn asked(held: Connection, data_path: Option<bool>) -> Connection {
        let (asked, mut requests) = mpsc::channel(8);
        let hop = Hop {
            held: Arc::new(held),
            asked,
        };
        let mut options = ClientOptions::new("nsc", TestTokens::default());
        if let Some(answers) = data_path {
            options = options.liveness(Answers(answers));
        }
        let nowhere = Url::unix("/nowhere/nsm.sock");
        let security = Security::insecure();
        let channel = dial(&nowhere, &security, Duration::from_secs(1));
        let tokens: Arc<dyn carrick_chain::Tokens> = Arc::new(TestTokens::default());
        let readiness = Readiness::new();
        let status = crate::Status {
            name: "nsc".into(),
            connections: Vec::new(),
        };
        let shared = Shared {
            client: Client::new(options, Chain::default(), hop),
            remote: RemoteEndpoint::new(channel.await.unwrap(), tokens),
            data_path: data_path.map(|answers| Arc::new(Answers(answers)) as Arc<dyn Liveness>),
            request_timeout: Duration::from_secs(5),
            close_within: None,
            counters: Counters::register(&Metrics::new()),
            board: Arc::new(watch::Sender::new(status)),
        };
        let kept = Kept {
            shared: Arc::new(shared),
            wanted: wanted(),
            number: 0,
            is_up: readiness.condition("nsc-0"),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(kept.run(stop.clone()));
        let first = requests.recv().await.unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
        first
    }

    #[tokio::test]
    async fn a_connection_that_is_down_and_does_not_answer_is_reselected_without_its_addresses() {
        for data_path in [Some(false), None] {
            let asked = asked(held(State::Down), data_path).await;
            assert_eq!(asked.state, State::ReselectRequested);
            assert_eq!(asked.context.ip.src_addrs, []);
            assert_eq!((asked.endpoint, asked.mechanism), (None, None));
            // Those in between know it by its path.
            assert_eq!(asked.path.segments[1].id, "m");
        }
    }

    #[tokio::test]
    async fn a_connection_that_answers_is_gone_on_with_though_it_is_said_to_be_down() {
        for (state, data_path) in [(State::Down, Some(true)), (State::Up, None)] {
            let asked = asked(held(state), data_path).await;
            assert_eq!(asked.state, State::Up);
            assert_eq!(asked.context, held(state).context);
            assert_eq!(asked.endpoint, held(state).endpoint);
        }
    }

    #[tokio::test]
    async fn a_connection_by_another_mechanism_is_not_gone_on_with() {
        let mut other = held(State::Up);
        other.mechanism = Some(Mechanism::new(MechanismClass::Local, MechanismType::Memif));
        let asked = asked(other, Some(true)).await;
        assert_eq!(asked.context, wanted().context);
        assert_eq!(asked.path.segments.len(), 1);
    }
}
