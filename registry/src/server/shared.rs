use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use carrick_chain::Tokens;
use carrick_policy::Policies;
use carrick_types::{EndpointName, ServiceName, Token};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ServerOptions;
use super::sockets::{Socket, Sockets};
use crate::store::Change;
use crate::watch::{Watch, Watched, Watchers};
use crate::{Endpoint, EndpointQuery, Now, Refused, Registry, Service, ServiceQuery};

/// Longest sleep of the task that expires endpoints while there is none.
const IDLE: Duration = Duration::from_secs(3600);

/// What calls and tasks of one server share.
pub(super) struct Shared {
    state: Mutex<State>,
    tokens: Option<Arc<dyn Tokens>>,
    pub(super) policies: Policies,
    /// Something may expire earlier than it did.
    pub(super) sooner: Notify,
    /// Something waits to be written.
    pub(super) dirty: Notify,
    /// How far the journal is; `None` without one.
    written: Option<watch::Sender<Written>>,
    pub(super) stopped: CancellationToken,
}

/// How far the journal is.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The last change that was written, or could not be.
    pub(super) change: u64,
    pub(super) failed: Option<Arc<carrick_store::Error>>,
}

pub(super) struct State {
    pub(super) registry: Registry,
    endpoint_watchers: Watchers<Endpoint>,
    service_watchers: Watchers<Service>,
    pub(super) sockets: Sockets,
    pub(super) unwritten: Unwritten,
}

/// Entries that are not in the store as they are in memory.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Changes so far.
    pub(super) change: u64,
    pub(super) endpoints: BTreeSet<EndpointName>,
    pub(super) services: BTreeSet<ServiceName>,
}

/// Why a call was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the registry's store is broken")]
    Store(#[source] Arc<carrick_store::Error>),
    #[error("the registry is shutting down")]
    Stopped,
}

