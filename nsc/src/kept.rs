//! The task of one connection: adopt or connect, follow, end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_chain::{Client, ClientConnection, ClientState, ClientStatus, Remote};
use carrick_grpc::{RemoteEndpoint, RemoteError};
use carrick_telemetry::Condition;
use carrick_types::{Connection, ConnectionId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
            Ok(Some(existing)) if existing.network_service == self.wanted.network_service => {
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
