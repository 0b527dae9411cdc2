//! The Linux kernel as a vswitch, by netlink.

mod batch;
mod bind;
mod netlink;
mod netns;
mod observe;
mod ping;
mod put;
mod router;
mod settle;
mod state;
mod step;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use self::ping::Pings;
use self::worker::Worker;
use crate::check::check;
use crate::{Agent, Change, Error, Found, Netns, Protocol, Socket};

/// The Linux kernel of this node as an agent.
///
/// One thread makes all changes, batch by batch, so that undoing a failed batch
/// cannot take away what another one relies on; the kernel has one lock for such
/// changes anyway. Needs `CAP_NET_ADMIN` and, for other namespaces than its own,
/// `CAP_SYS_ADMIN`.
///
/// # Guarantees
///
/// - A link's devices have indices computed from its id, so each is found by one
///   question, and none is lost by a crash.
/// - Putting a link that is there as it shall be sends questions only.
/// - Routes carry protocol 67. Those of others, on the same devices too, are left alone.
///
/// # Caveats
///
/// - A veth that had to be replaced (another kind or another far namespace) comes
///   back after a failed batch only if the agent is told to put it again.
/// - [`Change::DeleteLink`] and [`Change::DeleteRouter`] take effect when all
///   other changes of their batch have been made.
#[derive(Debug)]
pub struct Kernel {
    worker: Worker,
    pings: Pings,
}

impl Kernel {
    /// An agent whose [`Netns::Own`] is the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// No netlink socket can be had, or the thread cannot be started.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            worker: Worker::start()?,
            pings: Pings::default(),
        })
    }
}

impl Agent for Kernel {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            changes.iter().try_for_each(check).map_err(Error::Invalid)?;
            for change in &changes {
                if let Change::DeleteRouter { netns } = change {
                    self.pings.forget(netns);
                }
            }
            self.worker
                .run(move |namespaces| batch::apply(namespaces, &changes))
                .await
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        let (netns, owner) = (netns.clone(), owner.to_owned());
        self.worker
            .run(move |namespaces| worker::list(namespaces, &netns, &owner))
            .boxed()
    }

    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        self.pings
            .ping(&self.worker, netns, source, target, timeout)
            .boxed()
    }

    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        let netns = netns.clone();
        self.worker
            .run(move |namespaces| {
                let step = format!("bind {address} in {netns}");
                let handle = namespaces.enter(&netns)?;
                handle
                    .within(|| bind::bind(protocol, address))
                    .and_then(|bound| bound)
                    .map_err(Error::kernel(step))
            })
            .boxed()
    }
}
