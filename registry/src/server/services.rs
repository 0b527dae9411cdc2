use std::sync::Arc;

use carrick_grpc::{ConnectInfo, Descriptors, caller_of};
use carrick_proto::registry as proto;
use carrick_proto::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistry;
use carrick_proto::registry::network_service_registry_server::NetworkServiceRegistry;
use carrick_types::Invalid;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt, iter, once};
use tonic::{Code, Request, Response, Status};

use super::authorization::judge;
use super::shared::{Failed, Shared, now};
use super::sockets::Socket;
use crate::metadata::Caller;
use crate::{Endpoint, Refused, Service, wire};

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Both services as seen from the wire.
#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl NetworkServiceEndpointRegistry for Services {
    async fn register(
        &self,
        request: Request<proto::NetworkServiceEndpoint>,
    ) -> Result<Response<proto::NetworkServiceEndpoint>, Status> {
        let caller = self.caller(&request)?;
        let descriptors = descriptors(&request);
        let (_, extensions, message) = request.into_parts();
        let mut endpoint = wire::endpoint(message).map_err(|error| invalid(&error))?;
        self.judge_endpoint(&caller, caller_of(&extensions), &endpoint)?;
        identify(&mut endpoint.path_ids, &caller);
        let known = self.0.lock().sockets.get(&endpoint.name);
        let socket = Socket::receive(&endpoint, known, descriptors.as_ref()).await;
        let socket = socket.map_err(|error| invalid(&error))?;
        let registering = self.0.register_endpoint(endpoint, caller.expires(), socket);
        let registered = registering.await?;
        Ok(answer(&caller, wire::to_endpoint(&registered)))
    }

    type FindStream = Answers<proto::NetworkServiceEndpointResponse>;

    async fn find(
        &self,
        request: Request<proto::NetworkServiceEndpointQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        let finder = Finder {
            shared: self.0.clone(),
            descriptors: descriptors(&request),
        };
        let wire = request.into_inner();
        let query =
            wire::endpoint_query(wire.network_service_endpoint).map_err(|error| invalid(&error))?;
        if wire.watch {
            let watch = self.0.watch_endpoints(query).map_err(Failed::from)?;
            return Ok(Response::new(self.until_stopped(
                watch.map(move |news| finder.news(&news.item, news.deleted)),
            )));
        }
        let found = self.0.lock().registry.find_endpoints(&query, now().instant);
        let found = found.into_iter().map(move |item| finder.news(&item, false));
        Ok(Response::new(iter(found.map(Ok)).boxed()))
    }

    async fn unregister(
        &self,
        request: Request<proto::NetworkServiceEndpoint>,
    ) -> Result<Response<()>, Status> {
        let caller = self.caller(&request)?;
        let (_, extensions, message) = request.into_parts();
        let mut endpoint = wire::endpoint(message).map_err(|error| invalid(&error))?;
        self.judge_endpoint(&caller, caller_of(&extensions), &endpoint)?;
        identify(&mut endpoint.path_ids, &caller);
        self.0.unregister_endpoint(&endpoint).await?;
        Ok(answer(&caller, ()))
    }
}

#[tonic::async_trait]
impl NetworkServiceRegistry for Services {
    async fn register(
        &self,
        request: Request<proto::NetworkService>,
    ) -> Result<Response<proto::NetworkService>, Status> {
        let caller = self.caller(&request)?;
        let (_, extensions, message) = request.into_parts();
        let mut service = wire::service(message).map_err(|error| invalid(&error))?;
        loop {
            let held = self.0.service(&service.name);
            self.judge_service(
                &caller,
                caller_of(&extensions),
                &mut service,
                held.as_deref(),
            )?;
            let registered = self.0.register_service(service.clone(), held.as_ref());
            if let Some(registered) = registered.await? {
                return Ok(answer(&caller, wire::to_service(&registered)));
            }
        }
    }

    type FindStream = Answers<proto::NetworkServiceResponse>;

    async fn find(
        &self,
        request: Request<proto::NetworkServiceQuery>,
    ) -> Result<Response<Self::FindStream>, Status> {
        let wire = request.into_inner();
        let query = wire::service_query(wire.network_service).map_err(|error| invalid(&error))?;
        if wire.watch {
            let watch = self.0.watch_services(query).map_err(Failed::from)?;
            return Ok(Response::new(self.until_stopped(
                watch.map(|news| service_news(&news.item, news.deleted)),
            )));
        }
        let found = self.0.lock().registry.find_services(&query);
        let found = found.into_iter().map(|item| service_news(&item, false));
        Ok(Response::new(iter(found.map(Ok)).boxed()))
    }

