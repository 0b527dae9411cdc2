//! The endpoint: one task per connection.

mod expiry;
mod handle;
mod mailbox;
mod options;
mod worker;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use carrick_types::{Connection, ConnectionId, PathSegment, Token};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

pub use handle::Handle;
pub use options::{BoxError, EndpointOptions, IsStale, Journal, Tokens};

use crate::monitor::Hub;
use crate::{Chain, Error, Kind, Monitor, Operation, Selector, path};
use mailbox::{Event, Held, Mailbox, Request};
use worker::Worker;

/// Serves connections: one task for each, so that its events are handled one
/// at a time, in order, and to the end even if the caller goes away (NSM
/// `begin`, with `updatepath`, `updatetoken`, `timeout`, `monitor` and
/// `trimpath`).
///
/// A clone is the same endpoint. It lives until [`Endpoint::shutdown`] or
/// [`Endpoint::stop`].
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: EndpointOptions,
    chain: Chain,
    connections: Mutex<HashMap<ConnectionId, Held>>,
    hub: Hub,
    tasks: TaskTracker,
    /// Admits nothing more and closes what is up.
    closing: CancellationToken,
    /// Admits nothing more and leaves what is up.
    stopping: CancellationToken,
    failed: CancellationToken,
}

impl Endpoint {
    /// Makes an endpoint of a chain.
    #[must_use]
    pub fn new(options: EndpointOptions, chain: Chain) -> Self {
        let handle = options.handle.clone();
        let endpoint = Self(Arc::new(Inner {
            options,
            chain,
            connections: Mutex::default(),
            hub: Hub::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stopping: CancellationToken::new(),
            failed: CancellationToken::new(),
        }));
        handle.bind(&endpoint);
        endpoint
    }

    /// Serves a Request as it comes from the wire, with `path.index` at the
    /// caller's segment; the answer comes back the same way.
    ///
    /// The answer's own segment has a token and its end, its state is
    /// [`Up`](carrick_types::State::Up), and it expires when the caller's
    /// segment does, less the time this Request had (NSM `timeout`).
    ///
    /// # Errors
    ///
    /// The path is not valid or the caller's segment does not expire
    /// (`Invalid`), there are too many connections (`Exhausted`), the
    /// connection has too many events waiting or the endpoint is ending
    /// (`Unavailable`), or an element failed. After a failed first Request
    /// nothing is left; after a failed refresh everything is as it was.
    pub async fn request(
        &self,
        mut request: Connection,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let name = &self.0.options.name;
        let known = self.known(&request);
        let new_id = || known.unwrap_or_else(options::new_id);
        let previous = path::enter(&mut request, name, new_id)
            .map_err(|invalid| Error::request("updatepath", &request, Kind::Invalid, invalid))?;
        let expires = expiry::of(&request, Instant::now(), SystemTime::now(), deadline)
            .map_err(|missing| Error::request("timeout", &request, Kind::Invalid, missing))?;
        self.sign(&mut request)?;
        let id = request.id.clone();
        let (answer, answered) = oneshot::channel();
        let request = Request {
            connection: request,
            deadline,
            expires,
            answer,
            caller: Span::current(),
        };
        self.put_request(&id, Event::Request(Box::new(request)))?;
        let mut connection = self.answer(&id, Operation::Request, answered).await?;
        path::leave(&mut connection, previous).map_err(|invalid| {
            Error::request("updatepath", &connection, Kind::Internal, invalid)
        })?;
        Ok(connection)
    }

    /// Closes a connection; one that is not there is no error. What the chain
    /// closes is the connection as it was last answered, not as it came here.
    ///
    /// # Errors
    ///
    /// The path is not valid, or an element could not close; it is tried again
    /// unasked.
    pub async fn close(&self, mut connection: Connection) -> Result<(), Error> {
        path::enter(&mut connection, &self.0.options.name, options::new_id)
            .map_err(|invalid| Error::close("updatepath", &connection, Kind::Invalid, invalid))?;
        self.close_id(&connection.id).await
    }

