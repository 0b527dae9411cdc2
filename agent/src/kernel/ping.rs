//! ICMP echoes from inside a namespace.

mod echo;
mod socket;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use carrick_types::{Invalid, IpFamily};

use self::socket::PingSocket;
pub(super) use self::socket::open;
use super::netns::{Identity, identity_of};
use super::worker::Worker;
use crate::{Error, Netns};

/// A socket that nobody has used so long is closed, so that it does not keep a
/// dead namespace alive.
const IDLE: Duration = Duration::from_secs(5);

/// The sockets in use, one for each namespace and family, shared by all pings.
#[derive(Debug, Default)]
pub(super) struct Pings {
    sockets: Arc<Mutex<Sockets>>,
}

type Key = (Netns, IpFamily);
type Sockets = HashMap<Key, Arc<PingSocket>>;

impl Pings {
    pub(super) async fn ping(
        &self,
        worker: &Worker,
        netns: &Netns,
        source: IpAddr,
        target: IpAddr,
        limit: Duration,
    ) -> Result<Option<Duration>, Error> {
        if source.is_ipv4() != target.is_ipv4() {
            let expected = "an address of the target's family";
            return Err(Error::Invalid(Invalid::new("source", source, expected)));
        }
        let socket = self.socket(worker, netns, IpFamily::of(target)).await?;
        let step = || format!("ping {target} from {source} in {netns}");
        socket
            .ping(source, target, limit)
            .await
            .map_err(|e| Error::kernel(step())(e))
    }

    /// Closes the sockets of a namespace that is about to go.
    pub(super) fn forget(&self, netns: &Netns) {
        lock(&self.sockets).retain(|(of, _), socket| {
            let stays = of != netns;
            if !stays {
                socket.close();
            }
            stays
        });
    }

    async fn socket(
        &self,
        worker: &Worker,
        netns: &Netns,
        family: IpFamily,
    ) -> Result<Arc<PingSocket>, Error> {
        let key = (netns.clone(), family);
        let known = lock(&self.sockets).get(&key).cloned();
        if let Some(socket) = known {
            let is_same = |now: Identity| now == socket.identity;
            if *netns == Netns::Own || identity_of(netns).is_ok_and(is_same) {
                return Ok(socket);
            }
            self.forget(netns);
        }
        let step = format!("open a ping socket in {netns}");
        let of = netns.clone();
        let (socket, identity) = worker
            .run(move |namespaces| {
                let handle = namespaces.enter(&of)?;
                let socket = handle
                    .within(|| open(family))
                    .and_then(|opened| opened)
                    .map_err(Error::kernel(step))?;
                Ok((socket, handle.identity()))
            })
            .await?;
        let socket = PingSocket::new(socket, family, identity)
            .map_err(Error::kernel(format!("watch a ping socket in {netns}")))?;
        let socket = Arc::new(socket);
        if let Some(other) = lock(&self.sockets).insert(key.clone(), Arc::clone(&socket)) {
            other.close(); // two came at once; its pings end as unanswered
        }
        tokio::spawn(read(
            Arc::clone(&socket),
            key,
            Arc::downgrade(&self.sockets),
        ));
        Ok(socket)
    }
}

fn lock(sockets: &Mutex<Sockets>) -> MutexGuard<'_, Sockets> {
    sockets.lock().expect("no holder of this lock panics")
}

/// Hands answers out until the socket is closed or nobody uses it.
async fn read(socket: Arc<PingSocket>, key: Key, sockets: Weak<Mutex<Sockets>>) {
    let mut used = socket.used();
    loop {
        match tokio::time::timeout(IDLE, socket.readable()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => {
                let Some(sockets) = sockets.upgrade() else {
                    return;
                };
                let now = socket.used();
                // Nobody can take it out of the map meanwhile; the two that hold
                // it are the map and this task.
                let mut sockets = lock(&sockets);
                if now == used && Arc::strong_count(&socket) <= 2 {
                    sockets.remove(&key);
                    return;
                }
                used = now;
            }
        }
    }
}
