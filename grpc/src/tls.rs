//! Mutual TLS on top of a [`Socket`], and what is known by it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use carrick_spiffe::{CertificateError, NoSvid, PeerIdentity, Svid, VerifyError, X509Context};
use carrick_types::Token;
use futures::stream::{self, BoxStream, StreamExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CommonState, HandshakeKind};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::security::Mtls;
use crate::token::{SignError, SvidTokens};
use crate::{ConnectInfo, Descriptors, Peer, Socket, Url};

/// Time that a client has for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes that came to nothing, by our side of them.
pub(crate) type Refused = Family<Side, Counter>;

/// Which end of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Side {
    side: &'static str,
}

impl Side {
    pub(crate) const CLIENT: Self = Self { side: "client" };
    pub(crate) const SERVER: Self = Self { side: "server" };
}

/// Between two lines about clients that were turned away.
const QUIET: Duration = Duration::from_secs(10);

/// Who the two ends of a connection proved to be. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    peer: PeerIdentity,
    svid: Arc<Svid>,
    tokens: Option<Arc<SvidTokens>>,
}

impl Tls {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// The identity that we showed.
    #[must_use]
    pub fn svid(&self) -> &Arc<Svid> {
        &self.0.svid
    }

    /// A server's token for its client: signed with the key of the certificate
    /// that the client saw, which is not the newest one for ever.
    ///
    /// # Errors
    ///
    /// That certificate has ended.
    pub fn token(&self) -> Result<Option<Token>, SignError> {
        let tokens = self.0.tokens.as_ref();
        let token = tokens.map(|tokens| tokens.sign(&self.0.svid, Some(&self.0.peer)));
        token.transpose()
    }
}

/// A [`Socket`], with TLS on it or without.
#[derive(Debug)]
pub struct Stream(Kind);

enum Kind {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>, Tls),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(socket) => socket.fmt(f),
            Self::Tls(stream, tls) => f
                .debug_tuple("Tls")
                .field(stream.get_ref().0)
                .field(tls)
                .finish(),
        }
    }
}

impl Stream {
    pub(crate) fn plain(socket: Socket) -> Self {
        Self(Kind::Plain(socket))
    }

    /// What lies below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match &self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(stream, _) => stream.get_ref().0,
        }
    }

    /// Who is at the other end, as the system says.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.socket().peer()
    }

    /// The file descriptors that travel over it, which only a unix socket has.
    #[must_use]
    pub fn descriptors(&self) -> Option<&Descriptors> {
        self.socket().descriptors()
    }

    /// Who the ends are, where there is TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::Tls(_, tls) => Some(tls),
        }
    }
}

