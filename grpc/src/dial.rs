use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tonic::transport::{self, Endpoint, Uri};
use tower::service_fn;

use crate::socket::{KeepAlive, Socket};
use crate::{Attachments, Channel, Security, Url};

/// Why a channel cannot be made. That nobody answers is not among them: it is
/// said by each call, as the channel connects when it is used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host is no name that HTTP/2 can carry.
    #[error("cannot dial {0}: its host makes no HTTP/2 authority")]
    Authority(Url, #[source] transport::Error),
    /// TCP without encryption, which was not asked for.
    #[error(
        "cannot dial {0}: it would be plaintext, which must be asked for (NSM_INSECURE), and there is no SPIFFE_ENDPOINT_SOCKET"
    )]
    Plaintext(Url),
    /// An `inode://` URL, which only means something to who received the file.
    #[error("cannot dial {0}: only unix and tcp URLs can be dialled")]
    Unsupported(Url),
}

/// How to dial.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Time for one attempt to connect, default 5 s.
    pub connect_timeout: Duration,
    /// HTTP/2 PINGs, also while no call is under way, by which a peer that
    /// hangs is noticed; default none. NSM's Go components do not allow them:
    /// grpc-go takes more than two within five minutes for an attack and ends
    /// the connection (`ENHANCE_YOUR_CALM`). Our own servers do allow them.
    pub http2_keep_alive: Option<KeepAlive>,
    /// TCP keep-alive, by which a host that vanished is noticed. On a unix
    /// socket the system tells at once.
    pub tcp_keep_alive: KeepAlive,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            http2_keep_alive: None,
            tcp_keep_alive: KeepAlive::default(),
        }
    }
}

/// A channel to `url`, with default [`DialOptions`] but for `connect_timeout`.
///
/// It connects at its first call, and again at the first call after a
/// connection ended; it is cheap to clone, and clones share the connection.
///
/// # Errors
///
/// See [`DialError`].
pub async fn dial(
    url: &Url,
    security: &Security,
    connect_timeout: Duration,
) -> Result<Channel, DialError> {
    let options = DialOptions {
        connect_timeout,
        ..DialOptions::default()
    };
    dial_with(url, security, &options)
}

/// A channel to `url`, see [`dial`].
///
/// # Errors
///
/// See [`DialError`].
pub fn dial_with(
    url: &Url,
    security: &Security,
    options: &DialOptions,
) -> Result<Channel, DialError> {
    Ok(dial_passing(url, security, options)?.channel)
}

/// A channel, and what goes along with its calls.
#[derive(Clone, Debug)]
pub struct Dialled {
    /// The channel.
    pub channel: Channel,
    /// The file descriptors of its calls, which only a unix socket carries.
    pub attachments: Option<Attachments>,
}

impl<C: Into<Channel>> From<C> for Dialled {
    /// A channel whose calls take no descriptors along.
    fn from(channel: C) -> Self {
        Self {
            channel: channel.into(),
            attachments: None,
        }
    }
}

/// A channel to `url`, see [`dial`], whose calls can take file descriptors along.
///
/// # Errors
///
/// See [`DialError`].
pub fn dial_passing(
    url: &Url,
    security: &Security,
    options: &DialOptions,
) -> Result<Dialled, DialError> {
    if !security.allows(url) {
        return Err(DialError::Plaintext(url.clone()));
    }
    let endpoint = endpoint(url, options)?;
    let attachments = Attachments::default();
    let carries_files = matches!(url, Url::Unix(_));
    if let Some(mtls) = security.mutual() {
        let (url, options) = (url.clone(), options.clone());
        let of_calls = attachments.clone();
        return Ok(Dialled {
            channel: Channel::secured(url, secured(endpoint), options, of_calls, mtls),
            attachments: carries_files.then_some(attachments),
        });
    }
    let (on, target) = (attachments.clone(), Arc::new(url.clone()));
    let options = Arc::new(options.clone());
    let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (url, options, on) = (Arc::clone(&target), Arc::clone(&options), on.clone());
        async move { connect(&url, &options, &on).await.map(TokioIo::new) }
    }));
    Ok(Dialled {
        channel: channel.into(),
        attachments: carries_files.then_some(attachments),
    })
}

