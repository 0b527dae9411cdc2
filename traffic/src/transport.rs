//! Sockets of the transports, opened the same way whichever it is.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::Error;

/// Connections that may wait to be accepted; the kernel caps it at its `somaxconn`.
const BACKLOG: i32 = 4096;

/// What connections run over.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260, one-to-one style sockets.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The text names none of them.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a transport: tcp, udp or sctp")]
pub struct UnknownTransport(String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownTransport(text.into())),
        }
    }
}

impl Transport {
    /// Whether this kernel has it.
    ///
    /// # Errors
    ///
    /// [`Error::NoTransport`] if it has not.
    pub fn check(self) -> Result<(), Error> {
        let opened = self
            .socket(Domain::IPV4)
            .or_else(|_| self.socket(Domain::IPV6));
        opened
            .map(drop)
            .map_err(|_| Error::NoTransport { transport: self })
    }

    fn socket(self, domain: Domain) -> io::Result<Socket> {
        let (kind, protocol) = match self {
            Self::Tcp => (Type::STREAM, Protocol::TCP),
            Self::Udp => (Type::DGRAM, Protocol::UDP),
            Self::Sctp => (Type::STREAM, Protocol::SCTP),
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn listening(self, address: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(Domain::for_address(address))?;
        if address.is_ipv6() {
            // So that the same port can be had for IPv4, too.
            socket.set_only_v6(true)?;
        }
        if self != Self::Udp {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        if self != Self::Udp {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    }

    /// A listener for connections; TCP and SCTP.
    pub(crate) fn listener(self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::from_std(self.listening(address)?.into())
    }

    /// A socket that datagrams come to.
    pub(crate) fn datagrams(self, address: SocketAddr) -> io::Result<Socket> {
        self.listening(address)
    }

    fn outgoing(self, target: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
        let socket = self.socket(Domain::for_address(target))?;
        if let Some(source) = source {
            // IPv6 wants it for addresses that a route makes local; the port is chosen by connect, so that it is
            // unique per target and not per address.
            match source {
                IpAddr::V4(_) => socket.set_freebind_v4(true)?,
                IpAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }

    /// Connects; TCP and SCTP.
    pub(crate) async fn connect(
        self,
        target: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        let socket = self.outgoing(target, source)?;
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        // SCTP has no such option of TCP's.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// A datagram socket that speaks with `target` alone.
    pub(crate) fn connect_datagrams(
        target: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<UdpSocket> {
        let socket = Self::Udp.outgoing(target, source)?;
        socket.connect(&target.into())?;
        UdpSocket::from_std(socket.into())
    }
}
