//! The Linux kernel as a vswitch, by netlink.

mod batch;
mod bind;
mod deletions;
mod held;
mod netlink;
mod netns;
mod observe;
mod ping;
mod preflight;
mod put;
mod router;
mod settle;
mod state;
mod step;
mod worker;

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use carrick_grpc::Held;
use carrick_types::Invalid;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use self::deletions::Deletions;
use self::held::HeldNamespaces;
use self::netns::Namespaces;
use self::ping::Pings;
pub use self::preflight::{Capability, preflight};
use self::worker::Worker;
use crate::check::check;
use crate::{Agent, Change, Error, Found, Netns, Protocol, Socket};

/// The Linux kernel of this node as an agent.
///
/// One thread puts things, batch by batch, so that undoing a failed batch cannot
/// take away what another one relies on; the kernel has one lock for such changes
/// anyway. Deletions go beside it, gathered by namespace. Calls must be made within
/// a tokio runtime. Needs `CAP_NET_ADMIN` and, for other namespaces than its own,
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
    deletions: Arc<Deletions>,
    pings: Pings,
    held: HeldNamespaces,
}

impl Kernel {
    /// An agent whose [`Netns::Own`] is the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// No netlink socket can be had, or the thread cannot be started.
    pub fn new() -> io::Result<Self> {
        let own = File::open("/proc/thread-self/ns/net")?;
        let held = HeldNamespaces::default();
        Ok(Self {
            worker: Worker::start(held.clone())?,
            held,
            deletions: Arc::new(Deletions::new(own)),
            pings: Pings::default(),
        })
    }
}

/// First what may fail and be undone, then what is deleted.
async fn apply(
    worker: Worker,
    deletions: Arc<Deletions>,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let links = batch::deleted_links(&changes);
    let routers = batch::deleted_routers(&changes);
    if batch::puts(&changes) {
        worker
            .run(move |namespaces| batch::put(namespaces, &changes))
            .await?;
    }
    let deleted = links
        .into_iter()
        .map(|(netns, id, side)| deletions.delete(netns, id, side));
    futures::future::try_join_all(deleted).await?;
    if routers.is_empty() {
        return Ok(());
    }
    let delete = move |namespaces: &mut Namespaces| {
        routers
            .iter()
            .try_for_each(|netns| router::delete_router(namespaces, netns))
    };
    worker.run(delete).await
}

impl Agent for Kernel {
    fn hold(&self, namespace: OwnedFd) -> Result<Held, Invalid> {
        Ok(Box::new(self.held.hold(namespace)?))
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            changes.iter().try_for_each(check).map_err(Error::Invalid)?;
            for netns in batch::deleted_routers(&changes) {
                self.pings.forget(&netns);
            }
            // A task of its own, so that a caller that goes away leaves nothing half done.
            let applied = tokio::spawn(apply(
                self.worker.clone(),
                Arc::clone(&self.deletions),
                changes,
            ));
            applied.await.map_err(|e| Error::Unavailable(Box::new(e)))?
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