impl Connected for Stream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo {
            tls: self.tls().cloned(),
            ..self.socket().connect_info()
        }
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the other end's certificate cannot be read")]
    Certificate(#[from] CertificateError),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the handshake was not finished in time")]
    Late,
    #[error(transparent)]
    NoSvid(#[from] NoSvid),
    #[error("the session cannot be gone on with")]
    Resumed(#[from] VerifyError),
}

/// A client's handshake.
pub(crate) async fn connect(
    socket: Socket,
    context: &X509Context,
    url: &Url,
    patience: Duration,
) -> io::Result<Stream> {
    let connector = TlsConnector::from(Arc::clone(context.client()));
    let shaken = timeout(patience, connector.connect(session_name(url), socket)).await;
    let shaken = shaken
        .map_err(|_| HandshakeError::Late)
        .and_then(|done| done.map_err(HandshakeError::Handshake));
    let finish = |stream: tokio_rustls::client::TlsStream<Socket>| {
        let verify = |chain: &[_]| context.verifier().server(chain, UnixTime::now());
        let peer = peer(stream.get_ref().1, verify)?;
        Ok(secured(stream.into(), peer, context, None))
    };
    shaken.and_then(finish).map_err(io::Error::other)
}

/// A server's handshake.
async fn accept(socket: Socket, mtls: &Mtls) -> Result<Stream, HandshakeError> {
    let context = mtls.source.current()?;
    let acceptor = TlsAcceptor::from(Arc::clone(context.server()));
    let shaken = timeout(HANDSHAKE, acceptor.accept(socket)).await;
    let stream = shaken
        .map_err(|_| HandshakeError::Late)?
        .map_err(HandshakeError::Handshake)?;
    let verify = |chain: &[_]| context.verifier().client(chain, UnixTime::now());
    let peer = peer(stream.get_ref().1, verify)?;
    let tokens = Some(Arc::clone(&mtls.tokens));
    Ok(secured(stream.into(), peer, &context, tokens))
}

fn secured(
    stream: TlsStream<Socket>,
    peer: PeerIdentity,
    context: &X509Context,
    tokens: Option<Arc<SvidTokens>>,
) -> Stream {
    let svid = Arc::clone(context.svid());
    let tls = Tls(Arc::new(Ends { peer, svid, tokens }));
    Stream(Kind::Tls(Box::new(stream), tls))
}

/// Who the other end is. In a session that is gone on with no certificate was
/// verified, so it is done now: it may have ended since.
fn peer(
    state: &CommonState,
    verify: impl Fn(&[CertificateDer<'static>]) -> Result<PeerIdentity, VerifyError>,
) -> Result<PeerIdentity, HandshakeError> {
    let chain = state.peer_certificates().unwrap_or_default();
    if state.handshake_kind() == Some(HandshakeKind::Resumed) {
        return Ok(verify(chain)?);
    }
    let leaf = chain.first().ok_or(VerifyError::None)?;
    Ok(PeerIdentity::of_certificate(leaf)?)
}

/// The name by which a client remembers its session with a server; it is not
/// sent and not compared.
fn session_name(url: &Url) -> ServerName<'static> {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    let name = format!("s{:016x}.invalid", hasher.finish());
    ServerName::try_from(name).expect("hexadecimal digits make a host name")
}

/// The connections whose handshakes are done, in the order in which they are.
pub(crate) fn accepted(
    incoming: BoxStream<'static, io::Result<Socket>>,
    mtls: Arc<Mtls>,
    handshakes_max: usize,
) -> BoxStream<'static, io::Result<Stream>> {
    let accepting = Accepting {
        incoming: incoming.fuse(),
        mtls,
        handshakes: JoinSet::new(),
        handshakes_max,
        oldest: VecDeque::new(),
        refusals: Refusals::default(),
    };
    stream::unfold(accepting, |mut accepting| async move {
        let next = accepting.next().await?;
        Some((next, accepting))
    })
    .boxed()
}

struct Accepting {
    incoming: stream::Fuse<BoxStream<'static, io::Result<Socket>>>,
    mtls: Arc<Mtls>,
    /// Each is a task of its own, so that they use all processors.
    handshakes: JoinSet<(Peer, Result<Stream, HandshakeError>)>,
    /// Beyond it the oldest gives way.
    handshakes_max: usize,
    oldest: VecDeque<AbortHandle>,
    refusals: Refusals,
}

impl Accepting {
    async fn next(&mut self) -> Option<io::Result<Stream>> {
        loop {
            tokio::select! {
                done = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    match done {
                        Some(Ok((_, Ok(stream)))) => return Some(Ok(stream)),
                        Some(Ok((peer, Err(error)))) => {
                            self.mtls.refused.get_or_create(&Side::SERVER).inc();
                            self.refusals.tell(peer, &error);
                        }
                        // It gave way.
                        Some(Err(_)) => {
                            self.mtls.refused.get_or_create(&Side::SERVER).inc();
                        }
                        None => {}
                    }
                }
                socket = self.incoming.next() => match socket {
                    Some(Ok(socket)) => self.begin(socket),
                    Some(Err(error)) => return Some(Err(error)),
                    None => return None,
                },
            }
        }
    }

    fn begin(&mut self, socket: Socket) {
        while self.oldest.front().is_some_and(AbortHandle::is_finished) {
            self.oldest.pop_front();
        }
        if self.oldest.len() >= self.handshakes_max {
            self.oldest.retain(|handshake| !handshake.is_finished());
        }
        if self.oldest.len() >= self.handshakes_max
            && let Some(oldest) = self.oldest.pop_front()
        {
            oldest.abort();
        }
        let mtls = Arc::clone(&self.mtls);
        let handshake = async move {
            let peer = socket.peer();
            (peer, accept(socket, &mtls).await)
        };
        self.oldest.push_back(self.handshakes.spawn(handshake));
    }
}

/// Tells of clients that were turned away, and not once for each of a flood.
#[derive(Default)]
struct Refusals {
    last: Option<Instant>,
    untold: u64,
}

impl Refusals {
    fn tell(&mut self, peer: Peer, error: &HandshakeError) {
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut self.untold);
        self.last = Some(Instant::now());
        let error = crate::status::chain_of(error);
        warn!(peer.addr = %peer, error, untold, "a connection was refused: no mutual TLS");
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Kind::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Kind::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Kind::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Kind::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.is_write_vectored(),
            Kind::Tls(stream, _) => stream.is_write_vectored(),
        }
    }
}
