use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use carrick_types::{Connection, ConnectionId, PathSegment, State};
use futures::Stream;

use super::queue::{Item, Queue};
use super::{ConnectionEvent, EventKind, Selector};

/// The last answer of every connection, and who wants to hear of them.
///
/// A selector that names a segment id is found by that id, so an event costs
/// as much as there are subscribers that it concerns, plus those which listen
/// to no one in particular.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hub(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<ConnectionId, Arc<Connection>>,
    /// Hash of each segment id of each connection. Equal hashes of different
    /// ids do no harm: the selector decides. (`None` is only ever a bound.)
    by_segment: BTreeSet<(u64, Option<ConnectionId>)>,
    subscribers: HashMap<u64, Subscriber>,
    /// Subscribers by the hash of a segment id that they name.
    particular: BTreeSet<(u64, u64)>,
    /// Subscribers that name none.
    general: BTreeSet<u64>,
    next_subscriber: u64,
    hasher: RandomState,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    selector: Selector,
    inbox: Arc<Inbox>,
}

/// Between the hub and one [`Monitor`].
type Inbox = Mutex<InboxState>;

#[derive(Debug)]
struct InboxState {
    initial: Option<Vec<Arc<Connection>>>,
    queue: Queue,
    waker: Option<Waker>,
    closed: bool,
}

// === impl Hub ===

impl Hub {
    /// Stores a connection's answer and tells those concerned.
    pub(crate) fn update(&self, connection: &Arc<Connection>) {
        self.lock().update(connection);
    }

    /// Forgets a connection and tells those concerned; nothing if it is unknown.
    pub(crate) fn delete(&self, id: &ConnectionId) {
        let mut inner = self.lock();
        if let Some(connection) = inner.forget(id) {
            inner.publish(EventKind::Delete, &connection, false);
        }
    }

    /// Asks the clients of those that `which` chooses for a refresh, saying
    /// what `change` makes of their connection.
    pub(crate) fn ask_refresh(
        &self,
        which: &dyn Fn(&Connection) -> bool,
        change: &dyn Fn(&mut Connection),
    ) {
        for connection in self.connections() {
            self.ask_refresh_of(&connection.id, which, change);
        }
    }

    /// The same of one connection.
    pub(crate) fn ask_refresh_of(
        &self,
        id: &ConnectionId,
        which: &dyn Fn(&Connection) -> bool,
        change: &dyn Fn(&mut Connection),
    ) {
        while let Some(current) = self.connection(id)
            && which(&current)
            && !self.replace_with_asked(&current, change)
        {}
    }

    /// Whether `current` was still the last answer.
    fn replace_with_asked(
        &self,
        current: &Arc<Connection>,
        change: &dyn Fn(&mut Connection),
    ) -> bool {
        let mut asked = Connection::clone(current);
        change(&mut asked);
        asked.id = current.id.clone();
        asked.state = State::RefreshRequested;
        let mut inner = self.lock();
        let last = inner.connections.get(&current.id);
        let is_last = last.is_some_and(|last| Arc::ptr_eq(last, current));
        if is_last {
            inner.update(&Arc::new(asked));
        }
        is_last
    }

    /// The last answers.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock().connections.values().cloned().collect()
    }

    /// The last answer of one connection.
    pub(crate) fn connection(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.lock().connections.get(id).cloned()
    }

    /// The last answers that a selector means.
    pub(crate) fn select(&self, selector: &Selector) -> Vec<Arc<Connection>> {
        self.lock().matching(selector)
    }

    /// The connection that comes from this segment.
    pub(crate) fn called_by(&self, caller: &PathSegment) -> Option<Arc<Connection>> {
        self.lock().called_by(caller)
    }

    /// Follows the connections that `selector` means.
    pub(crate) fn monitor(&self, selector: Selector) -> Monitor {
        let (number, inbox) = self.lock().subscribe(selector);
        Monitor {
            hub: self.clone(),
            number,
            inbox,
        }
    }

    /// Ends every stream once it has delivered what it holds.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for subscriber in inner.subscribers.values() {
            let mut inbox = lock(&subscriber.inbox);
            inbox.closed = true;
            inbox.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

/// What these locks guard is whole between statements, so that a panic of a
/// caller's closure does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Inner ===

impl Inner {
    fn update(&mut self, connection: &Arc<Connection>) {
        let first = self.forget(&connection.id).is_none();
        for hash in self.hashes(connection) {
            self.by_segment.insert((hash, Some(connection.id.clone())));
        }
        self.connections
            .insert(connection.id.clone(), connection.clone());
        self.publish(EventKind::Update, connection, first);
    }

