use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use carrick_types::{EndpointName, ServiceName};
use futures::Stream;

use crate::store::Change;
use crate::{Endpoint, EndpointQuery, Refused, Service, ServiceQuery};

/// What can be watched: knows its queries, and under which keys these look
/// for it.
pub(crate) trait Watched: Send + Sync + 'static {
    type Name: Clone + Ord + Send + 'static;
    type Query: Send + 'static;

    fn name(&self) -> &Self::Name;
    fn is_asked_for(&self, query: &Self::Query) -> bool;
    /// The one key a query waits under.
    fn key(query: &Self::Query) -> Key;
    /// All keys under which queries may wait for this.
    fn keys(&self) -> Vec<Key>;
}

/// Where a query waits: under the most telling thing that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Any,
    Endpoint(EndpointName),
    Service(ServiceName),
}

impl Watched for Endpoint {
    type Name = EndpointName;
    type Query = EndpointQuery;

    fn name(&self) -> &EndpointName {
        &self.name
    }

    fn is_asked_for(&self, query: &EndpointQuery) -> bool {
        query.matches(self)
    }

    fn key(query: &EndpointQuery) -> Key {
        match (&query.name, query.services.first()) {
            (Some(name), _) => Key::Endpoint(name.clone()),
            (None, Some(service)) => Key::Service(service.clone()),
            (None, None) => Key::Any,
        }
    }

    fn keys(&self) -> Vec<Key> {
        let own = [Key::Any, Key::Endpoint(self.name.clone())];
        own.into_iter()
            .chain(self.services.iter().cloned().map(Key::Service))
            .collect()
    }
}

impl Watched for Service {
    type Name = ServiceName;
    type Query = ServiceQuery;

    fn name(&self) -> &ServiceName {
        &self.name
    }

    fn is_asked_for(&self, query: &ServiceQuery) -> bool {
        query.matches(self)
    }

    fn key(query: &ServiceQuery) -> Key {
        query.name.clone().map_or(Key::Any, Key::Service)
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::Any, Key::Service(self.name.clone())]
    }
}

/// One piece of news for a watcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News<T> {
    /// The entry as it is, or was last if it is gone.
    pub(crate) item: Arc<T>,
    pub(crate) deleted: bool,
}

// Not derived, which would ask the same of `T`.
impl<T> Clone for News<T> {
    fn clone(&self) -> Self {
        Self {
            item: self.item.clone(),
            deleted: self.deleted,
        }
    }
}

/// All open watches, found by what they wait for.
pub(crate) struct Watchers<T: Watched> {
    max: usize,
    count: usize,
    next: u64,
    by_key: BTreeMap<Key, BTreeMap<u64, Watcher<T>>>,
}

struct Watcher<T: Watched> {
    query: T::Query,
    mailbox: Arc<Mailbox<T>>,
}

/// Names one open watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchId {
    key: Key,
    number: u64,
}

// === impl Watchers ===

impl<T: Watched> Watchers<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            count: 0,
            next: 0,
            by_key: BTreeMap::new(),
        }
    }

    /// Opens a watch whose first news are `initial`.
    pub(crate) fn open(
        &mut self,
        query: T::Query,
        initial: Vec<Arc<T>>,
    ) -> Result<(WatchId, Arc<Mailbox<T>>), Refused> {
        if self.count >= self.max {
            return Err(Refused::Full {
                what: "watches",
                max: self.max,
            });
        }
        let mailbox = Arc::new(Mailbox::default());
        for item in initial {
            mailbox.put(
                News {
                    item,
                    deleted: false,
                },
                true,
            );
        }
        let id = WatchId {
            key: T::key(&query),
            number: self.next,
        };
        let watcher = Watcher {
            query,
            mailbox: mailbox.clone(),
        };
        self.by_key
            .entry(id.key.clone())
            .or_default()
            .insert(id.number, watcher);
        self.next += 1;
        self.count += 1;
        Ok((id, mailbox))
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn close(&mut self, id: &WatchId) {
        let Some(watchers) = self.by_key.get_mut(&id.key) else {
            return;
        };
        if watchers.remove(&id.number).is_some() {
            self.count -= 1;
        }
        if watchers.is_empty() {
            self.by_key.remove(&id.key);
        }
    }

    /// Tells a change to whom it concerns and returns how many watches were
    /// looked at. An entry that is no longer what a watcher asked for is
    /// deleted for it.
    pub(crate) fn publish(&self, change: &Change<T>) -> usize {
        let sides = [&change.before, &change.after];
        let keys: BTreeSet<Key> = sides
            .into_iter()
            .flatten()
            .flat_map(|item| item.keys())
            .collect();
        let watchers = keys
            .iter()
            .filter_map(|key| self.by_key.get(key))
            .flat_map(BTreeMap::values);
        watchers.map(|watcher| watcher.tell(change)).count()
    }
}

