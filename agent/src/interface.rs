use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use carrick_grpc::Held;
use carrick_types::Invalid;
use futures::future::BoxFuture;

use crate::{Change, Error, Found, Netns, Socket};

/// The vswitch agent: it is told what shall be, by name, and makes it so.
///
/// # Guarantees
///
/// - [`Agent::apply`] is all-or-nothing: if one change of the batch fails, what
///   the batch had made is removed and nobody else's link is touched.
/// - Every change may be repeated. Putting what is there already touches no
///   packet in flight.
/// - What it makes carries its owner and its connection's id, so that
///   [`Agent::list`] finds it again after a crash of either side.
pub trait Agent: Send + Sync + 'static {
    /// Lets the agent find a namespace by its inode ([`Netns::Inode`]) until what
    /// is returned is dropped, even if it sees no process in it. An agent that
    /// has no use for it lets it go.
    ///
    /// # Errors
    ///
    /// It is no namespace.
    fn hold(&self, namespace: OwnedFd) -> Result<Held, Invalid> {
        Ok(Box::new(namespace))
    }

    /// Makes the changes, in order.
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>>;

    /// The links of `owner` in a namespace; a namespace that is not there has none.
    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>>;

    /// Sends one ICMP echo in a namespace and waits for its answer: the round
    /// trip time, or `None` if there was none within `timeout`.
    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>>;

    /// A bound socket in a namespace: TCP listening, or UDP.
    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>>;
}

/// Protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A listening TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
}
