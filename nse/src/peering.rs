//! Links to the other endpoints of the service: the one place where the chain
//! towards peers is listed.

mod registered;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrick_chain::{
    Chain, Client, ClientConnection, ClientOptions, ClientState, ClientStatus, EventKind, Kind,
    Liveness, Remote, Reselect, Selector,
};
use carrick_grpc::{RemoteEndpoint, Url};
use carrick_link::{Offer, OwnEnd};
use carrick_types::{Connection, ConnectionId, PathSegment, State};
use carrick_vl3::Vl3;
use carrick_vl3::elements::PeerClient;
use carrick_vl3::peers::{DialError, Dialer, Endpoint, Event, Link, PeerId, PeerState, Reason};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::registered::Registered;
use crate::parts::Parts;

/// Time to close a link in an orderly way; its other end may be dead.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Time to ask a peer whether a former process has a link with it already.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether the probes of a link are answered.
const LOOK: Duration = Duration::from_millis(500);

/// The links that this endpoint dialled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dials(Arc<Mutex<HashMap<ConnectionId, ClientConnection>>>);

impl Dials {
    /// Asks the peers whose connection `which` names for a refresh.
    pub(crate) fn refresh(&self, which: &dyn Fn(&Connection) -> bool) {
        for kept in self.lock().values() {
            let status = kept.watch();
            let wanted = status
                .borrow()
                .connection()
                .is_some_and(|connection| which(connection));
            if wanted {
                kept.refresh();
            }
        }
    }

    /// Asks one peer for a refresh, after what is under way.
    fn refresh_one(&self, id: &ConnectionId) {
        if let Some(kept) = self.lock().get(id) {
            kept.refresh();
        }
    }

