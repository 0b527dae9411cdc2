use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::server::Connected;
use tracing::debug;

use crate::passing::PassingStream;
use crate::{Descriptors, PeerIdentity, Tls};

/// After how much silence a peer is asked whether it lives, and how long it has
/// to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the question, default 10 s; at least 1 s.
    pub interval: Duration,
    /// Time for the answer, default 5 s; at least 1 s.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(PassingStream),
}

impl Socket {
    /// Small messages must not wait for others, and a host that vanished must
    /// be noticed also while nothing is sent. Both are only tuning, so a system
    /// that refuses them does not cost the connection.
    pub(crate) fn tcp(stream: TcpStream, keep_alive: &KeepAlive) -> Self {
        if let Err(error) = tune(&stream, keep_alive) {
            debug!(%error, "cannot tune a TCP connection");
        }
        Self(Kind::Tcp(stream))
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self(Kind::Unix(PassingStream::new(stream)))
    }

    /// The file descriptors that travel over it, which only a unix socket has.
    #[must_use]
    pub fn descriptors(&self) -> Option<&Descriptors> {
        match &self.0 {
            Kind::Tcp(_) => None,
            Kind::Unix(stream) => Some(stream.descriptors()),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.0 {
            Kind::Tcp(stream) => Peer::Tcp(stream.peer_addr().ok().map(canonical)),
            Kind::Unix(stream) => {
                let credentials = stream.peer_cred().ok();
                Peer::Unix {
                    pid: credentials.and_then(|credentials| credentials.pid()),
                    uid: credentials.map(|credentials| credentials.uid()),
                }
            }
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::unix(stream)
    }
}

/// Unanswered questions end the connection after interval and timeout, and so
/// does sent data that is not acknowledged: keep-alive alone does not work
/// while data is on its way (RFC 5482, tcp(7)).
fn tune(stream: &TcpStream, keep_alive: &KeepAlive) -> io::Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    let KeepAlive { interval, timeout } = keep_alive;
    let (interval, timeout) = (*interval.max(&SECOND), *timeout.max(&SECOND));
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(interval)
            .with_interval(timeout),
    )?;
    socket.set_tcp_user_timeout(Some(interval + timeout))
}

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address, if the system could tell.
    Tcp(Option<SocketAddr>),
    /// A unix socket.
    Unix {
        /// Process at the time of connect(2), as our pid namespace sees it.
        pid: Option<i32>,
        /// Its user, if the system could tell.
        uid: Option<u32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Some(address)) => address.fmt(f),
            Self::Unix { pid: Some(pid), .. } => write!(f, "pid {pid}"),
            Self::Tcp(None) | Self::Unix { .. } => f.write_str("unknown"),
        }
    }
}

/// What a server knows of a connection; found in the extensions of every request.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// Who is at the other end.
    pub peer: Peer,
    /// The file descriptors that travel over it, which only a unix socket has.
    pub descriptors: Option<Descriptors>,
    /// Who both ends proved to be, where there is TLS.
    pub tls: Option<Tls>,
}

impl ConnectInfo {
    /// Who the other end proved to be, where there is TLS.
    #[must_use]
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.tls.as_ref().map(Tls::peer)
    }
}

impl Connected for Socket {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo {
            peer: self.peer(),
            descriptors: self.descriptors().cloned(),
            tls: None,
        }
    }
}

/// An IPv4 peer of a socket for both families as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_tcp_peer_that_vanished_is_given_up_after_fifteen_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let Socket(Kind::Tcp(stream)) = Socket::tcp(stream, &KeepAlive::default()) else {
            panic!("a TCP stream stays one")
        };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(5)
        );
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(15))
        );
    }
}