    async fn unregister(
        &self,
        request: Request<proto::NetworkService>,
    ) -> Result<Response<()>, Status> {
        let caller = self.caller(&request)?;
        let (_, extensions, message) = request.into_parts();
        let service = wire::service(message).map_err(|error| invalid(&error))?;
        let held = self.0.service(&service.name);
        let holder = held.as_ref().map(|held| held.path_ids.as_slice());
        let (name, holder) = (service.name.as_str(), holder.unwrap_or_default());
        judge(
            &self.0.policies,
            &caller,
            caller_of(&extensions),
            name,
            holder,
        )?;
        self.0.unregister_service(&service.name).await?;
        Ok(answer(&caller, ()))
    }
}

// === impl Services ===

impl Services {
    fn caller<M>(&self, request: &Request<M>) -> Result<Caller, Status> {
        let caller = Caller::of(request.metadata()).map_err(|error| invalid(&error))?;
        Ok(caller.arrive(self.0.token().as_ref()))
    }

    /// Judges who registers an endpoint or takes it out.
    fn judge_endpoint(
        &self,
        caller: &Caller,
        peer: Option<carrick_policy::Caller<'_>>,
        endpoint: &Endpoint,
    ) -> Result<(), Status> {
        let held = self.0.endpoint(&endpoint.name);
        let holder = held.as_ref().map(|held| held.path_ids.as_slice());
        let (name, holder) = (endpoint.name.as_str(), holder.unwrap_or_default());
        judge(&self.0.policies, caller, peer, name, holder)
    }

    /// Judges who registers a service, and puts down whose it is.
    ///
    /// Several endpoints register the service that they share: who says what is
    /// there already changes nothing, and does not come to own it.
    fn judge_service(
        &self,
        caller: &Caller,
        peer: Option<carrick_policy::Caller<'_>>,
        service: &mut Service,
        held: Option<&Service>,
    ) -> Result<(), Status> {
        let holder = held
            .map(|held| held.path_ids.as_slice())
            .unwrap_or_default();
        let is_there = held.is_some_and(|held| {
            !holder.is_empty() && held.payload == service.payload && held.matches == service.matches
        });
        let (policies, name) = (&self.0.policies, service.name.as_str());
        if peer.is_some() && is_there {
            judge(policies, caller, peer, name, &[])?;
            service.path_ids = holder.to_vec();
            return Ok(());
        }
        judge(policies, caller, peer, name, holder)?;
        identify(&mut service.path_ids, caller);
        Ok(())
    }

    /// A watch with the word that the server stops as its end, so that those
    /// who watch go and look for it again.
    fn until_stopped<T: Send + 'static>(
        &self,
        news: impl Stream<Item = T> + Send + 'static,
    ) -> Answers<T> {
        let stopped = self.0.stopped.clone().cancelled_owned();
        let end = once(async { Err(Failed::Stopped.into()) });
        news.map(Ok).take_until(stopped).chain(end).boxed()
    }
}

/// Puts down who registers, as far as the call tells.
fn identify(path_ids: &mut Vec<String>, caller: &Caller) {
    let told = caller.path_ids();
    if !told.is_empty() {
        *path_ids = told;
    }
}

fn answer<M>(caller: &Caller, message: M) -> Response<M> {
    let mut answer = Response::new(message);
    caller.answer(answer.metadata_mut());
    answer
}

/// Who is told of endpoints, and gets their sockets where it can.
struct Finder {
    shared: Arc<Shared>,
    descriptors: Option<Descriptors>,
}

impl Finder {
    fn news(&self, endpoint: &Endpoint, deleted: bool) -> proto::NetworkServiceEndpointResponse {
        if let Some(descriptors) = self.descriptors.as_ref().filter(|_| !deleted)
            && let Some(socket) = self.shared.lock().sockets.get(&endpoint.name)
        {
            socket.give(descriptors);
        }
        proto::NetworkServiceEndpointResponse {
            network_service_endpoint: Some(wire::to_endpoint(endpoint)),
            deleted,
        }
    }
}

/// The descriptors of the call's connection, if it is a unix socket.
fn descriptors<M>(request: &Request<M>) -> Option<Descriptors> {
    let info = request.extensions().get::<ConnectInfo>();
    info.and_then(|info| info.descriptors.clone())
}

fn service_news(service: &Service, deleted: bool) -> proto::NetworkServiceResponse {
    proto::NetworkServiceResponse {
        network_service: Some(wire::to_service(service)),
        deleted,
    }
}

fn invalid(error: &Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The one place where failures become statuses.
impl From<Failed> for Status {
    fn from(error: Failed) -> Self {
        let code = match &error {
            Failed::Refused(Refused::Conflict { .. }) => Code::AlreadyExists,
            Failed::Refused(Refused::Full { .. }) => Code::ResourceExhausted,
            Failed::Refused(Refused::Invalid(_)) => Code::InvalidArgument,
            Failed::Store(_) | Failed::Stopped => Code::Unavailable,
        };
        Status::new(code, error.to_string())
    }
}
