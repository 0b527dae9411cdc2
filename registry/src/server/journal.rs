use std::sync::Arc;
use std::time::Duration;

use carrick_store::{Batch, Error, Store, Table};
use tokio::time::sleep;
use tracing::{info, warn};

use super::shared::{Shared, State, Unwritten, Written, now};
use crate::{Endpoint, Service};

/// Wait before the store is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes what changed to the store, as it is by then: what changes while a
/// batch is on its way goes with the next one, and an entry that changed
/// twice is written once.
pub(super) struct Journal {
    store: Store,
    endpoints: Table<Endpoint>,
    services: Table<Service>,
}

// === impl Journal ===

impl Journal {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            endpoints: store.table("registry.endpoints"),
            services: store.table("registry.services"),
        }
    }

    /// Takes in what is stored; what has expired is left out and will be
    /// removed from the store.
    pub(super) fn load(&self, shared: &Shared) -> Result<(), Error> {
        let (services, endpoints) = (self.services.all()?, self.endpoints.all()?);
        let mut guard = shared.lock();
        let state = &mut *guard;
        for (_, service) in services {
            let name = service.name.clone();
            if let Err(error) = state.registry.register_service(service) {
                let error: &dyn std::error::Error = &error;
                warn!(error, service = %name, "left out a stored service");
            }
        }
        let (found, now) = (endpoints.len(), now());
        let mut live = 0;
        for (_, endpoint) in endpoints {
            let name = endpoint.name.clone();
            match state.registry.restore_endpoint(endpoint, now) {
                Some(_) => live += 1,
                None => _ = state.unwritten.endpoints.insert(name),
            }
        }
        info!(live, expired = found - live, "took in the stored endpoints");
        Ok(())
    }

    /// Runs until the server stops, and then writes what is left.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut stopping = false;
        loop {
            let failed = !self.write(&shared).await;
            if stopping {
                return;
            }
            tokio::select! {
                () = shared.stopped.cancelled() => stopping = true,
                () = sleep(PAUSE), if failed => {}
                () = shared.dirty.notified(), if !failed => {}
            }
        }
    }

    /// Writes once; false if that failed.
    async fn write(&self, shared: &Shared) -> bool {
        let (batch, unwritten) = {
            let mut state = shared.lock();
            let unwritten = take(&mut state.unwritten);
            (self.batch(&state, &unwritten), unwritten)
        };
        let written = match batch {
            Ok(batch) if batch.is_empty() => Ok(()),
            Ok(batch) => self.store.commit(batch).await,
            Err(error) => Err(error),
        };
        let change = unwritten.change;
        let failed = written.err().map(Arc::new);
        if let Some(error) = &failed {
            let error: &dyn std::error::Error = error;
            warn!(error, "could not store registrations; trying again");
            let mut state = shared.lock();
            state.unwritten.endpoints.extend(unwritten.endpoints);
            state.unwritten.services.extend(unwritten.services);
        }
        let is_ok = failed.is_none();
        shared.written(Written { change, failed });
        is_ok
    }

    fn batch(&self, state: &State, unwritten: &Unwritten) -> Result<Batch, Error> {
        let mut batch = Batch::new();
        for name in &unwritten.endpoints {
            batch = match state.registry.endpoint(name) {
                Some(endpoint) => batch.put(&self.endpoints, name.as_str(), endpoint)?,
                None => batch.remove(&self.endpoints, name.as_str()),
            };
        }
        for name in &unwritten.services {
            batch = match state.registry.service(name) {
                Some(service) => batch.put(&self.services, name.as_str(), service)?,
                None => batch.remove(&self.services, name.as_str()),
            };
        }
        Ok(batch)
    }
}

fn take(unwritten: &mut Unwritten) -> Unwritten {
    Unwritten {
        change: unwritten.change,
        endpoints: std::mem::take(&mut unwritten.endpoints),
        services: std::mem::take(&mut unwritten.services),
    }
}
