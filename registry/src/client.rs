use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use carrick_chain::Tokens;
use carrick_grpc::{Attachments, Dialled};
use carrick_policy::Policies;
use carrick_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use carrick_proto::registry::network_service_registry_client::NetworkServiceRegistryClient;
use carrick_proto::registry::{
    NetworkServiceEndpointQuery, NetworkServiceEndpointResponse, NetworkServiceResponse,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::socket::Lent;
use crate::watching::{EndpointWatch, watch};
use crate::{
    Backoff, Endpoint, EndpointQuery, Error, Registration, RegistrationOptions, Service,
    ServiceQuery, metadata, wire,
};

/// How a [`Client`] behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// Where the client's tokens come from; without, none is sent and the
    /// registry knows the client by its URL and key alone.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// Asked about what the registry answers to a registration, where its
    /// identity is proved, which is over TLS; NSM's own by default.
    pub policies: Policies,
    /// How long one call may take; 15 s by default (NSM `retry`).
    pub timeout: Duration,
    /// Waits between attempts of what goes on by itself: watches, registrations.
    pub backoff: Backoff,
    /// How often a watch compares what it knows with the whole list, which
    /// finds what a dead transport hides; 1 min by default.
    pub resync: Duration,
    /// How long an endpoint that is missing after a reconnect is held before
    /// it is reported as deleted. Zero by default. Longer is right where the
    /// registry forgets everything when it restarts: endpoints that live on
    /// come back within moments, and nobody should take them for dead.
    pub grace: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            tokens: None,
            policies: Policies::registry_client(),
            timeout: Duration::from_secs(15),
            backoff: Backoff::default(),
            resync: Duration::from_secs(60),
            grace: Duration::ZERO,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("tokens", &self.tokens.is_some())
            .field("policies", &self.policies)
            .field("timeout", &self.timeout)
            .field("backoff", &self.backoff)
            .field("resync", &self.resync)
            .field("grace", &self.grace)
            .finish()
    }
}

/// Speaks to a registry: ours, an NSM manager's or NSM's own. Cheap to clone.
///
/// Calls are tried once and end at the [timeout](ClientOptions::timeout);
/// what shall go on over failures is a [watch](Self::watch_endpoints) or a
/// [registration](Self::keep_registered).
#[derive(Clone, Debug)]
pub struct Client {
    services: NetworkServiceRegistryClient<Channel>,
    endpoints: NetworkServiceEndpointRegistryClient<Channel>,
    attachments: Option<Attachments>,
    options: Arc<ClientOptions>,
}

// === impl Client: endpoints ===

impl Client {
    /// A client over a channel, which may connect later. With attachments, an
    /// endpoint's unix socket goes along with its registration, so that the
    /// registry reaches it where it does not see its path (NSM `sendfd`).
    #[must_use]
    pub fn new(channel: impl Into<Dialled>, options: ClientOptions) -> Self {
        let Dialled {
            channel,
            attachments,
        } = channel.into();
        Self {
            services: NetworkServiceRegistryClient::new(channel.clone()),
            endpoints: NetworkServiceEndpointRegistryClient::new(channel),
            attachments,
            options: Arc::new(options),
        }
    }

    /// Adds or refreshes an endpoint; the answer says until when.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if another endpoint has the name, and what any call may bring.
    pub async fn register_endpoint(&self, endpoint: &Endpoint) -> Result<Endpoint, Error> {
        let mut message = wire::to_endpoint(endpoint);
        let lent = Lent::attach(self.attachments.as_ref(), &mut message);
        let request = self.request(message)?;
        let mut client = self.endpoints.clone();
        let call = client.register(request);
        let answer = self.call("Register of an endpoint", call).await;
        let mut answer = answer.map_err(|error| conflict(error, endpoint))?;
        if let Err(refused) = self.judge("Register of an endpoint", &answer) {
            // What was registered before is not touched by a refresh that fails.
            if endpoint.registered_at.is_none() {
                let _ = self.unregister_endpoint(endpoint).await;
            }
            return Err(refused);
        }
        if let Some(lent) = lent {
            lent.restore(answer.get_mut());
        }
        Ok(wire::endpoint(answer.into_inner())?)
    }

    /// Removes an endpoint; that it is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if another endpoint has the name, and what any call may bring.
    pub async fn unregister_endpoint(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut message = wire::to_endpoint(endpoint);
        let _lent = Lent::attach(self.attachments.as_ref(), &mut message);
        let request = self.request(message)?;
        let mut client = self.endpoints.clone();
        let call = client.unregister(request);
        let answer = self.call("Unregister of an endpoint", call).await;
        let answer = answer.map_err(|error| conflict(error, endpoint))?;
        self.judge("Unregister of an endpoint", &answer)
    }

