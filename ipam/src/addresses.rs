//! The element that gives connections their addresses and routes.

mod shape;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use carrick_chain::{Element, Endpoint, Error, Kind, Next, Operation};
use carrick_types::{Connection, ConnectionId, IpFamily, Prefix};
use tokio::time::timeout_at;
use tracing::{Instrument, info_span};

use crate::leases::{self, Ask, ClientId, LeaseError, Leased, Leases};
use crate::{Grant, Prefixes};

/// Says whether a connection comes from another endpoint of the service.
pub type IsPeer = Arc<dyn Fn(&Connection) -> bool + Send + Sync>;

/// How addresses are given.
#[derive(Clone)]
pub struct AddressOptions {
    /// How long a Request waits for a further prefix when all are full, default 5 s.
    pub further_timeout: Duration,
    /// Which connections are peers': these keep the addresses they come with.
    /// Default none.
    pub is_peer: IsPeer,
    /// Networks to which clients are told a route; the one that holds the
    /// prefix counts. Default is half the prefix's length (NSM `vl3.IPAM`: /16
    /// of an IPv4 /24, /64 of an IPv6 /112).
    pub networks: Vec<Prefix>,
    /// Further prefixes that clients reach through this endpoint.
    pub routes: Vec<Prefix>,
}

impl Default for AddressOptions {
    fn default() -> Self {
        Self {
            further_timeout: Duration::from_secs(5),
            is_peer: Arc::new(|_| false),
            networks: Vec::new(),
            routes: Vec::new(),
        }
    }
}

impl fmt::Debug for AddressOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressOptions")
            .field("further_timeout", &self.further_timeout)
            .field("networks", &self.networks)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// Gives each connection an address of the endpoint's prefixes, per family, and
/// the routes of a vL3 (NSM `vl3.IPAM` and `vl3` server).
///
/// The endpoint's own address of a family is the network address of its first
/// prefix of that family, also where the client's address comes from a further
/// one. A refresh changes nothing; addresses and routes of a former prefix or
/// of another endpoint are taken out.
#[derive(Clone, Debug)]
pub struct Addresses {
    leases: Leases,
    prefixes: Prefixes,
    options: AddressOptions,
}

/// What a connection holds: the leases that the book has under this id.
#[derive(Debug)]
pub struct Held(ConnectionId);

impl Addresses {
    /// Gives addresses of `prefixes`, recorded in `leases`.
    #[must_use]
    pub fn new(leases: Leases, prefixes: Prefixes, options: AddressOptions) -> Self {
        Self {
            leases,
            prefixes,
            options,
        }
    }

    /// The endpoint's own addresses, one of each family.
    #[must_use]
    pub fn own(&self) -> Vec<IpAddr> {
        shape::own_addresses(&self.prefixes.grants())
    }

    /// Whether an answer is no longer right since the prefixes changed, so that
    /// its client should be asked for a refresh. A further prefix alone makes
    /// no answer wrong.
    #[must_use]
    pub fn is_stale(&self, connection: &Connection) -> bool {
        let grants = self.prefixes.grants();
        let own = shape::own_addresses(&grants);
        let ip = &connection.context.ip;
        let ours = |address: &carrick_types::IpNet| {
            grants
                .iter()
                .any(|grant| grant.prefix.contains(address.addr()))
        };
        let renumbered = ip
            .dst_addrs
            .iter()
            .any(|address| !own.contains(&address.addr()));
        let missing = own
            .iter()
            .any(|own| ip.dst_addrs.iter().all(|net| net.addr() != *own));
        renumbered
            || missing
            || (!(self.options.is_peer)(connection) && !ip.src_addrs.iter().all(ours))
    }

    /// Asks the clients of `endpoint` for a refresh whenever a change of the
    /// prefixes has made their answers wrong, so that they are renumbered at
    /// once. Ends when the prefixes cannot change any more.
    pub async fn follow(&self, endpoint: &Endpoint) {
        let mut changes = self.prefixes.changed();
        while changes.changed().await.is_ok() {
            endpoint.ask_refresh(&|connection| self.is_stale(connection), &|_| {});
        }
    }

