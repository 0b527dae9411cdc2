use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use carrick_proto::registry::NetworkServiceEndpointResponse;
use carrick_types::EndpointName;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tracing::{debug, warn};

use crate::{Client, Endpoint, EndpointQuery, Error, wire};

/// How long the opening of a watch may take before the list is asked for
/// without it. Registries other than ours answer with the first news only.
const SETTLE: Duration = Duration::from_millis(500);

/// News that wait for a slow consumer here; the rest waits at the registry.
const QUEUE: usize = 64;

/// What a watch of endpoints tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An endpoint is there, or is not what it was.
    Updated(Endpoint),
    /// An endpoint is gone.
    Deleted(EndpointName),
    /// The registry could not be asked; what was told before still stands.
    Failed,
    /// Everything there is has been told: the end of the first list, and again
    /// after each reconnect.
    Synced,
}

/// A watch of endpoints; see [`Client::watch_endpoints`].
///
/// It never ends by itself. What is told between two [`Event::Synced`] takes
/// a consumer from what it knew to what is, also over a reconnect.
#[derive(Debug)]
pub struct EndpointWatch {
    events: mpsc::Receiver<Event>,
    _task: AbortOnDropHandle<()>,
}

impl EndpointWatch {
    /// The next event. Does not lose any when it is dropped halfway.
    pub async fn recv(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The runtime is being shut down; this task ends with it.
            None => std::future::pending().await,
        }
    }
}

impl Stream for EndpointWatch {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

pub(crate) fn watch(client: Client, query: EndpointQuery) -> EndpointWatch {
    let (sender, events) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        client,
        query,
        known: BTreeMap::new(),
        missing: BTreeMap::new(),
        events: sender,
        failures: 0,
    };
    EndpointWatch {
        events,
        _task: AbortOnDropHandle::new(tokio::spawn(watcher.run())),
    }
}

struct Watcher {
    client: Client,
    query: EndpointQuery,
    /// What the consumer was told.
    known: BTreeMap<EndpointName, Endpoint>,
    /// Those of `known` that a reconnect did not find, and how long they are held.
    missing: BTreeMap<EndpointName, Instant>,
    events: mpsc::Sender<Event>,
    /// Since the last list.
    failures: u32,
}

/// Why a session ended.
enum End {
    /// Nobody listens any more.
    Dropped,
    Failed(Error),
    /// The registry ended the stream.
    Finished,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

// === impl Watcher ===

impl Watcher {
    async fn run(mut self) {
        while !self.events.is_closed() {
            match self.session().await {
                Err(End::Dropped) => return,
                Err(End::Failed(error)) => {
                    self.report(&error);
                    // A consumer that is behind has news enough.
                    let _ = self.events.try_send(Event::Failed);
                }
                Ok(()) | Err(End::Finished) => debug!("the registry ended a watch"),
            }
            self.failures = self.failures.saturating_add(1);
            sleep(self.client.options().backoff.after(self.failures)).await;
        }
    }

    /// Warns once per outage.
    fn report(&self, error: &Error) {
        let error: &dyn std::error::Error = error;
        if self.failures == 0 {
            warn!(error, "lost the watch of endpoints; trying again");
        } else {
            debug!(
                error,
                attempts = self.failures,
                "still no watch of endpoints"
            );
        }
    }

    /// One stream from opening to end. The list is asked for *after* the
    /// stream is open, so that nothing can fall between the two; what then
    /// comes in the stream may be older than the list, but the last of it is not.
    async fn session(&mut self) -> Result<(), End> {
        let (client, query) = (self.client.clone(), self.query.clone());
        let mut opening = pin!(client.open_endpoint_watch(&query));
        let opened = timeout(SETTLE, &mut opening).await.ok().transpose()?;
        self.list().await?;
        self.tell(Event::Synced).await?;
        self.failures = 0;
        let resync = self.client.options().resync;
        let mut ticks = interval_at(Instant::now() + resync, resync);
        let mut changes = if let Some(changes) = opened {
            changes
        } else {
            let changes = loop {
                tokio::select! {
                    changes = &mut opening => break changes?,
                    _ = ticks.tick() => self.list().await?,
                    () = due(self.first_missing()) => self.forget().await?,
                    () = self.events.closed() => return Err(End::Dropped),
                }
            };
            self.list().await?;
            changes
        };
        loop {
            tokio::select! {
                change = next(&mut changes) => self.apply(change?).await?,
                _ = ticks.tick() => self.list().await?,
                () = due(self.first_missing()) => self.forget().await?,
                () = self.events.closed() => return Err(End::Dropped),
            }
        }
    }

    /// Asks for the whole list and tells the difference. The stream is not
    /// read meanwhile, so the list is newer than all that was read from it.
    async fn list(&mut self) -> Result<(), End> {
        let found = self.client.find_endpoints(&self.query).await?;
        let names: BTreeSet<_> = found.iter().map(|endpoint| endpoint.name.clone()).collect();
        for endpoint in found {
            self.updated(endpoint).await?;
        }
        let until = Instant::now() + self.client.options().grace;
        for name in self.known.keys().filter(|name| !names.contains(*name)) {
            self.missing.entry(name.clone()).or_insert(until);
        }
        self.forget().await
    }

    /// Deletes what has been missing for too long.
    async fn forget(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let over = self.missing.iter().filter(|(_, until)| **until <= now);
        for name in over.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.deleted(name).await?;
        }
        Ok(())
    }

    fn first_missing(&self) -> Option<Instant> {
        self.missing.values().min().copied()
    }

    async fn apply(&mut self, change: NetworkServiceEndpointResponse) -> Result<(), End> {
        let deleted = change.deleted;
        let endpoint = match wire::endpoint_found(change.network_service_endpoint) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "left out an endpoint that the registry told of");
                return Ok(());
            }
        };
        if deleted {
            self.deleted(endpoint.name).await
        } else {
            self.updated(endpoint).await
        }
    }

    async fn updated(&mut self, endpoint: Endpoint) -> Result<(), End> {
        self.missing.remove(&endpoint.name);
        match self.known.entry(endpoint.name.clone()) {
            Entry::Occupied(known) if *known.get() == endpoint => return Ok(()),
            Entry::Occupied(mut known) => _ = known.insert(endpoint.clone()),
            Entry::Vacant(place) => _ = place.insert(endpoint.clone()),
        }
        self.tell(Event::Updated(endpoint)).await
    }

    async fn deleted(&mut self, name: EndpointName) -> Result<(), End> {
        self.missing.remove(&name);
        if self.known.remove(&name).is_none() {
            return Ok(());
        }
        self.tell(Event::Deleted(name)).await
    }

    async fn tell(&self, event: Event) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Dropped)
    }
}

async fn next(
    changes: &mut Streaming<NetworkServiceEndpointResponse>,
) -> Result<NetworkServiceEndpointResponse, End> {
    let change = changes.message().await;
    let change = change.map_err(|status| Error::answered("a watch of endpoints", status))?;
    change.ok_or(End::Finished)
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
