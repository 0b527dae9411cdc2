mod authorization;
mod journal;
mod metrics;
mod services;
mod shared;
mod sockets;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carrick_chain::Tokens;
use carrick_policy::Policies;
use carrick_proto::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use carrick_proto::registry::network_service_registry_server::NetworkServiceRegistryServer;
use carrick_store::Store;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::service::Routes;

use self::journal::Journal;
use self::services::Services;
use self::shared::Shared;
use crate::wire::MESSAGE_MAX;
use crate::{Endpoint, EndpointQuery, Limits, Service, ServiceQuery};

/// What a [`Server`] is made with.
#[derive(Clone)]
pub struct ServerOptions {
    /// How much it takes and for how long.
    pub limits: Limits,
    /// Where services and endpoints outlive a restart; without, they do not.
    pub store: Option<Store>,
    /// Where the registry's own tokens come from, if it has an identity.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// Who may register what; asked only where the caller's identity is proved,
    /// which is over TLS. NSM's own by default.
    pub policies: Policies,
    /// Most watches of endpoints, and of services, that are open at a time;
    /// 10,000 by default.
    pub watches: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            store: None,
            tokens: None,
            policies: Policies::registry_server(),
            watches: 10_000,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("limits", &self.limits)
            .field("store", &self.store)
            .field("tokens", &self.tokens.is_some())
            .field("policies", &self.policies)
            .field("watches", &self.watches)
            .finish()
    }
}

/// A registry that serves NSM's two registry services.
///
/// Registrations are in the store, if there is one, before they are answered.
/// Dropped, it stops expiring and ends its watches; [`shutdown`](Self::shutdown)
/// also waits for what is being written.
pub struct Server {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

// === impl Server ===

impl Server {
    /// The services by their full names, as
    /// [`Health::new`](carrick_grpc::Health::new) wants them.
    pub const SERVICES: &'static [&'static str] = &[
        "registry.NetworkServiceRegistry",
        "registry.NetworkServiceEndpointRegistry",
    ];

    /// Loads what is stored and not expired, and starts. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn start(options: ServerOptions) -> Result<Self, carrick_store::Error> {
        let journal = options.store.as_ref().map(Journal::new);
        let shared = Arc::new(Shared::new(options));
        let mut tasks = Vec::new();
        if let Some(journal) = journal {
            journal.load(&shared)?;
            tasks.push(tokio::spawn(journal.run(shared.clone())));
        }
        tasks.push(tokio::spawn(shared::expire(shared.clone())));
        let tasks = Mutex::new(tasks);
        Ok(Self { shared, tasks })
    }

    /// Both services, to be served on any listener.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.beside(Routes::default())
    }

    /// Both services beside what else a listener serves, such as
    /// [`Health::routes`](carrick_grpc::Health::routes).
    #[must_use]
    pub fn beside(&self, others: Routes) -> Routes {
        let endpoints = NetworkServiceEndpointRegistryServer::new(Services(self.shared.clone()));
        let services = NetworkServiceRegistryServer::new(Services(self.shared.clone()));
        others
            .add_service(endpoints.max_decoding_message_size(MESSAGE_MAX))
            .add_service(services.max_decoding_message_size(MESSAGE_MAX))
    }

    /// The live endpoints that `query` asks for, by name.
    #[must_use]
    pub fn endpoints(&self, query: &EndpointQuery) -> Vec<Arc<Endpoint>> {
        self.shared
            .lock()
            .registry
            .find_endpoints(query, shared::now().instant)
    }

    /// The services that `query` asks for, by name.
    #[must_use]
    pub fn services(&self, query: &ServiceQuery) -> Vec<Arc<Service>> {
        self.shared.lock().registry.find_services(query)
    }

    /// Ends watches and tasks, after what waits to be written is written;
    /// false if that took longer than `grace`.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.shared.stopped.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        timeout(grace, futures::future::join_all(tasks))
            .await
            .is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}