    async fn lease(
        &self,
        connection: &Connection,
    ) -> Result<(Leased, Option<leases::Unwritten>), Error> {
        let ip = &connection.context.ip;
        let claimed: Vec<IpAddr> = ip
            .src_addrs
            .iter()
            .map(carrick_types::IpNet::addr)
            .collect();
        let ask = Ask {
            connection: &connection.id,
            client: ClientId::of(connection),
            claimed: &claimed,
            excluded: &ip.excluded_prefixes,
            extra: &ip.extra_prefix_request,
        };
        let late = tokio::time::Instant::now() + self.options.further_timeout;
        loop {
            let grants = self.prefixes.grants();
            let error = match self.leases.begin(&ask, &grants).await {
                Ok(leased) => return Ok(leased),
                Err(error) => error,
            };
            let leases::Error::Lease(LeaseError::Full { family, .. }) = error else {
                return Err(self.refused(connection, error));
            };
            let span = info_span!("further prefix", family = ?family);
            let more = timeout_at(late, self.prefixes.further(family, &grants));
            if !matches!(more.instrument(span).await, Ok(Ok(()))) {
                return Err(self.refused(connection, error));
            }
        }
    }

    fn refused(&self, connection: &Connection, error: leases::Error) -> Error {
        let kind = match &error {
            leases::Error::Lease(LeaseError::Initializing) => Kind::Unavailable,
            leases::Error::Lease(LeaseError::Extra { .. }) => Kind::Invalid,
            leases::Error::Lease(_) => {
                self.leases.metrics().exhausted.inc();
                Kind::Exhausted
            }
            leases::Error::Store(_) => Kind::Internal,
        };
        Error::request(Self::NAME, connection, kind, error)
    }

    fn networks(&self, grants: &[Grant]) -> Vec<Prefix> {
        let network = |prefix: Prefix| {
            let configured = self
                .options
                .networks
                .iter()
                .find(|network| network.covers(prefix));
            configured
                .copied()
                .unwrap_or_else(|| prefix.default_network())
        };
        let mut networks = Vec::new();
        for family in [IpFamily::V4, IpFamily::V6] {
            for grant in grants
                .iter()
                .filter(|grant| grant.prefix.family() == family)
            {
                let network = network(grant.prefix);
                if !networks.contains(&network) {
                    networks.push(network);
                }
            }
        }
        networks
    }
}

/// Nobody is told of a lease before it is durable.
async fn written(unwritten: leases::Unwritten, id: ConnectionId) -> Result<(), Error> {
    let internal = |error| {
        let operation = Operation::Request;
        Error::new(Addresses::NAME, operation, &id, Kind::Internal, error)
    };
    unwritten.written().await.map_err(internal)
}

impl Element for Addresses {
    const NAME: &'static str = "ipam";

    type State = Held;

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<Held>,
        mut next: Next<'_>,
    ) -> Result<Connection, Error> {
        let peer = (self.options.is_peer)(&connection);
        let leased = if peer {
            if self.prefixes.grants().is_empty() {
                return Err(self.refused(&connection, LeaseError::Initializing.into()));
            }
            None
        } else {
            state.get_or_insert_with(|| Held(connection.id.clone()));
            let (leased, unwritten) = self.lease(&connection).await?;
            if let Some(unwritten) = unwritten {
                next.before_answer(written(unwritten, connection.id.clone()));
            }
            Some(leased)
        };
        let grants = self.prefixes.grants();
        let networks = self.networks(&grants);
        shape::inward(
            &mut connection.context.ip,
            leased.as_ref(),
            &grants,
            &networks,
        );
        // Behind the prefixes, as NSM orders them, but before the rest of the
        // chain: the link is made with all routes from the first Request on.
        for prefix in networks.iter().rev().chain(&self.options.routes) {
            shape::route(&mut connection.context.ip, *prefix, &grants);
        }
        next.request(connection).await
    }

    async fn close(&self, connection: &Connection, held: &mut Held) -> Result<(), Error> {
        let internal = |error| Error::close(Self::NAME, connection, Kind::Internal, error);
        self.leases.release(&held.0).await.map_err(internal)
    }
}
