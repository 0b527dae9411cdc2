use std::sync::atomic::Ordering;

use carrick_grpc::{ConnectInfo, trace};
use carrick_proto::ipam::ipam_server::Ipam;
use carrick_proto::ipam::{PrefixRequest, PrefixResponse, Type};
use carrick_types::{Invalid, Prefix};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, debug_span, info_span};

use super::grants::StreamId;
use super::{GrantAsk, GrantError, LEASE_HEADER, OWNER_HEADER, Refused, Server};

/// Longest name of an owner, in bytes: a SPIFFE id's limit.
const OWNER_MAX: usize = 2048;

/// Answers that may wait for a slow reader; then its requests wait too.
const ANSWERS: usize = 4;

type Answers = mpsc::Sender<Result<PrefixResponse, Status>>;

#[tonic::async_trait]
impl Ipam for Server {
    type ManagePrefixesStream = ReceiverStream<Result<PrefixResponse, Status>>;

    async fn manage_prefixes(
        &self,
        request: Request<Streaming<PrefixRequest>>,
    ) -> Result<Response<Self::ManagePrefixesStream>, Status> {
        let owner = owner(&request)?;
        let id = self.inner.streams.fetch_add(1, Ordering::Relaxed);
        let (answers, stream) = mpsc::channel(ANSWERS);
        let span = info_span!("manage_prefixes", otel.kind = "server", owner, stream = id);
        trace::adopt(&span, request.metadata());
        let session = Session {
            server: self.clone(),
            owner: owner.clone(),
            id,
            answers,
        };
        tokio::spawn(session.run(request.into_inner()).instrument(span));
        let mut response = Response::new(ReceiverStream::new(stream));
        if owner.is_some() {
            let lease = u64::try_from(self.inner.options.lease.as_millis()).unwrap_or(u64::MAX);
            response
                .metadata_mut()
                .insert(LEASE_HEADER, MetadataValue::from(lease));
        }
        Ok(response)
    }
}

fn owner(request: &Request<Streaming<PrefixRequest>>) -> Result<Option<String>, Status> {
    // What the certificate says counts more than what the peer says itself.
    let info = request.extensions().get::<ConnectInfo>();
    if let Some(identity) = info.and_then(ConnectInfo::identity) {
        return Ok(Some(identity.id().to_string()));
    }
    named(request.metadata())
}

fn named(metadata: &MetadataMap) -> Result<Option<String>, Status> {
    let Some(value) = metadata.get(OWNER_HEADER) else {
        return Ok(None);
    };
    let name = value.to_str().unwrap_or_default();
    if name.is_empty() || name.len() > OWNER_MAX {
        let invalid = Invalid::new(OWNER_HEADER, name, "1 to 2048 printable ASCII characters");
        return Err(Status::invalid_argument(invalid.to_string()));
    }
    Ok(Some(name.to_owned()))
}

/// One stream of one endpoint. It ends on its own terms, not with the request
/// handler, so that its prefixes are given back whatever happens.
struct Session {
    server: Server,
    owner: Option<String>,
    id: StreamId,
    answers: Answers,
}

impl Session {
    async fn run(self, mut requests: Streaming<PrefixRequest>) {
        let metrics = &self.server.inner.options.metrics;
        metrics.streams.inc();
        let shutdown = self.server.inner.options.shutdown.clone();
        if let Some(()) = shutdown
            .run_until_cancelled(self.serve(&mut requests))
            .await
        {
            let change = self.server.grants().detach(self.id, self.server.now());
            self.server.commit(change).await;
        } else {
            // The prefixes stay as they are on disk, for the next run.
            let _ = self.answers.try_send(Err(Status::unavailable(
                "the prefix server is shutting down",
            )));
        }
        metrics.streams.dec();
    }

    async fn serve(&self, requests: &mut Streaming<PrefixRequest>) {
        loop {
            let request = tokio::select! {
                () = self.answers.closed() => return,
                request = requests.message() => request,
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(status) => return debug!(%status, "the stream broke"),
            };
            let span = debug_span!("prefix request", prefix = request.prefix);
            match self.answer(request).instrument(span).await {
                Ok(None) => {}
                Ok(Some(response)) => {
                    if self.answers.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                Err(status) => {
                    debug!(%status, "the request is refused");
                    let _ = self.answers.send(Err(status)).await;
                    return;
                }
            }
        }
    }

    async fn answer(&self, request: PrefixRequest) -> Result<Option<PrefixResponse>, Status> {
        match request.r#type() {
            Type::Allocate => self.allocate(request).await.map(Some),
            Type::Delete => {
                let prefix = parse("prefix", &request.prefix)?;
                let owner = self.owner.as_deref();
                let change = self.server.grants().delete(prefix, owner, Some(self.id));
                self.server.commit(change).await;
                Ok(None)
            }
            Type::Undefined => {
                let invalid = Invalid::new("type", request.r#type, "1 (ALLOCATE) or 2 (DELETE)");
                Err(Status::invalid_argument(invalid.to_string()))
            }
        }
    }

    async fn allocate(&self, request: PrefixRequest) -> Result<PrefixResponse, Status> {
        let asked = match request.prefix.as_str() {
            "" => None,
            asked => Some(parse("prefix", asked)?),
        };
        let excluded = request
            .exclude_prefixes
            .iter()
            .map(|prefix| parse("exclude_prefixes", prefix));
        let ask = GrantAsk {
            stream: Some(self.id),
            owner: self.owner.as_deref(),
            asked,
            excluded: &excluded.collect::<Result<Vec<_>, _>>()?,
            ..GrantAsk::default()
        };
        let granted = self
            .server
            .grant(&ask)
            .await
            .map_err(|refused| status(&refused))?;
        Ok(PrefixResponse {
            prefix: granted.prefix.to_string(),
            exclude_prefixes: request.exclude_prefixes,
        })
    }
}

pub(super) fn parse(field: &str, text: &str) -> Result<Prefix, Status> {
    text.parse::<Prefix>().map_err(|mut invalid| {
        field.clone_into(&mut invalid.field);
        Status::invalid_argument(invalid.to_string())
    })
}

pub(super) fn status(refused: &Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::Grant(GrantError::Busy(_)) => Status::unavailable(text),
        Refused::Grant(GrantError::Exhausted { .. } | GrantError::TooMany(_)) => {
            Status::resource_exhausted(text)
        }
        Refused::Grant(GrantError::NotOwner(_)) => Status::not_found(text),
        Refused::Store(_) => Status::internal(text),
    }
}
