use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use carrick_types::ConnectionId;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::check::check;
use crate::{Agent, Change, Error, Found, Link, LinkKind, Netns, Protocol, Router, Side, Socket};

/// An agent without a data plane: it keeps in memory what would be there, under
/// the same rules as [`Kernel`](crate::Kernel), writes down what it was told, and
/// fails when told to.
///
/// Pings are answered after 100 µs of make-believe, unless told otherwise. Sockets
/// are real ones of the loopback device at a port of the kernel's choice.
#[derive(Debug, Default)]
pub struct Recording {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    model: Model,
    calls: Vec<Vec<Change>>,
    bound: Vec<(Netns, Protocol, SocketAddr)>,
    fail_in: Option<usize>,
    fail_if: Option<IsBad>,
    answer: Option<Answer>,
}

type IsBad = Box<dyn Fn(&Change) -> bool + Send>;

type Answer = Box<dyn Fn(&Netns, IpAddr, IpAddr) -> Option<Duration> + Send>;

type Key = (Netns, ConnectionId, Side);

/// What is there.
#[derive(Clone, Debug, Default)]
struct Model {
    routers: BTreeMap<Netns, Router>,
    links: BTreeMap<Key, Link>,
}

impl Recording {
    /// An agent on a node where nothing is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All batches it was told, also those that failed, first one first.
    #[must_use]
    pub fn calls(&self) -> Vec<Vec<Change>> {
        self.state().calls.clone()
    }

    /// The links that are there, by namespace and id.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.state().model.links.values().cloned().collect()
    }

    /// The link of a connection, whichever end, if it is there.
    #[must_use]
    pub fn link(&self, id: &ConnectionId) -> Option<Link> {
        self.links().into_iter().find(|link| link.id == *id)
    }

    /// The routers that are there.
    #[must_use]
    pub fn routers(&self) -> Vec<Router> {
        self.state().model.routers.values().cloned().collect()
    }

    /// The sockets that were bound: namespace, protocol and the address asked for.
    #[must_use]
    pub fn bound(&self) -> Vec<(Netns, Protocol, SocketAddr)> {
        self.state().bound.clone()
    }

    /// What is still there, in words; empty when all was given back.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let state = self.state();
        let links = state.model.links.values();
        let links = links.map(|link| format!("link {} in {}", link.id, link.near.netns));
        let routers = state.model.routers.keys();
        links
            .chain(routers.map(|netns| format!("router in {netns}")))
            .collect()
    }

    /// Lets the `n`-th batch from now fail, 0 being the next one.
    pub fn fail_at(&self, n: usize) {
        self.state().fail_in = Some(n);
    }

    /// Lets each batch fail that holds a change for which `is_bad` holds.
    pub fn fail_if(&self, is_bad: impl Fn(&Change) -> bool + Send + 'static) {
        self.state().fail_if = Some(Box::new(is_bad));
    }

    /// Ends [`Recording::fail_at`] and [`Recording::fail_if`].
    pub fn recover(&self) {
        let mut state = self.state();
        state.fail_in = None;
        state.fail_if = None;
    }

    /// Answers pings as `answer` says: namespace, source and target lead to the
    /// round trip time, or to `None` for no answer.
    pub fn answer_pings(
        &self,
        answer: impl Fn(&Netns, IpAddr, IpAddr) -> Option<Duration> + Send + 'static,
    ) {
        self.state().answer = Some(Box::new(answer));
    }

    /// Lets a namespace vanish with all that is in it, as when a pod ends.
    pub fn lose(&self, netns: &Netns) {
        self.state().model.lose(netns);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn apply_now(&self, changes: Vec<Change>) -> Result<(), Error> {
        changes.iter().try_for_each(check).map_err(Error::Invalid)?;
        let mut state = self.state();
        state.calls.push(changes.clone());
        state.fail(&changes)?;
        let mut model = state.model.clone();
        changes
            .into_iter()
            .try_for_each(|change| model.apply(change))?;
        state.model = model;
        Ok(())
    }
}

impl Agent for Recording {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.apply_now(changes) }.boxed()
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        async move {
            let links = self.links().into_iter();
            Ok(links
                .filter(|link| link.near.netns == *netns && link.owner == owner)
                .map(|link| found(&link))
                .collect())
        }
        .boxed()
    }

    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        async move {
            const PROMPT: Duration = Duration::from_micros(100);
            let answer = match &self.state().answer {
                Some(answer) => answer(netns, source, target),
                None => Some(PROMPT),
            };
            let answer = answer.filter(|after| *after <= timeout);
            tokio::time::sleep(answer.unwrap_or(timeout)).await;
            Ok(answer)
        }
        .boxed()
    }

    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        async move {
            self.state().bound.push((netns.clone(), protocol, address));
            loopback(protocol).map_err(Error::kernel(format!("bind {address} in {netns}")))
        }
        .boxed()
    }
}

