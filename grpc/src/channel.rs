use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use carrick_chain::BoxError;
use carrick_spiffe::{PeerIdentity, Svid, X509Context};
use futures::future::{BoxFuture, Either, FutureExt, MapErr, TryFutureExt};
use hyper_util::rt::TokioIo;
use tokio::sync::OnceCell;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::{self, Endpoint, Uri};
use tonic::{ConnectError, Status};
use tower::{Service, ServiceExt, service_fn};

use crate::dial::connect;
use crate::security::Mtls;
use crate::tls::{self, Side, Tls};
use crate::token::has_token;
use crate::{Attachments, DialOptions, Url, token_to_metadata};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// A channel to one URL, over which any generated client can call. Cheap to
/// clone, and clones share the connection.
///
/// With mutual TLS the connection shows the identity that was current when it
/// was made. Once that changed, the next call goes over a new connection, while
/// calls and streams of before end on theirs. A call that brings a path token
/// gets one that fits its connection in its place: of the identity shown there,
/// for who is at the other end. An answer has the server's [`PeerIdentity`] in
/// its extensions.
#[derive(Clone, Debug)]
pub struct Channel(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Plain(transport::Channel),
    Secured(Arc<Secured>),
}

impl From<transport::Channel> for Channel {
    /// A channel that is whatever it is, and carries no identity.
    fn from(channel: transport::Channel) -> Self {
        Self(Kind::Plain(channel))
    }
}

impl Channel {
    pub(crate) fn secured(
        url: Url,
        endpoint: Endpoint,
        options: DialOptions,
        attachments: Attachments,
        mtls: Arc<Mtls>,
    ) -> Self {
        Self(Kind::Secured(Arc::new(Secured {
            target: Arc::new(Target {
                url,
                endpoint,
                options,
                attachments,
                mtls,
            }),
            link: Mutex::new(None),
        })))
    }
}

type BoxingError = fn(transport::Error) -> BoxError;

impl Service<Request> for Channel {
    type Response = Response;
    type Error = BoxError;
    type Future = Either<
        MapErr<transport::channel::ResponseFuture, BoxingError>,
        BoxFuture<'static, Result<Response, BoxError>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Kind::Plain(channel) => channel.poll_ready(cx).map_err(BoxError::from),
            Kind::Secured(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match &mut self.0 {
            Kind::Plain(channel) => {
                let boxing: BoxingError = BoxError::from;
                Either::Left(channel.call(request).map_err(boxing))
            }
            Kind::Secured(secured) => {
                let secured = Arc::clone(secured);
                Either::Right(async move { secured.call(request).await }.boxed())
            }
        }
    }
}

struct Target {
    url: Url,
    endpoint: Endpoint,
    options: DialOptions,
    attachments: Attachments,
    mtls: Arc<Mtls>,
}

struct Secured {
    target: Arc<Target>,
    /// What new calls go over.
    link: Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured")
            .field("url", &self.target.url)
            .finish_non_exhaustive()
    }
}

/// The connections that show one identity, one after the other.
struct Link {
    context: Arc<X509Context>,
    channel: OnceCell<transport::Channel>,
    /// Who answered the last connection.
    peer: Arc<Mutex<Option<PeerIdentity>>>,
}

impl Link {
    fn peer(&self) -> Option<PeerIdentity> {
        self.peer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn same(a: &Svid, b: &Svid) -> bool {
    a.certificate() == b.certificate()
}

impl Secured {
    async fn call(&self, mut request: Request) -> Result<Response, BoxError> {
        let link = self.link()?;
        // One connects, the others wait for it; if it fails the next tries.
        let channel = link.channel.get_or_try_init(|| self.target.connect(&link));
        let mut channel = channel.await?.clone();
        self.target.stamp(&mut request, &link)?;
        let mut response = channel.ready().await?.call(request).await?;
        if let Some(peer) = link.peer() {
            response.extensions_mut().insert(peer);
        }
        Ok(response)
    }

    /// The link that shows the identity of now.
    fn link(&self) -> Result<Arc<Link>, ConnectError> {
        let context = self.target.mtls.source.current();
        let context = context.map_err(|none| ConnectError(Box::new(none)))?;
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = &*link
            && same(link.context.svid(), context.svid())
        {
            return Ok(Arc::clone(link));
        }
        let new = Arc::new(Link {
            context,
            channel: OnceCell::new(),
            peer: Arc::default(),
        });
        *link = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl Target {
    async fn connect(self: &Arc<Self>, link: &Link) -> Result<transport::Channel, BoxError> {
        let (target, of_link) = (Arc::clone(self), Arc::clone(&link.context));
        let peer = Arc::clone(&link.peer);
        let connector = service_fn(move |_: Uri| {
            let (target, of_link, peer) =
                (Arc::clone(&target), Arc::clone(&of_link), Arc::clone(&peer));
            async move {
                let socket = connect(&target.url, &target.options, &target.attachments).await?;
                // Bundles may have changed since; the identity must not have.
                let now = target.mtls.source.current().ok();
                let now = now.filter(|now| same(now.svid(), of_link.svid()));
                let context = now.unwrap_or(of_link);
                let timeout = target.options.connect_timeout;
                let shaken = tls::connect(socket, &context, &target.url, timeout).await;
                let stream = shaken.inspect_err(|_| {
                    target.mtls.refused.get_or_create(&Side::CLIENT).inc();
                })?;
                let shown = stream.tls().map(Tls::peer).cloned();
                *peer.lock().unwrap_or_else(PoisonError::into_inner) = shown;
                Ok::<_, BoxError>(TokioIo::new(stream))
            }
        });
        Ok(self.endpoint.connect_with_connector(connector).await?)
    }

    /// Puts a token that fits the connection in the place of the one there.
    fn stamp(&self, request: &mut Request, link: &Link) -> Result<(), Status> {
        let mut metadata = MetadataMap::from_headers(std::mem::take(request.headers_mut()));
        let stamped = if has_token(&metadata) {
            let token = self
                .mtls
                .tokens
                .sign(link.context.svid(), link.peer().as_ref());
            token
                .map_err(|e| Status::unauthenticated(crate::status::chain_of(&e)))
                .and_then(|token| {
                    token_to_metadata(&token, &mut metadata)
                        .map_err(|e| Status::internal(e.to_string()))
                })
        } else {
            Ok(())
        };
        *request.headers_mut() = metadata.into_headers();
        stamped
    }
}