/// This moment. The monotonic half is tokio's, which tests can pause.
pub(super) fn now() -> Now {
    Now {
        instant: Instant::now().into_std(),
        wall: SystemTime::now(),
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(options: ServerOptions) -> Self {
        let state = State {
            registry: Registry::new(options.limits),
            endpoint_watchers: Watchers::new(options.watches),
            service_watchers: Watchers::new(options.watches),
            sockets: Sockets::default(),
            unwritten: Unwritten::default(),
        };
        Self {
            state: Mutex::new(state),
            tokens: options.tokens,
            policies: options.policies,
            sooner: Notify::new(),
            dirty: Notify::new(),
            written: options
                .store
                .map(|_| watch::Sender::new(Written::default())),
            stopped: CancellationToken::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Live endpoints, services, and open watches of either.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let endpoints = state
            .registry
            .find_endpoints(&EndpointQuery::default(), now().instant);
        let services = state.registry.find_services(&ServiceQuery::default());
        let watchers = state.endpoint_watchers.len() + state.service_watchers.len();
        (endpoints.len(), services.len(), watchers)
    }

    /// Our own token; without one the path goes on without it.
    pub(super) fn token(&self) -> Option<Token> {
        let token = self.tokens.as_ref()?.token(None);
        let error = |error: &carrick_chain::BoxError| {
            let error: &dyn std::error::Error = error.as_ref();
            warn!(error, "the registry answers without a token of its own");
        };
        token.inspect_err(error).ok()
    }

    pub(super) async fn register_endpoint(
        &self,
        endpoint: Endpoint,
        token_expires: Option<SystemTime>,
        socket: Option<Socket>,
    ) -> Result<Arc<Endpoint>, Failed> {
        let (after, change) = {
            let mut state = self.lock();
            let change = state
                .registry
                .register_endpoint(endpoint, token_expires, now())?;
            let after = change
                .after
                .clone()
                .expect("a registration leaves an endpoint");
            // Before those who watch are told, as it goes along with the news.
            state.sockets.put(&after.name, socket);
            (after, state.endpoint_changed(&change))
        };
        self.sooner.notify_one();
        self.write(change).await.map(|()| after)
    }

    pub(super) async fn unregister_endpoint(&self, endpoint: &Endpoint) -> Result<(), Failed> {
        let change = {
            let mut state = self.lock();
            match state.registry.unregister_endpoint(endpoint)? {
                Some(change) => state.endpoint_changed(&change),
                None => return Ok(()),
            }
        };
        self.write(change).await
    }

    /// The live endpoint of a name.
    pub(super) fn endpoint(&self, name: &EndpointName) -> Option<Arc<Endpoint>> {
        let query = EndpointQuery::by_name(name.clone());
        let found = self.lock().registry.find_endpoints(&query, now().instant);
        found.into_iter().next()
    }

    /// The service of a name.
    pub(super) fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.lock().registry.service(name).cloned()
    }

    /// Registers a service; `None` if that of its name is no longer `seen`, of
    /// which it was decided who may change it.
    pub(super) async fn register_service(
        &self,
        service: Service,
        seen: Option<&Arc<Service>>,
    ) -> Result<Option<Arc<Service>>, Failed> {
        let (after, change) = {
            let mut state = self.lock();
            let held = state.registry.service(&service.name);
            if held.map(Arc::as_ptr) != seen.map(Arc::as_ptr) {
                return Ok(None);
            }
            let change = state.registry.register_service(service)?;
            let after = change
                .after
                .clone()
                .expect("a registration leaves a service");
            (after, state.service_changed(&change))
        };
        self.write(change).await.map(|()| Some(after))
    }

    pub(super) async fn unregister_service(&self, name: &ServiceName) -> Result<(), Failed> {
        let change = {
            let mut state = self.lock();
            match state.registry.unregister_service(name) {
                Some(change) => state.service_changed(&change),
                None => return Ok(()),
            }
        };
        self.write(change).await
    }

    pub(super) fn watch_endpoints(
        self: &Arc<Self>,
        query: EndpointQuery,
    ) -> Result<Watch<Endpoint>, Refused> {
        let mut state = self.lock();
        let initial = state.registry.find_endpoints(&query, now().instant);
        let (id, mailbox) = state.endpoint_watchers.open(query, initial)?;
        let shared = self.clone();
        Ok(Watch::new(mailbox, move || {
            shared.lock().endpoint_watchers.close(&id);
        }))
    }

    pub(super) fn watch_services(
        self: &Arc<Self>,
        query: ServiceQuery,
    ) -> Result<Watch<Service>, Refused> {
        let mut state = self.lock();
        let initial = state.registry.find_services(&query);
        let (id, mailbox) = state.service_watchers.open(query, initial)?;
        let shared = self.clone();
        Ok(Watch::new(mailbox, move || {
            shared.lock().service_watchers.close(&id);
        }))
    }

    /// Waits until a change is in the store, if there is one.
    async fn write(&self, change: u64) -> Result<(), Failed> {
        let Some(written) = &self.written else {
            return Ok(());
        };
        self.dirty.notify_one();
        let mut written = written.subscribe();
        tokio::select! {
            biased;
            Ok(written) = written.wait_for(|written| written.change >= change) => {
                written.failed.clone().map_or(Ok(()), |error| Err(Failed::Store(error)))
            }
            () = self.stopped.cancelled() => Err(Failed::Stopped),
        }
    }

    pub(super) fn written(&self, written: Written) {
        if let Some(sender) = &self.written {
            sender.send_replace(written);
        }
    }
}

impl State {
    fn endpoint_changed(&mut self, change: &Change<Endpoint>) -> u64 {
        self.endpoint_watchers.publish(change);
        let name = name_of(change);
        if let (None, Some(name)) = (&change.after, &name) {
            self.sockets.put(name, None);
        }
        self.unwritten.endpoints.extend(name);
        self.unwritten.next()
    }

    fn service_changed(&mut self, change: &Change<Service>) -> u64 {
        self.service_watchers.publish(change);
        self.unwritten.services.extend(name_of(change));
        self.unwritten.next()
    }
}

fn name_of<T: Watched>(change: &Change<T>) -> Option<T::Name> {
    let item = change.after.as_ref().or(change.before.as_ref());
    item.map(|item| item.name().clone())
}

impl Unwritten {
    fn next(&mut self) -> u64 {
        self.change += 1;
        self.change
    }
}

/// Removes endpoints when their time is over.
pub(super) async fn expire(shared: Arc<Shared>) {
    loop {
        let next = shared.lock().registry.next_expiry();
        let next = next.map_or_else(|| Instant::now() + IDLE, Instant::from_std);
        tokio::select! {
            () = sleep_until(next) => remove_expired(&shared),
            () = shared.sooner.notified() => {}
            () = shared.stopped.cancelled() => return,
        }
    }
}

fn remove_expired(shared: &Shared) {
    let mut state = shared.lock();
    for change in state.registry.expire(now().instant) {
        let name = name_of(&change).expect("what expired had a name");
        info!(endpoint = %name, "expired");
        state.endpoint_changed(&change);
    }
    drop(state);
    shared.dirty.notify_one();
}
