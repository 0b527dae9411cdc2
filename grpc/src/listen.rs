use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use nix::libc;
use tokio::fs;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};
use tokio::time::sleep;
use tracing::warn;

use crate::socket::{KeepAlive, Socket};
use crate::{Security, Stream as Accepted, Url, tls};

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The parent directory of the socket could not be made.
    #[error("cannot make the directory {0} for a socket")]
    Directory(PathBuf, #[source] io::Error),
    /// The system refused.
    #[error("cannot listen on {0}")]
    Listen(Url, #[source] io::Error),
    /// A server answers on the socket.
    #[error("another server answers on {0}: stop it first, or listen on another path")]
    Live(Url),
    /// Something that is no socket has the name.
    #[error("{0} exists and is no socket: remove it, or listen on another path")]
    NotASocket(PathBuf),
    /// TCP without encryption, which was not asked for.
    #[error(
        "cannot listen on {0}: it would be plaintext, which must be asked for (NSM_INSECURE), and there is no SPIFFE_ENDPOINT_SOCKET"
    )]
    Plaintext(Url),
    /// An `inode://` URL is nothing to listen on.
    #[error("cannot listen on {0}: only unix and tcp URLs can be listened on")]
    Unsupported(Url),
}

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that wait to be accepted, default 1024.
    pub backlog: u32,
    /// Group that the socket file is given to, by number; default is the
    /// process's own.
    pub group: Option<u32>,
    /// TLS handshakes at a time, at least 1, default 1024. Beyond it the oldest
    /// gives way, so that those who never finish theirs keep nobody out who does.
    pub handshakes_max: usize,
    /// TCP keep-alive of accepted connections.
    pub keep_alive: KeepAlive,
    /// Mode of the socket file, default 0600. Who may write may connect.
    pub mode: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            group: None,
            handshakes_max: 1024,
            keep_alive: KeepAlive::default(),
            mode: 0o600,
        }
    }
}

/// Accepts connections: a stream for [`crate::serve`], or for tonic's
/// `serve_with_incoming`.
///
/// An error of accept(2) is logged and tried again, so the stream neither ends
/// nor yields `Err`. The socket file outlives the stream until
/// [`SocketFile::remove`]: an endpoint unregisters before its socket goes away.
pub struct Listener {
    url: Url,
    file: Option<SocketFile>,
    incoming: BoxStream<'static, io::Result<Accepted>>,
}

/// Listens on `url` with the default [`ListenOptions`].
///
/// # Errors
///
/// See [`ListenError`].
pub async fn listen(url: &Url, security: &Security) -> Result<Listener, ListenError> {
    Listener::bind(url, security, &ListenOptions::default()).await
}

