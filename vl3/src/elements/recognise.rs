use std::time::Duration;

use carrick_chain::{Element, Error, Kind, Next};
use carrick_types::{Connection, IpContext, IpNet, Prefix, host};
use tokio::time::timeout;

use crate::peers::PeerId;
use crate::recognise::{Forgery, PEER_LABEL, Recognition};
use crate::{Metrics, Vl3};

/// Tells peers from clients, and lets in from each only what it may say.
///
/// Stands before the addresses, which treat the two differently
/// ([`Vl3::dialled_by`]). Of a peer's addresses and routes what
/// the network's filter accepts is passed on; a client's routes never are.
#[derive(Clone, Debug)]
pub struct Recognise {
    vl3: Vl3,
}

/// What a connection was made as, which it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client's.
    Client,
    /// A peer's.
    Peer(PeerId),
}

impl Recognise {
    /// How long a peer that no registry knows yet is waited for: it may dial
    /// before our watch has told us that it registered.
    pub const WAIT: Duration = Duration::from_secs(1);

    /// The element of a network.
    #[must_use]
    pub fn new(vl3: Vl3) -> Self {
        Self { vl3 }
    }

    /// Who says what only endpoints say is waited for as well: NSM's own carry
    /// no label, and once taken for a client it could not become a peer.
    async fn recognise(&self, connection: &Connection) -> Recognition {
        let mut changes = self.vl3.changes();
        let open = |recognition: &Recognition| match recognition {
            // Of a bad token the key may have changed.
            Recognition::Forged(Forgery::BadToken | Forgery::Unregistered) => true,
            Recognition::Client => announces(connection),
            Recognition::Forged(_) | Recognition::Peer(_) => false,
        };
        let known = async {
            loop {
                let recognition = self.vl3.recognise(connection);
                if !open(&recognition) {
                    return recognition;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(Self::WAIT, known).await {
            Ok(recognition) => recognition,
            Err(_) => self.vl3.recognise(connection),
        }
    }

    fn refuse(&self, connection: &Connection, forgery: Forgery) -> Error {
        Metrics::count(&self.vl3.metrics().forged_peers, forgery.as_str());
        tracing::warn!(connection.id = %connection.id, client = connection.client_name(), "not a peer: {forgery}");
        Error::request(Self::NAME, connection, Kind::PermissionDenied, forgery)
    }

    /// Leaves of what a peer says about itself what is accepted.
    fn filter(&self, connection: &mut Connection, peer: &PeerId) -> Result<(), Error> {
        if connection.labels.value(PEER_LABEL).is_none() {
            forget_former(&mut connection.context.ip);
        }
        let ip = &mut connection.context.ip;
        let announced = ip.dst_routes.iter().map(|route| route.prefix);
        let hosts = ip.src_addrs.iter().map(|address| host(address.addr()));
        let verdict = self.vl3.accept(peer, announced.chain(hosts));
        let taken = |prefix: Prefix| verdict.accepted.contains(&prefix);
        ip.dst_routes.retain(|route| taken(route.prefix));
        ip.src_addrs
            .retain(|address: &IpNet| taken(host(address.addr())));
        if ip.src_addrs.is_empty() {
            let refused = verdict.refused.first().copied();
            let error = Unacceptable {
                peer: peer.clone(),
                refused: refused.map(|(prefix, _)| prefix),
            };
            return Err(Error::request(
                Self::NAME,
                connection,
                Kind::PermissionDenied,
                error,
            ));
        }
        Ok(())
    }
}

/// Whether a Request says which prefix its sender holds, by way of which own
/// address (NSM `vl3` client). Clients have routes to single addresses only.
fn announces(connection: &Connection) -> bool {
    let ip = &connection.context.ip;
    let own = |hop| ip.src_addrs.iter().any(|address| address.addr() == hop);
    ip.dst_routes.iter().any(|route| {
        route.prefix.length() < route.prefix.width() && route.next_hop.is_some_and(own)
    })
}

/// Leaves of each family the last address and what is behind it. When its
/// prefix changes, an endpoint of NSM's own adds the new one to the former
/// (NSM `vl3` client), which somebody else may hold by then.
fn forget_former(ip: &mut IpContext) {
    let last = |v4: bool| {
        let mut addresses = ip.src_addrs.iter().map(IpNet::addr);
        addresses.rfind(|ip| ip.is_ipv4() == v4)
    };
    let current = [last(true), last(false)];
    ip.src_addrs
        .retain(|address| current.contains(&Some(address.addr())));
    ip.dst_routes
        .retain(|route| route.next_hop.is_none() || current.contains(&route.next_hop));
}

/// Nothing that a peer announced could be taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "no address of {peer} was accepted{}",
    refused.map(|prefix| format!(", {prefix} neither")).unwrap_or_default()
)]
struct Unacceptable {
    peer: PeerId,
    refused: Option<Prefix>,
}

impl Element for Recognise {
    const NAME: &'static str = "peer";
    type State = Role;

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<Role>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        connection.context.extra.remove(Vl3::PEER_KEY);
        match (self.recognise(&connection).await, &state) {
            (Recognition::Forged(forgery), _) => Err(self.refuse(&connection, forgery)),
            (Recognition::Peer(_), Some(Role::Client)) => {
                Err(self.refuse(&connection, Forgery::TurnedPeer))
            }
            (Recognition::Peer(peer), _) => {
                if self.vl3.ground().networks.is_empty() {
                    return Err(Error::request(
                        Self::NAME,
                        &connection,
                        Kind::Unavailable,
                        NoPrefix,
                    ));
                }
                *state = Some(Role::Peer(peer.clone()));
                self.vl3.admit(&peer, &connection.id).map_err(|refusal| {
                    Error::request(Self::NAME, &connection, Kind::Unavailable, refusal)
                })?;
                self.filter(&mut connection, &peer)?;
                let mut answer = next.request(connection).await?;
                answer
                    .context
                    .extra
                    .insert(Vl3::PEER_KEY.to_owned(), peer.to_stored());
                Ok(answer)
            }
            (Recognition::Client, _) => {
                if state.is_none() {
                    *state = Some(Role::Client);
                    self.vl3.metrics().active_workload.inc();
                }
                connection.context.ip.dst_routes.clear();
                next.request(connection).await
            }
        }
    }

    async fn close(&self, connection: &Connection, role: &mut Role) -> Result<(), Error> {
        match role {
            Role::Client => _ = self.vl3.metrics().active_workload.dec(),
            Role::Peer(_) => self.vl3.inbound_closed(&connection.id),
        }
        Ok(())
    }
}

/// The network is not known yet.
#[derive(Debug, thiserror::Error)]
#[error("prefix pool is initializing")]
struct NoPrefix;
