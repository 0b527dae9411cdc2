//! The server: tells its name.

mod datagrams;
mod streams;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Error, Transport};
use datagrams::Datagrams;

/// What a server calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Always the same.
    Fixed(String),
    /// The address that was connected to, so that one process stands for as many servers as it has addresses.
    LocalAddress,
}

impl Name {
    /// This machine's name.
    #[must_use]
    pub fn hostname() -> Self {
        let uname = nix::sys::utsname::uname().ok();
        let name = uname.map(|uname| uname.nodename().to_string_lossy().into_owned());
        Self::Fixed(name.unwrap_or_else(|| "localhost".into()))
    }

    fn for_local(&self, local: impl FnOnce() -> Option<IpAddr>) -> String {
        match self {
            Self::Fixed(name) => name.clone(),
            Self::LocalAddress => local().map_or_else(
                || "unknown".into(),
                |address| address.to_canonical().to_string(),
            ),
        }
    }
}

/// A server on any number of addresses. Each connection gets the name when it is accepted, and once more for each
/// read; each datagram is answered with it, from the address that it came to.
#[derive(Debug)]
pub struct Server {
    name: Arc<Name>,
    streams: Vec<(Transport, TcpListener)>,
    datagrams: Vec<Datagrams>,
}

impl Server {
    /// Listens on every address with every transport. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NoTransport`] and [`Error::Listen`].
    pub fn bind(
        name: Name,
        addresses: &[SocketAddr],
        transports: &[Transport],
    ) -> Result<Self, Error> {
        let mut server = Self {
            name: Arc::new(name),
            streams: Vec::new(),
            datagrams: Vec::new(),
        };
        for &transport in transports {
            transport.check()?;
            for &address in addresses {
                server
                    .listen(transport, address)
                    .map_err(|source| Error::Listen {
                        address,
                        transport,
                        source,
                    })?;
            }
        }
        Ok(server)
    }

    fn listen(&mut self, transport: Transport, address: SocketAddr) -> io::Result<()> {
        if transport == Transport::Udp {
            self.datagrams.push(Datagrams::bind(address)?);
        } else {
            self.streams.push((transport, transport.listener(address)?));
        }
        Ok(())
    }

    /// Where it listens; ports that were given as 0 are told as they were chosen.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let streams = self
            .streams
            .iter()
            .filter_map(|(transport, listener)| Some((*transport, listener.local_addr().ok()?)));
        let datagrams = self
            .datagrams
            .iter()
            .filter_map(|socket| Some((Transport::Udp, socket.address().ok()?)));
        streams.chain(datagrams).collect()
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Serve`] if a listener fails.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for (transport, listener) in self.streams {
            let (name, stop) = (self.name.clone(), stop.clone());
            tasks.spawn(async move { streams::serve(transport, listener, name, stop).await });
        }
        for socket in self.datagrams {
            let (name, stop) = (self.name.clone(), stop.clone());
            tasks.spawn(async move { socket.serve(&name, stop).await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Ok(result) = ended {
                result?;
            }
        }
        Ok(())
    }
}