    /// Ids at this end.
    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.lock().keys().cloned().collect()
    }

    /// Closes all links, or leaves them to the next process; `false` if one
    /// could not be closed within `grace`.
    pub(crate) async fn end(&self, close: bool, grace: Duration) -> bool {
        let all: Vec<_> = self.lock().drain().map(|(_, kept)| kept).collect();
        let ends = all.into_iter().map(|kept| async move {
            if close {
                return kept.close(grace).await;
            }
            kept.abandon().await;
            true
        });
        futures::future::join_all(ends)
            .await
            .into_iter()
            .all(|closed| closed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, ClientConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The elements of a connection to a peer, in their order of action.
pub(crate) fn chain_to(parts: &Parts, peer: &PeerId) -> Chain {
    let Parts {
        plane, vl3, mtu, ..
    } = parts;
    let own_end = plane
        .as_ref()
        .map(|p| OwnEnd::new(p.site.clone(), p.book.clone()));
    let offer = plane
        .as_ref()
        .map(|p| Offer::new(p.site.clone(), p.vnis.clone()));
    Chain::default()
        // First in the list, last on the way back: it makes the link of what
        // the others have left of the answer.
        .then_some(own_end)
        .then(mtu.clone())
        .then_some(offer)
        // Next to the call: nothing else sees what the filter refuses.
        .then(PeerClient::new(vl3.clone(), peer.clone()))
}

/// Dials peers for the peer set.
pub(crate) struct PeerDialer(Parts);

impl PeerDialer {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    fn client(&self, peer: &PeerId, remote: impl Remote) -> Client {
        let Parts {
            config,
            vl3,
            tokens,
            ..
        } = &self.0;
        let options = ClientOptions::new(config.name.as_str(), Arc::clone(tokens))
            .request_timeout(config.times.request)
            .reselect(Reselect::SameEndpoint)
            .liveness(Probed(vl3.clone()))
            .liveness_every(LOOK, LOOK, 2)
            .keep_addresses(false);
        Client::new(options, chain_to(&self.0, peer), remote)
    }

    async fn dial(&self, endpoint: Endpoint) -> Result<Link, DialError> {
        let url: Url = endpoint.url.parse().map_err(|e| fail(Reason::Invalid, e))?;
        let Parts {
            channels, tokens, ..
        } = &self.0;
        let remote = RemoteEndpoint::dial(channels, &url, Arc::clone(tokens));
        let remote = remote.map_err(|e| fail(Reason::Invalid, e))?;
        let remote = remote.judged(self.0.rules.client.clone());
        let registered = Registered::new(&self.0, &endpoint, remote.clone());
        let client = self.client(&endpoint.id, registered);
        let wanted = self
            .wanted(&endpoint)
            .map_err(|e| fail(Reason::Invalid, e))?;
        let kept = match self.former(&remote).await {
            Some(mut former) => {
                // It may name our namespace by a process that is gone.
                former.mechanism = None;
                let mut wanted = wanted.clone();
                if let Some(own) = former
                    .path
                    .client()
                    .and_then(|own| ConnectionId::new(&own.id).ok())
                {
                    wanted.id = own;
                }
                debug!(peer = %endpoint.id, connection.id = %wanted.id, "going on with a former link");
                client
                    .adopt(wanted, former)
                    .map_err(|e| fail(Reason::Invalid, e))?
            }
            None => client.connect(wanted),
        };
        self.first_answer(kept).await
    }

    /// The connection that is asked for.
    fn wanted(&self, endpoint: &Endpoint) -> Result<Connection, carrick_types::Invalid> {
        let config = &self.0.config;
        let id = format!("{}-{:016x}", config.name, fastrand::u64(..));
        let mut wanted = Connection::new(ConnectionId::new(id)?, config.services[0].clone());
        wanted.endpoint = Some(endpoint.id.name.clone());
        wanted.labels = config.request_labels.clone();
        Ok(wanted)
    }

    /// A link that a former process of this endpoint has with the peer.
    async fn former(&self, remote: &RemoteEndpoint) -> Option<Connection> {
        let own = self.0.config.name.as_str();
        let segment = PathSegment {
            name: own.to_owned(),
            ..PathSegment::default()
        };
        let selector = Selector {
            segments: vec![segment],
            network_services: Vec::new(),
        };
        let asked = async {
            let mut events = remote.monitor(selector).await.ok()?;
            let event = events.next().await?.ok()?;
            (event.kind == EventKind::InitialStateTransfer).then_some(event.connections)
        };
        let known = self.0.dials.ids();
        let connections = timeout(ASK_TIMEOUT, asked).await.ok()??;
        let former = connections.into_iter().find(|connection| {
            connection.state == State::Up
                && connection.path.client().is_some_and(|first| {
                    first.name == own && !known.iter().any(|id| id.as_str() == first.id)
                })
        });
        former.map(|connection| Connection::clone(&connection))
    }

    /// Waits for the first answer, good or bad. Whoever stops waiting has the
    /// connection closed.
    async fn first_answer(&self, kept: ClientConnection) -> Result<Link, DialError> {
        let (id, mut status) = (kept.id().clone(), kept.watch());
        self.0.dials.lock().insert(id.clone(), kept);
        let given_up = CancellationToken::new();
        let guard = given_up.clone().drop_guard();
        tokio::spawn(close_when(given_up, self.0.dials.clone(), id.clone()));
        let settled = status
            .wait_for(|status| {
                status.error.is_some() || !matches!(status.state, ClientState::Connecting)
            })
            .await;
        let settled = settled.map_err(|e| fail(Reason::Unavailable, e))?.clone();
        match settled.connection() {
            Some(answer) => {
                guard.disarm();
                let link = PeerClient::link(answer);
                let (vl3, dials) = (self.0.vl3.clone(), self.0.dials.clone());
                tokio::spawn(follow(vl3, dials, link.clone(), status));
                Ok(link)
            }
            None => Err(settled.error.map_or_else(
                || fail(Reason::Unavailable, "the connection was closed at once"),
                |error| fail(reason(&error), error),
            )),
        }
    }
}

/// Closes a connection when its dial was given up.
async fn close_when(given_up: CancellationToken, dials: Dials, id: ConnectionId) {
    given_up.cancelled().await;
    close(&dials, &id).await;
}

async fn close(dials: &Dials, id: &ConnectionId) {
    let kept = dials.lock().remove(id);
    if let Some(kept) = kept
        && !kept.close(CLOSE_GRACE).await
    {
        debug!(connection.id = %id, "the peer was not told of the Close; it expires there");
    }
}

/// Follows a link until it is over, tells the network and closes it.
///
/// A link whose control plane is lost is not over: its data path may work, and
/// the network's probes say if not. It is over when the peer also left the
/// registry, when it has other addresses than before, or when it is closed.
async fn follow(vl3: Vl3, dials: Dials, link: Link, mut status: watch::Receiver<ClientStatus>) {
    let mut changes = vl3.changes();
    loop {
        let now = status.borrow_and_update().state.clone();
        let healing = matches!(now, ClientState::Connecting | ClientState::Healing);
        let over = match now {
            ClientState::Closed => true,
            ClientState::Up(answer) => PeerClient::link(&answer).addresses != link.addresses,
            ClientState::Connecting | ClientState::Healing => has_left(&vl3, &link.connection),
        };
        if over {
            break;
        }
        tokio::select! {
            news = status.changed() => if news.is_err() { break },
            Ok(()) = changes.changed(), if healing => {}
        }
    }
    vl3.handle(Event::OutgoingClosed(link.connection.clone()));
    close(&dials, &link.connection).await;
}

/// Whether the peer of a link is no longer registered.
fn has_left(vl3: &Vl3, link: &ConnectionId) -> bool {
    let peers = vl3.status();
    let peer = peers
        .iter()
        .find(|peer| peer.connection.as_ref() == Some(link));
    peer.is_some_and(|peer| peer.state == PeerState::Gone)
}

/// Whether the data path to a peer works, as the network's probes say.
struct Probed(Vl3);

impl Liveness for Probed {
    fn alive(&self, connection: &Connection) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.0.is_alive(&connection.id)))
    }
}