impl Listener {
    /// Listens on `url`. For a unix socket the missing parent directory is
    /// made, and a socket on which nobody answers is replaced.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub async fn bind(
        url: &Url,
        security: &Security,
        options: &ListenOptions,
    ) -> Result<Self, ListenError> {
        if !security.allows(url) {
            return Err(ListenError::Plaintext(url.clone()));
        }
        let bound = match url {
            Url::Inode(..) => return Err(ListenError::Unsupported(url.clone())),
            Url::Tcp { host, port } => Bound::tcp(url, host, *port, options).await?,
            Url::Unix(path) => Bound::unix(url, path, options).await?,
        };
        Ok(Self {
            url: bound.url,
            file: bound.file,
            incoming: match security.mutual() {
                Some(mtls) => tls::accepted(bound.incoming, mtls, options.handshakes_max),
                None => bound
                    .incoming
                    .map(|socket| socket.map(Accepted::plain))
                    .boxed(),
            },
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Calls `seen` for each connection that is accepted, e.g. to count them.
    #[must_use]
    pub fn on_accept(mut self, mut seen: impl FnMut(&Accepted) + Send + 'static) -> Self {
        let see = move |socket: &io::Result<Accepted>| socket.iter().for_each(&mut seen);
        self.incoming = self.incoming.inspect(see).boxed();
        self
    }

    /// The socket file, to be removed when the server has ended.
    #[must_use]
    pub fn socket_file(&self) -> Option<SocketFile> {
        self.file.clone()
    }
}

/// Connections as they come, without anything on top.
struct Bound {
    url: Url,
    file: Option<SocketFile>,
    incoming: BoxStream<'static, io::Result<Socket>>,
}

impl Bound {
    async fn tcp(
        url: &Url,
        host: &str,
        port: u16,
        options: &ListenOptions,
    ) -> Result<Self, ListenError> {
        let refused = |e| ListenError::Listen(url.clone(), e);
        let listener = bind_tcp(host, port).await.map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let keep_alive = options.keep_alive.clone();
        Ok(Self {
            url: Url::tcp(host, port),
            file: None,
            incoming: stream::unfold(listener, move |listener| {
                let keep_alive = keep_alive.clone();
                async move {
                    let (stream, _) = retry(|| listener.accept()).await;
                    Some((Ok(Socket::tcp(stream, &keep_alive)), listener))
                }
            })
            .boxed(),
        })
    }

    async fn unix(url: &Url, path: &Path, options: &ListenOptions) -> Result<Self, ListenError> {
        let listener = bind_unix(url, path, options).await?;
        let file = SocketFile::of(path)
            .await
            .map_err(|e| ListenError::Listen(url.clone(), e))?;
        Ok(Self {
            url: url.clone(),
            file: Some(file),
            incoming: stream::unfold(listener, |listener| async move {
                let (stream, _) = retry(|| listener.accept()).await;
                Some((Ok(Socket::unix(stream)), listener))
            })
            .boxed(),
        })
    }
}

impl Stream for Listener {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The file of a unix socket that we made.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Held open without being opened for anything, so that no other file can
    /// get its inode number as long as we compare with it.
    file: Arc<File>,
}

impl SocketFile {
    async fn of(path: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
        let file = options.open(path).await?.into_std().await;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is gone or another server's by now.
    ///
    /// # Errors
    ///
    /// The system refused.
    pub async fn remove(&self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let removed = match fs::symlink_metadata(&self.path).await {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                fs::remove_file(&self.path).await
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        removed.or_else(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(e)
            }
        })
    }
}

/// No host is every address: of both families where the system has IPv6.
async fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    if host.is_empty() {
        match TcpListener::bind(("::", port)).await {
            Ok(listener) => Ok(listener),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(e),
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
        }
    } else {
        TcpListener::bind((host, port)).await
    }
}

async fn bind_unix(
    url: &Url,
    path: &Path,
    options: &ListenOptions,
) -> Result<UnixListener, ListenError> {
    let refused = |e| ListenError::Listen(url.clone(), e);
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)
        .await
        .map_err(|e| ListenError::Directory(parent.to_owned(), e))?;
    let _lock = lock(parent).await;
    remove_stale(url, path).await?;
    make_socket(path, options).map_err(refused)
}

/// Two servers that start at once must not both find the same stale socket, or
/// the slower one would remove the faster one's new socket. The lock ends with
/// the file handle. A file system without locks is used without.
async fn lock(directory: &Path) -> Option<File> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || {
        let directory = File::open(directory).ok()?;
        directory.lock().ok()?;
        Some(directory)
    })
    .await
    .ok()?
}

async fn remove_stale(url: &Url, path: &Path) -> Result<(), ListenError> {
    let refused = |e| ListenError::Listen(url.clone(), e);
    match fs::symlink_metadata(path).await {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(refused(e)),
    }
    match UnixStream::connect(path).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).await.map_err(refused)
        }
        // A full backlog: it lives, if only just.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(ListenError::Live(url.clone())),
        Err(e) => Err(refused(e)),
        Ok(_) => Err(ListenError::Live(url.clone())),
    }
}

/// The mode is set before bind(2), which makes the file with it: there is no
/// moment in which others could connect.
fn make_socket(path: &Path, options: &ListenOptions) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    let mode = Permissions::from_mode(options.mode);
    let narrow = Permissions::from_mode(if options.group.is_some() {
        0o600
    } else {
        options.mode
    });
    File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(narrow)?;
    socket.bind(path)?;
    if let Some(group) = options.group {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, mode)?;
    socket.listen(options.backlog)
}

/// Until accept(2) succeeds. What it reports is either over (the peer left) or
/// passes (no file descriptor left), and must not end the server.
async fn retry<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection, trying again");
                sleep(PAUSE).await;
            }
        }
    }
}