/// Says `https` in its calls; how it connects is ours.
fn secured(endpoint: Endpoint) -> Endpoint {
    let mut origin = endpoint.uri().clone().into_parts();
    origin.scheme = Some(http::uri::Scheme::HTTPS);
    match Uri::from_parts(origin) {
        Ok(origin) => endpoint.origin(origin),
        Err(_) => endpoint,
    }
}

fn endpoint(url: &Url, options: &DialOptions) -> Result<Endpoint, DialError> {
    let origin = match url {
        Url::Inode(..) => return Err(DialError::Unsupported(url.clone())),
        Url::Tcp { host, port } if host.is_empty() => format!("http://localhost:{port}"),
        Url::Tcp { .. } => format!("http{}", &url.to_string()["tcp".len()..]),
        // What grpc-go sends for unix sockets.
        Url::Unix(_) => "http://localhost".to_owned(),
    };
    let endpoint =
        Endpoint::from_shared(origin).map_err(|e| DialError::Authority(url.clone(), e))?;
    Ok(match &options.http2_keep_alive {
        Some(KeepAlive { interval, timeout }) => endpoint
            .http2_keep_alive_interval(*interval)
            .keep_alive_timeout(*timeout)
            .keep_alive_while_idle(true),
        None => endpoint,
    })
}

/// One attempt to connect failed; the call that wanted it says so.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {url}")]
pub(crate) struct ConnectError {
    url: Url,
    source: io::Error,
}

pub(crate) async fn connect(
    url: &Url,
    options: &DialOptions,
    attachments: &Attachments,
) -> Result<Socket, ConnectError> {
    let failed = |source| ConnectError {
        url: url.clone(),
        source,
    };
    let connected = timeout(options.connect_timeout, connect_to(url, options)).await;
    let connected =
        connected.unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late)));
    let socket = connected.map_err(failed)?;
    // Before the first byte, and also below a security layer.
    if let Some(descriptors) = socket.descriptors() {
        attachments.connected(descriptors).map_err(failed)?;
    }
    Ok(socket)
}

async fn connect_to(url: &Url, options: &DialOptions) -> io::Result<Socket> {
    match url {
        Url::Inode(..) => Err(io::ErrorKind::Unsupported.into()),
        Url::Tcp { host, port } => {
            let host = if host.is_empty() { "localhost" } else { host };
            let stream = TcpStream::connect((host, *port)).await?;
            Ok(Socket::tcp(stream, &options.tcp_keep_alive))
        }
        Url::Unix(path) => Ok(Socket::unix(UnixStream::connect(path).await?)),
    }
}

/// Channels by URL, so that a thousand connections to one peer share one
/// HTTP/2 connection. At most [`Channels::MAX`] are kept.
#[derive(Clone, Debug)]
pub struct Channels {
    security: Security,
    options: DialOptions,
    by_url: Arc<Mutex<HashMap<Url, Dialled>>>,
}

impl Channels {
    /// Most channels that are kept: more peers than a large vL3 has. Beyond it
    /// an arbitrary one is forgotten, which its users do not notice.
    pub const MAX: usize = 1024;

    /// No channel yet; each will be dialled with these options.
    #[must_use]
    pub fn new(security: Security, options: DialOptions) -> Self {
        Self {
            security,
            options,
            by_url: Arc::default(),
        }
    }

    /// The channel to `url`.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub fn channel(&self, url: &Url) -> Result<Channel, DialError> {
        Ok(self.dialled(url)?.channel)
    }

    /// The channel to `url`, and what goes along with its calls.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub fn dialled(&self, url: &Url) -> Result<Dialled, DialError> {
        let mut channels = self.by_url.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(url) {
            return Ok(channel.clone());
        }
        let channel = dial_passing(url, &self.security, &self.options)?;
        if channels.len() >= Self::MAX
            && let Some(other) = channels.keys().next().cloned()
        {
            channels.remove(&other);
        }
        channels.insert(url.clone(), channel.clone());
        Ok(channel)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the channel to a peer that is gone; its calls go on.
    pub fn forget(&self, url: &Url) {
        self.by_url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(url);
    }
}