    fn forget(&mut self, id: &ConnectionId) -> Option<Arc<Connection>> {
        let connection = self.connections.remove(id)?;
        for hash in self.hashes(&connection) {
            self.by_segment.remove(&(hash, Some(id.clone())));
        }
        Some(connection)
    }

    fn called_by(&self, caller: &PathSegment) -> Option<Arc<Connection>> {
        let hash = self.hasher.hash_one(caller.id.as_str());
        let named = self.by_segment.range((hash, None)..);
        let named = named.take_while(|(other, _)| *other == hash);
        let connections = named.filter_map(|(_, id)| self.connections.get(id.as_ref()?));
        let is_caller = |is: &PathSegment| is.id == caller.id && is.name == caller.name;
        let mut known = connections.filter(|it| it.path.previous().is_some_and(is_caller));
        known.next().cloned()
    }

    fn hashes(&self, connection: &Connection) -> Vec<u64> {
        (connection.path.segments.iter())
            .map(|segment| self.hasher.hash_one(segment.id.as_str()))
            .collect()
    }

    fn publish(&self, kind: EventKind, connection: &Arc<Connection>, first: bool) {
        let particular: BTreeSet<u64> = (self.hashes(connection).into_iter())
            .flat_map(|hash| self.particular.range((hash, 0)..=(hash, u64::MAX)))
            .map(|(_, number)| *number)
            .collect();
        for number in self.general.iter().chain(&particular) {
            let subscriber = &self.subscribers[number];
            if subscriber.selector.matches(connection) {
                subscriber.tell(Item {
                    kind,
                    connection: connection.clone(),
                    first,
                });
            }
        }
    }

    fn subscribe(&mut self, selector: Selector) -> (u64, Arc<Inbox>) {
        let inbox = Arc::new(Mutex::new(InboxState {
            initial: Some(self.matching(&selector)),
            queue: Queue::new(),
            waker: None,
            closed: self.closed,
        }));
        let number = self.next_subscriber;
        self.next_subscriber += 1;
        match self.hash_named_by(&selector) {
            Some(hash) => self.particular.insert((hash, number)),
            None => self.general.insert(number),
        };
        let subscriber = Subscriber {
            selector,
            inbox: inbox.clone(),
        };
        self.subscribers.insert(number, subscriber);
        (number, inbox)
    }

    fn unsubscribe(&mut self, number: u64) {
        let Some(subscriber) = self.subscribers.remove(&number) else {
            return;
        };
        match self.hash_named_by(&subscriber.selector) {
            Some(hash) => self.particular.remove(&(hash, number)),
            None => self.general.remove(&number),
        };
    }

    fn hash_named_by(&self, selector: &Selector) -> Option<u64> {
        selector.segment_id().map(|id| self.hasher.hash_one(id))
    }

    fn matching(&self, selector: &Selector) -> Vec<Arc<Connection>> {
        let matches = |connection: &&Arc<Connection>| selector.matches(connection);
        let Some(hash) = self.hash_named_by(selector) else {
            return self.connections.values().filter(matches).cloned().collect();
        };
        (self.by_segment.range((hash, None)..))
            .take_while(|(of, _)| *of == hash)
            .filter_map(|(_, id)| self.connections.get(id.as_ref()?))
            .filter(matches)
            .cloned()
            .collect()
    }
}

// === impl Subscriber ===

impl Subscriber {
    fn tell(&self, item: Item) {
        let mut inbox = lock(&self.inbox);
        inbox.queue.push(item);
        inbox.wake();
    }
}

impl InboxState {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn next(&mut self) -> Option<ConnectionEvent> {
        if let Some(connections) = self.initial.take() {
            let kind = EventKind::InitialStateTransfer;
            return Some(ConnectionEvent { kind, connections });
        }
        let item = self.queue.pop()?;
        Some(ConnectionEvent {
            kind: item.kind,
            connections: vec![item.connection],
        })
    }
}

/// A stream of [`ConnectionEvent`]s, the first of them what there is now. It
/// ends when the endpoint does, and never for want of reading: a slow reader
/// misses states in between, but neither the last one nor a Delete.
#[derive(Debug)]
pub struct Monitor {
    hub: Hub,
    number: u64,
    inbox: Arc<Inbox>,
}

impl Stream for Monitor {
    type Item = ConnectionEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ConnectionEvent>> {
        let mut inbox = lock(&self.inbox);
        if let Some(event) = inbox.next() {
            return Poll::Ready(Some(event));
        }
        if inbox.closed {
            return Poll::Ready(None);
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.hub.lock().unsubscribe(self.number);
    }
}