impl<T: Watched> Watcher<T> {
    fn tell(&self, change: &Change<T>) {
        let asked_for = |item: &&Arc<T>| item.is_asked_for(&self.query);
        let before = change.before.as_ref().filter(asked_for);
        let after = change.after.as_ref().filter(asked_for);
        let news = |item: &Arc<T>, deleted| News {
            item: item.clone(),
            deleted,
        };
        match (before, after) {
            (before, Some(item)) => self.mailbox.put(news(item, false), before.is_none()),
            (Some(item), None) => self.mailbox.put(news(item, true), false),
            (None, None) => {}
        }
    }
}

/// What one watcher has not yet read: at most one piece of news per name,
/// so that a slow reader costs bounded memory and still learns the last state.
pub(crate) struct Mailbox<T: Watched> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T: Watched> {
    /// Names in the order in which their news came first.
    order: BTreeMap<u64, T::Name>,
    pending: BTreeMap<T::Name, Pending<T>>,
    next: u64,
    waker: Option<Waker>,
}

struct Pending<T> {
    place: u64,
    news: News<T>,
    /// The reader knows nothing of this name yet.
    is_new: bool,
}

// === impl Mailbox ===

impl<T: Watched> Default for Mailbox<T> {
    fn default() -> Self {
        let inner = Inner {
            order: BTreeMap::new(),
            pending: BTreeMap::new(),
            next: 0,
            waker: None,
        };
        Self {
            inner: Mutex::new(inner),
        }
    }
}

impl<T: Watched> Mailbox<T> {
    /// Never blocks. `is_new` says that the name was not there before.
    fn put(&self, news: News<T>, is_new: bool) {
        let mut inner = self.lock();
        inner.put(news, is_new);
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The next news, if any.
    #[cfg(test)]
    pub(crate) fn next(&self) -> Option<News<T>> {
        self.lock().take()
    }

    /// How many news wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().pending.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Watched> Inner<T> {
    fn put(&mut self, news: News<T>, is_new: bool) {
        let name = news.item.name();
        let Some(pending) = self.pending.get_mut(name) else {
            let (place, name) = (self.next, name.clone());
            self.next += 1;
            self.order.insert(place, name.clone());
            self.pending.insert(
                name,
                Pending {
                    place,
                    news,
                    is_new,
                },
            );
            return;
        };
        if news.deleted && pending.is_new {
            // The reader never knew it.
            self.order.remove(&pending.place);
            let name = name.clone();
            self.pending.remove(&name);
        } else {
            pending.news = news;
        }
    }

    fn take(&mut self) -> Option<News<T>> {
        let (_, name) = self.order.pop_first()?;
        self.pending.remove(&name).map(|pending| pending.news)
    }
}

impl<T: Watched> Mailbox<T> {
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<News<T>> {
        let mut inner = self.lock();
        if let Some(news) = inner.take() {
            return Poll::Ready(news);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// An open watch; closes itself when it is dropped.
pub(crate) struct Watch<T: Watched> {
    mailbox: Arc<Mailbox<T>>,
    close: Option<Box<dyn FnOnce() + Send>>,
}

impl<T: Watched> Watch<T> {
    pub(crate) fn new(mailbox: Arc<Mailbox<T>>, close: impl FnOnce() + Send + 'static) -> Self {
        Self {
            mailbox,
            close: Some(Box::new(close)),
        }
    }
}

impl<T: Watched> Stream for Watch<T> {
    type Item = News<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<News<T>>> {
        self.mailbox.poll(context).map(Some)
    }
}

impl<T: Watched> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            close();
        }
    }
}

#[cfg(test)]
mod tests;
