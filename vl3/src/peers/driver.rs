use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carrick_types::ConnectionId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Action, DialId, Domain, Endpoint, Event, Link, PeerId, Reason};
use crate::Vl3;

/// What a registry tells about the endpoints of the service.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// An endpoint is gone.
    Gone(PeerId),
    /// The registry of a domain begins to tell all it has (again).
    Resync(Domain),
    /// An endpoint is there, or changed.
    Seen(Endpoint),
    /// The registry of a domain has told all it has.
    Synced(Domain),
}

/// Makes and ends the links that the peers' driver asks for.
pub trait Dialer: Send + Sync + 'static {
    /// Requests a connection to a peer. If the future is dropped, what it had
    /// begun must be given up and cleaned up. An earlier link to the same peer
    /// may still be there; it is closed once this one is up.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<Link, DialError>>;

    /// Closes an outgoing link: one that `connect` made.
    fn close(&self, connection: ConnectionId) -> BoxFuture<'_, ()>;

    /// Closes an inbound link: one that a peer dialled.
    fn evict(&self, connection: ConnectionId) -> BoxFuture<'_, ()>;

    /// Sends packets for the link's prefixes over it, or no longer. Routes to
    /// the peer's own addresses stay, since probes need them.
    fn route(&self, link: Link, installed: bool) -> BoxFuture<'_, ()>;
}

/// Why a peer could not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {}", reason.as_str())]
pub struct DialError {
    /// What kind of failure it is.
    pub reason: Reason,
    /// What exactly.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Drives the peer set: carries out what it says, and tells it what the
/// registries say.
pub struct Peers {
    vl3: Vl3,
    dialer: Arc<dyn Dialer>,
    dials: HashMap<DialId, CancellationToken>,
    tasks: JoinSet<Option<DialId>>,
    routes: Arc<Mutex<Routes>>,
}

/// Whether packets shall go over a link, for those whose change is under way.
type Routes = HashMap<ConnectionId, bool>;

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("vl3", &self.vl3)
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// Time for one dial.
    pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

    /// The driver of a network's peers.
    #[must_use]
    pub fn new(vl3: Vl3, dialer: Arc<dyn Dialer>) -> Self {
        let routes = Arc::default();
        Self {
            vl3,
            dialer,
            dials: HashMap::new(),
            tasks: JoinSet::new(),
            routes,
        }
    }

    /// Runs until `stop`. Links stay: who stops for good closes the
    /// connections, who restarts does not.
    pub async fn run(mut self, discovery: BoxStream<'static, Discovery>, stop: CancellationToken) {
        let mut discovery = discovery.fuse();
        loop {
            let (actions, tick) = self.vl3.due();
            for action in actions {
                self.act(action);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.vl3.woken() => {}
                () = sleep(tick) => {}
                Some(told) = discovery.next() => self.vl3.handle(told.into()),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(Some(dial)) = done {
                        self.dials.remove(&dial);
                    }
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        tracing::debug!(?action, "peers");
        let dialer = Arc::clone(&self.dialer);
        match action {
            Action::Cancel { dial } => {
                if let Some(cancel) = self.dials.remove(&dial) {
                    cancel.cancel();
                }
            }
            Action::Close { connection } => {
                self.tasks.spawn(async move {
                    dialer.close(connection).await;
                    None
                });
            }
            Action::Dial { dial, endpoint, .. } => self.dial(dial, endpoint),
            Action::Evict { connection } => {
                self.tasks.spawn(async move {
                    dialer.evict(connection).await;
                    None
                });
            }
            Action::Install { connection } => self.route(connection, true),
            Action::Withdraw { connection } => self.route(connection, false),
        }
    }

    fn dial(&mut self, dial: DialId, endpoint: Endpoint) {
        let cancel = CancellationToken::new();
        self.dials.insert(dial, cancel.clone());
        self.vl3.metrics().performed_dials.inc();
        let (vl3, dialer) = (self.vl3.clone(), Arc::clone(&self.dialer));
        self.tasks.spawn(async move {
            let peer = endpoint.id.clone();
            let connect = timeout(Self::DIAL_TIMEOUT, dialer.connect(endpoint));
            if let Some(result) = cancel.run_until_cancelled(connect).await {
                vl3.handle(outcome(dial, peer, result.map_err(|_| late()).flatten()));
            }
            Some(dial)
        });
    }

    /// Changes of one link's routes are made one after another, the last one
    /// wins; links do not wait for each other.
    fn route(&mut self, connection: ConnectionId, installed: bool) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.insert(connection.clone(), installed).is_some() {
            return;
        }
        drop(routes);
        let (vl3, dialer) = (self.vl3.clone(), Arc::clone(&self.dialer));
        let routes = Arc::clone(&self.routes);
        self.tasks.spawn(async move {
            let mut done = None;
            while let Some(installed) = wanted(&routes, &connection, done) {
                if let Some(link) = vl3.link(&connection) {
                    dialer.route(link, installed).await;
                }
                done = Some(installed);
            }
            None
        });
    }
}

/// What is still to be made so for a link's routes after `done` was; forgets
/// the link when there is nothing left.
fn wanted(routes: &Mutex<Routes>, connection: &ConnectionId, done: Option<bool>) -> Option<bool> {
    let mut routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = routes.get(connection).copied();
    if wanted == done {
        routes.remove(connection);
        return None;
    }
    wanted
}

fn outcome(dial: DialId, peer: PeerId, result: Result<Link, DialError>) -> Event {
    match result {
        Ok(link) => {
            tracing::info!(%peer, connection.id = %link.connection, "linked");
            Event::Dialed { dial, peer, link }
        }
        Err(error) => {
            let text = chain_of(&error);
            tracing::info!(%peer, error = text, "dial failed");
            Event::DialFailed {
                dial,
                peer,
                reason: error.reason,
                error: text,
            }
        }
    }
}

/// An error with all its causes in one line.
fn chain_of(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn late() -> DialError {
    DialError {
        reason: Reason::Deadline,
        source: format!("no answer within {:?}", Peers::DIAL_TIMEOUT).into(),
    }
}

async fn sleep(until: Option<std::time::Instant>) {
    match until {
        Some(at) => sleep_until(Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}

impl From<Discovery> for Event {
    fn from(told: Discovery) -> Self {
        match told {
            Discovery::Gone(peer) => Self::Gone(peer),
            Discovery::Resync(domain) => Self::Resync(domain),
            Discovery::Seen(endpoint) => Self::Seen(endpoint),
            Discovery::Synced(domain) => Self::Synced(domain),
        }
    }
}