fn fail(reason: Reason, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DialError {
    DialError {
        reason,
        source: source.into(),
    }
}

fn reason(error: &carrick_chain::Error) -> Reason {
    match error.kind {
        Kind::DeadlineExceeded => Reason::Deadline,
        Kind::PermissionDenied => Reason::Denied,
        Kind::Invalid => Reason::Invalid,
        Kind::Exhausted | Kind::Internal | Kind::Unavailable => Reason::Unavailable,
    }
}

impl Dialer for PeerDialer {
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<Link, DialError>> {
        Box::pin(self.dial(endpoint))
    }

    fn close(&self, connection: ConnectionId) -> BoxFuture<'_, ()> {
        Box::pin(async move { close(&self.0.dials, &connection).await })
    }

    fn evict(&self, connection: ConnectionId) -> BoxFuture<'_, ()> {
        self.0.handle.close(&connection);
        Box::pin(std::future::ready(()))
    }

    fn route(&self, link: Link, installed: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(plane) = &self.0.plane else { return };
            if let Err(error) = plane.book.withhold(&link.connection, !installed).await {
                let error: &dyn std::error::Error = &error;
                warn!(connection.id = %link.connection, error, "cannot change the routes of a link");
            }
        })
    }
}

/// Asks clients and peers for a new Request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) handle: carrick_chain::Handle,
    pub(crate) dials: Dials,
}

impl carrick_vl3::elements::Refresh for Ask {
    fn ask(&self, which: &dyn Fn(&Connection) -> bool, change: &dyn Fn(&mut Connection)) {
        self.handle.ask_refresh(which, change);
        self.dials.refresh(which);
    }

    fn again(&self, id: &ConnectionId) {
        self.handle.refresh(id);
        self.dials.refresh_one(id);
    }
}
