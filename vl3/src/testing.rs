//! An agent for tests: sockets on loopback, pings as a test says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use carrick_agent::{Agent, Change, Error, Found, Netns, Protocol, Socket};
use futures::future::BoxFuture;

/// Binds in the test's own namespace; answers pings of those who are not away.
#[derive(Debug, Default)]
pub(crate) struct LoopbackAgent {
    pub(crate) away: Mutex<Vec<IpAddr>>,
}

impl Agent for LoopbackAgent {
    fn apply(&self, _: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        panic!("nothing here changes the data plane")
    }

    fn list<'a>(&'a self, _: &'a Netns, _: &'a str) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        panic!("nothing here looks at the data plane")
    }

    fn ping<'a>(
        &'a self,
        _: &'a Netns,
        _: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        let away = self.away.lock().unwrap().contains(&target);
        Box::pin(async move {
            if away {
                tokio::time::sleep(timeout).await;
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Some(Duration::from_millis(1)))
        })
    }

    fn bind<'a>(
        &'a self,
        _: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        let bound = match protocol {
            Protocol::Tcp => std::net::TcpListener::bind(address).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket.into())
            }),
            Protocol::Udp => std::net::UdpSocket::bind(address).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket.into())
            }),
        };
        let step = format!("bind {address}");
        Box::pin(async move { bound.map_err(|source| Error::Kernel { step, source }) })
    }
}
