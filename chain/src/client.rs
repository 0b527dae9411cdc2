//! The client half: one task per connection that keeps it.

mod back_off;
mod call;
mod heal;
mod keeper;
mod news;
mod observer;
mod options;
mod reason;
mod refresh;
mod remote;
mod status;

use std::sync::Arc;
use std::time::Duration;

use carrick_types::{Connection, ConnectionId, Invalid};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

pub use back_off::BackOff;
pub use options::{ClientOptions, Reselect};
pub use remote::{Events, Liveness, MonitorEnd, Remote};
pub use status::{ClientState, ClientStatus};

use crate::{Chain, Error, EventKind, Kind, Operation, Selector};
use keeper::{End, Keeper, Wishes};

/// Asks the next hop for connections and keeps them: Request with retry,
/// refresh, monitor, heal, reselect, Close (NSM `chains/client`).
///
/// Each connection runs through the client's own chain, whose last element is
/// the call to the next hop; what an element does after `next` it does with
/// the answer. A clone is the same client.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

struct Shared {
    options: ClientOptions,
    chain: Chain,
    remote: Arc<dyn Remote>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client whose Requests run through `chain` and then to `remote`.
    #[must_use]
    pub fn new(options: ClientOptions, chain: Chain, remote: impl Remote) -> Self {
        let remote: Arc<dyn Remote> = Arc::new(remote);
        Self(Arc::new(Shared {
            options,
            chain: chain.then(call::Call(remote.clone())),
            remote,
        }))
    }

    /// Asks for `connection` until there is one, and keeps it. Its `id` is the
    /// one at this hop; its path may be empty.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn connect(&self, connection: Connection) -> ClientConnection {
        self.keep(connection, None)
    }

    /// Goes on with a connection that a former process had, as the next hop
    /// ([`Client::existing`]) or a journal knows it; `wanted` is what
    /// [`Client::connect`] would ask for. The connection keeps its addresses, and
    /// a Request that fails does not close it.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The path does not begin with this client's segment of `wanted`'s id.
    pub fn adopt(
        &self,
        wanted: Connection,
        mut existing: Connection,
    ) -> Result<ClientConnection, Invalid> {
        let own = existing.path.client();
        let id = own.map(|own| own.id.as_str()).unwrap_or_default();
        if id != wanted.id.as_str() || own.is_some_and(|own| own.name != self.0.options.name) {
            let expected = "this client's segment with the id of the wanted connection";
            return Err(Invalid::new("path.path_segments[0]", id, expected));
        }
        existing.id = wanted.id.clone();
        existing.path.index = 0;
        Ok(self.keep(wanted, Some(existing)))
    }

    /// What the next hop holds under the id `id` of ours, if anything.
    ///
    /// # Errors
    ///
    /// The next hop does not say, or not in time.
    pub async fn existing(
        &self,
        id: &ConnectionId,
        deadline: Instant,
    ) -> Result<Option<Connection>, Error> {
        let selector = Selector::segment(&self.0.options.name, id.as_str());
        let error = |kind, why| Error::new("monitor", Operation::Request, id, kind, why);
        let asked = async {
            let mut events = self.0.remote.monitor(selector).await?;
            match events.next().await {
                Some(Ok(event)) if event.kind == EventKind::InitialStateTransfer => {
                    let mut own = event.connections.iter();
                    let own = own.find(|c| c.path.client().is_some_and(|s| s.id == id.as_str()));
                    Ok(own.map(|connection| Connection::clone(connection)))
                }
                Some(Ok(_)) => Err(error(
                    Kind::Internal,
                    "the first event is not the initial one",
                )),
                Some(Err(_)) | None => Err(error(Kind::Unavailable, "the monitor stream broke")),
            }
        };
        let late = |_| {
            Err(error(
                Kind::DeadlineExceeded,
                "the next hop did not say in time",
            ))
        };
        timeout_at(deadline, asked).await.unwrap_or_else(late)
    }

    fn keep(&self, wanted: Connection, adopted: Option<Connection>) -> ClientConnection {
        let (end, ended) = mpsc::channel(1);
        let (status, watched) = watch::channel(ClientStatus::default());
        let wishes = Arc::<Wishes>::default();
        let id = wanted.id.clone();
        let keeper = Keeper::new(self.0.clone(), wanted, adopted, wishes.clone(), status);
        tokio::spawn(keeper.run(ended));
        ClientConnection {
            id,
            end,
            status: watched,
            wishes,
        }
    }
}

/// A connection that is kept. Dropping it leaves the connection to itself, as
/// [`ClientConnection::abandon`] does.
#[derive(Debug)]
pub struct ClientConnection {
    id: ConnectionId,
    end: mpsc::Sender<End>,
    status: watch::Receiver<ClientStatus>,
    wishes: Arc<Wishes>,
}

impl ClientConnection {
    /// Its id at this hop.
    #[must_use]
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// How it is, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ClientStatus> {
        self.status.clone()
    }

    /// Waits until it is up; `None` if it is closed.
    pub async fn up(&self) -> Option<Arc<Connection>> {
        let mut status = self.watch();
        let settled = status
            .wait_for(|status| matches!(status.state, ClientState::Up(_) | ClientState::Closed))
            .await;
        settled.ok()?.connection().cloned()
    }

    /// Asks for a Request now (NSM `upstreamrefresh`).
    pub fn refresh(&self) {
        self.wishes.refresh();
    }

    /// Asks that it is closed and asked for anew.
    pub fn reselect(&self) {
        self.wishes.reselect();
    }

    /// Closes it; `false` if the next hop or an element could not within
    /// `grace`. A next hop that was not told closes it when it expires.
    pub async fn close(self, grace: Duration) -> bool {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + grace;
        let _ = self.end.send(End::Close { deadline, answer }).await;
        answered.await.unwrap_or(false)
    }

    /// Ends its task and leaves the connection as it is, for a successor to adopt.
    pub async fn abandon(self) {
        let _ = self.end.send(End::Abandon).await;
        self.end.closed().await;
    }
}