// === impl State ===

impl State {
    fn fail(&mut self, changes: &[Change]) -> Result<(), Error> {
        let is_due = self.fail_in == Some(0);
        self.fail_in = match self.fail_in {
            Some(0) | None => None,
            Some(n) => Some(n - 1),
        };
        let is_bad = self
            .fail_if
            .as_ref()
            .is_some_and(|is_bad| changes.iter().any(is_bad));
        if is_due || is_bad {
            let told = std::io::Error::other("told to fail");
            return Err(Error::kernel("make the change")(told));
        }
        Ok(())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("model", &self.model)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

// === impl Model ===

impl Model {
    fn apply(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::DeleteLink { netns, id, side } => self.delete_link(&(netns, id, side)),
            Change::DeleteRouter { netns } => {
                if let Netns::Named(_) = netns {
                    self.lose(&netns);
                }
                self.routers.remove(&netns);
            }
            Change::PutLink(link) => return self.put_link(*link),
            Change::PutRouter(router) => {
                self.routers.insert(router.netns.clone(), router);
            }
        }
        Ok(())
    }

    fn put_link(&mut self, link: Link) -> Result<(), Error> {
        let needs_router = matches!(link.near.netns, Netns::Named(_));
        if needs_router && !self.routers.contains_key(&link.near.netns) {
            return Err(Error::NoNetns {
                netns: link.near.netns,
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            });
        }
        if link.kind == LinkKind::Given && self.maker_of(&link).is_none() {
            return Err(Error::NoDevice {
                id: link.id,
                netns: link.near.netns,
            });
        }
        if let Some(error) = self.vni_in_use(&link) {
            return Err(error);
        }
        self.links.insert(key(&link), link);
        Ok(())
    }

    fn vni_in_use(&self, link: &Link) -> Option<Error> {
        let LinkKind::Vxlan { vni, port, .. } = link.kind else {
            return None;
        };
        let is_other = |other: &&Link| {
            let same = matches!(other.kind, LinkKind::Vxlan { vni: v, port: p, .. } if (v, p) == (vni, port));
            same && key(other) != key(link)
        };
        let other = self.links.values().find(is_other);
        other.map(|_| Error::VniInUse { vni, port })
    }

    /// The link whose far end is the device of a given one.
    fn maker_of(&self, given: &Link) -> Option<Key> {
        let makes = |link: &Link| {
            link.id == given.id
                && link.side == given.side.other()
                && link.far_netns() == Some(&given.near.netns)
        };
        self.links.values().find(|link| makes(link)).map(key)
    }

    /// One end of a veth does not stand without the other.
    fn delete_link(&mut self, key: &Key) {
        let Some(link) = self.links.remove(key) else {
            return;
        };
        let other = match &link.kind {
            LinkKind::Given => self.maker_of(&link),
            _ => link
                .far_netns()
                .map(|far| (far.clone(), link.id.clone(), link.side.other())),
        };
        if let Some(other) = other {
            self.links.remove(&other);
        }
    }

    fn lose(&mut self, netns: &Netns) {
        let links = self.links.values();
        let lost = links
            .filter(|link| link.near.netns == *netns || link.far_netns() == Some(netns))
            .map(key)
            .collect::<Vec<_>>();
        for key in &lost {
            self.delete_link(key);
        }
        self.routers.remove(netns);
    }
}

fn key(link: &Link) -> Key {
    (link.near.netns.clone(), link.id.clone(), link.side)
}

fn found(link: &Link) -> Found {
    Found {
        id: link.id.clone(),
        side: link.side,
        owner: link.owner.clone(),
        netns: link.near.netns.clone(),
        name: link.near.name.clone(),
        up: true,
        mtu: link.mtu.bytes(),
        routes: link.near.routes.iter().map(|route| route.prefix).collect(),
    }
}

fn loopback(protocol: Protocol) -> std::io::Result<Socket> {
    let address = (Ipv4Addr::LOCALHOST, 0);
    Ok(match protocol {
        Protocol::Tcp => {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            socket.into()
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            socket.into()
        }
    })
}

#[cfg(test)]
mod tests;