    /// Closes a connection by its id at this endpoint.
    ///
    /// # Errors
    ///
    /// An element could not close; it is tried again unasked.
    pub async fn close_id(&self, id: &ConnectionId) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let connections = self.lock();
            let Some(held) = connections.get(id) else {
                return Ok(());
            };
            held.put(Event::Close(answer, Span::current()))
                .map_err(|why| why.into_error(id, Operation::Close))?;
        }
        self.answer(id, Operation::Close, answered).await
    }

    /// Takes a connection up again after a restart: `connection` is what the
    /// [`Journal`] last kept. The chain runs as for a refresh; the expiry is
    /// the stored one, and one that passed meanwhile closes the connection.
    ///
    /// # Errors
    ///
    /// An element failed. The connection is kept all the same, since its data
    /// plane may be working: it may be restored again, its client may refresh
    /// it, and otherwise it expires.
    pub async fn restore(&self, connection: Connection) -> Result<(), Error> {
        let id = connection.id.clone();
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        let expires = match connection.state {
            // Its Close had begun.
            carrick_types::State::Down => now,
            _ => expiry::of(&connection, now, SystemTime::now(), now).map_err(|missing| {
                Error::request("timeout", &connection, Kind::Invalid, missing)
            })?,
        };
        let request = Request {
            connection,
            deadline: now + options::RESTORE_TIMEOUT,
            expires,
            answer,
            caller: Span::current(),
        };
        self.put(&id, Event::Restore(Box::new(request)), usize::MAX)?;
        self.answer(&id, Operation::Request, answered)
            .await
            .map(drop)
    }

    /// Follows the connections that `selector` means; the first event says
    /// what there is now, even if that is nothing.
    #[must_use]
    pub fn monitor(&self, selector: Selector) -> Monitor {
        self.0.hub.monitor(selector)
    }

    /// The last answers, with this endpoint's ids and index.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.0.hub.connections()
    }

    /// The last answer to a connection by its id at this endpoint.
    #[must_use]
    pub fn connection(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.0.hub.connection(id)
    }

    /// Asks the clients of the connections that `which` chooses to refresh
    /// them, with an Update whose state is `REFRESH_REQUESTED` and whose
    /// content is what `change` makes of the last answer (NSM `vl3mtu`).
    ///
    /// A Request that is being served meanwhile may still answer what was
    /// before: see [`EndpointOptions::is_stale`].
    pub fn ask_refresh(
        &self,
        which: &dyn Fn(&Connection) -> bool,
        change: &dyn Fn(&mut Connection),
    ) {
        self.0.hub.ask_refresh(which, change);
    }

    /// A handle for elements and subsystems; it does not keep the endpoint.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.options.handle.clone()
    }

    /// Ends when an element has panicked. Its connection is lost to this
    /// process — its Requests fail with `Internal`, and what it holds stays
    /// held — while the others go on; the process should restart soon.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// Admits no further Request and closes every connection; `false` if some
    /// are not closed within `grace`. Monitor streams end after that.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.end(&self.0.closing, grace).await
    }

    /// Admits no further Request and ends the tasks without closing anything,
    /// so that the data plane goes on for a successor; Requests being served
    /// are finished. `false` if some are not within `grace`.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.end(&self.0.stopping, grace).await
    }

    async fn end(&self, how: &CancellationToken, grace: Duration) -> bool {
        {
            let _no_request_is_being_admitted = self.lock();
            how.cancel();
        }
        self.0.tasks.close();
        let ended = timeout(grace, self.0.tasks.wait()).await.is_ok();
        self.0.stopping.cancel();
        self.0.hub.close();
        ended && !self.0.failed.is_cancelled()
    }

    /// Its name, which is its segment's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// A token of this endpoint, as it will stand in the answer to `request`,
    /// for `audience`, the identity of the caller where it is known.
    ///
    /// # Errors
    ///
    /// There is no identity to sign with, for now.
    pub fn token(&self, request: &Connection, audience: Option<&str>) -> Result<Token, Error> {
        let token = self.0.options.tokens.token(audience);
        token.map_err(|error| Error::request("updatetoken", request, Kind::Unavailable, error))
    }

    /// The last answers that `selector` means, at the cost of a look-up where
    /// it names a segment's id.
    #[must_use]
    pub fn select(&self, selector: &Selector) -> Vec<Arc<Connection>> {
        self.0.hub.select(selector)
    }

    fn is_ending(&self) -> bool {
        self.0.closing.is_cancelled() || self.0.stopping.is_cancelled()
    }

    /// The connection of a caller that does not say its id here.
    fn known(&self, request: &Connection) -> Option<ConnectionId> {
        if !self.0.options.knows_callers {
            return None;
        }
        let is_ours = |segment: &PathSegment| segment.name == self.0.options.name;
        if request.path.following().is_some_and(is_ours) {
            return None;
        }
        let caller = request.path.current()?;
        let known = self.0.hub.called_by(caller)?;
        (known.network_service == request.network_service).then(|| known.id.clone())
    }

    /// Puts a token and its end into the own segment (NSM `updatetoken`).
    fn sign(&self, request: &mut Connection) -> Result<(), Error> {
        let token = self.token(request, None)?;
        let index = request.path.index;
        if let Some(own) = request.path.segments.get_mut(index) {
            own.token = token.value;
            own.expires = Some(token.expires);
        }
        Ok(())
    }

    fn put_request(&self, id: &ConnectionId, event: Event) -> Result<(), Error> {
        self.put(id, event, self.0.options.max_connections)
    }

    /// Hands an event to the connection's task, which is made if need be.
    fn put(&self, id: &ConnectionId, event: Event, max: usize) -> Result<(), Error> {
        let mut connections = self.lock();
        let refuse = |kind, why| Err(Error::new("begin", Operation::Request, id, kind, why));
        if self.is_ending() {
            return refuse(Kind::Unavailable, "the endpoint is ending".to_owned());
        }
        let held = connections.len();
        let held = match connections.entry(id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if held >= max => {
                return refuse(Kind::Exhausted, format!("{held} connections are the most"));
            }
            Entry::Vacant(entry) => entry.insert(Held::Task(self.spawn(id))),
        };
        held.put(event)
            .map_err(|why| why.into_error(id, Operation::Request))
    }

    fn spawn(&self, id: &ConnectionId) -> Mailbox {
        let (mailbox, events) = mailbox::new();
        let worker = Worker::new(self.clone(), id.clone(), mailbox.signals());
        self.0.tasks.spawn(worker.run(events));
        mailbox
    }

    /// Waits for an answer; the task that does not give one was ended.
    async fn answer<T>(
        &self,
        id: &ConnectionId,
        operation: Operation,
        answered: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        answered.await.unwrap_or_else(|gone| {
            let kind = if self.is_ending() {
                Kind::Unavailable
            } else {
                Kind::Internal
            };
            Err(Error::new("begin", operation, id, kind, gone))
        })
    }

    /// A panic under this lock leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Held>> {
        self.0
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