    /// The endpoints there are now.
    ///
    /// # Errors
    ///
    /// What any call may bring.
    pub async fn find_endpoints(&self, query: &EndpointQuery) -> Result<Vec<Endpoint>, Error> {
        const CALL: &str = "Find of endpoints";
        let request = self.request(wire::to_endpoint_query(query, false))?;
        let mut client = self.endpoints.clone();
        let found = async {
            let answer = client.find(request).await?;
            all(answer.into_inner()).await.map(Response::new)
        };
        let found: Vec<NetworkServiceEndpointResponse> = self.call(CALL, found).await?.into_inner();
        let there = found.into_iter().filter(|found| !found.deleted);
        let found = there.map(|found| wire::endpoint_found(found.network_service_endpoint));
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Follows the endpoints that `query` asks for, over failures and restarts
    /// of the registry, until the stream is dropped. Needs a tokio runtime.
    #[must_use]
    pub fn watch_endpoints(&self, query: EndpointQuery) -> EndpointWatch {
        watch(self.clone(), query)
    }

    /// Registers an endpoint, after the services that have to be there for
    /// it, and keeps it registered. Needs a tokio runtime.
    #[must_use]
    pub fn keep_registered(
        &self,
        endpoint: Endpoint,
        services: Vec<Service>,
        options: RegistrationOptions,
    ) -> Registration {
        Registration::start(self.clone(), endpoint, services, options)
    }

    /// Opens a raw watch; answered as soon as the registry has something to
    /// say, which with some is not before the first endpoint comes.
    pub(crate) async fn open_endpoint_watch(
        &self,
        query: &EndpointQuery,
    ) -> Result<Streaming<NetworkServiceEndpointResponse>, Error> {
        let query: NetworkServiceEndpointQuery = wire::to_endpoint_query(query, true);
        let request = self.request(query)?;
        let answer = self.endpoints.clone().find(request).await;
        let answer = answer.map_err(|status| Error::answered("a watch of endpoints", status))?;
        Ok(answer.into_inner())
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }
}

// === impl Client: services ===

impl Client {
    /// Adds or replaces a service; the answer is what the registry made of it.
    ///
    /// # Errors
    ///
    /// What any call may bring.
    pub async fn register_service(&self, service: &Service) -> Result<Service, Error> {
        let request = self.request(wire::to_service(service))?;
        let mut client = self.services.clone();
        let answer = self
            .call("Register of a service", client.register(request))
            .await?;
        self.judge("Register of a service", &answer)?;
        Ok(wire::service(answer.into_inner())?)
    }

    /// Removes a service; that it is not there is no error.
    ///
    /// # Errors
    ///
    /// What any call may bring.
    pub async fn unregister_service(&self, service: &Service) -> Result<(), Error> {
        let request = self.request(wire::to_service(service))?;
        let mut client = self.services.clone();
        let answer = self
            .call("Unregister of a service", client.unregister(request))
            .await?;
        self.judge("Unregister of a service", &answer)
    }

    /// The services there are now.
    ///
    /// # Errors
    ///
    /// What any call may bring.
    pub async fn find_services(&self, query: &ServiceQuery) -> Result<Vec<Service>, Error> {
        const CALL: &str = "Find of services";
        let request = self.request(wire::to_service_query(query, false))?;
        let mut client = self.services.clone();
        let found = async {
            let answer = client.find(request).await?;
            all(answer.into_inner()).await.map(Response::new)
        };
        let found: Vec<NetworkServiceResponse> = self.call(CALL, found).await?.into_inner();
        let there = found.into_iter().filter(|found| !found.deleted);
        let found = there.map(|found| wire::service_found(found.network_service));
        Ok(found.collect::<Result<_, _>>()?)
    }
}

// === impl Client: calls ===

impl Client {
    fn request<M>(&self, message: M) -> Result<Request<M>, Error> {
        let mut request = Request::new(message);
        let token = self
            .options
            .tokens
            .as_ref()
            .map(|tokens| tokens.token(None));
        let token = token.transpose().map_err(Error::Token)?;
        metadata::put(request.metadata_mut(), token.as_ref()).map_err(Error::Token)?;
        Ok(request)
    }

    /// Waits for an answer. The limit is ours alone and is not sent along, as
    /// NSM's registries take the time left off the expiry that they grant.
    async fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Error> {
        let after = self.options.timeout;
        let answer = timeout(after, answer).await;
        let answer = answer.map_err(|_| Error::DeadlineExceeded { call, after })?;
        answer.map_err(|status| Error::answered(call, status))
    }

    /// Judges the path that a registry answers.
    fn judge<T>(&self, call: &'static str, answer: &Response<T>) -> Result<(), Error> {
        let policies = &self.options.policies;
        let judged = metadata::judge(policies, answer.metadata(), answer.extensions());
        judged.map_err(|source| Error::Distrusted { call, source })
    }
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(item) = stream.message().await? {
        all.push(item);
    }
    Ok(all)
}

/// The status of a name that another has, as what it is.
fn conflict(error: Error, endpoint: &Endpoint) -> Error {
    match error {
        Error::Unavailable { source, .. } if source.code() == Code::AlreadyExists => {
            Error::Conflict {
                name: endpoint.name.clone(),
                source,
            }
        }
        error => error,
    }
}
