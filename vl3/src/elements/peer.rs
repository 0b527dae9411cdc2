use std::net::IpAddr;

use carrick_chain::{Element, Error, Kind, Next};
use carrick_types::{Connection, DnsConfig, IpNet, Prefix, Route, host};

use crate::Vl3;
use crate::peers::{Link, PeerId};
use crate::recognise::PEER_LABEL;

/// Announces what this endpoint holds to the peer it dials, and leaves of the
/// answer what the filter accepts (NSM `vl3` and `vl3dns` clients).
///
/// One per dial. Stands behind the element that makes the link, next to the
/// remote call, so that a link is made only of what was accepted.
#[derive(Clone, Debug)]
pub struct PeerClient {
    vl3: Vl3,
    peer: PeerId,
}

impl PeerClient {
    /// The element for connections to `peer`.
    #[must_use]
    pub fn new(vl3: Vl3, peer: PeerId) -> Self {
        Self { vl3, peer }
    }

    /// What the answered connection to a peer means for the peer set: what the
    /// dialer hands back from `connect`.
    #[must_use]
    pub fn link(answer: &Connection) -> Link {
        let ip = &answer.context.ip;
        let addresses = ip.dst_addrs.iter().map(IpNet::addr).collect();
        let prefixes = ip.src_routes.iter().map(|route| route.prefix).collect();
        let dns = answer
            .context
            .dns
            .iter()
            .flat_map(|config| config.server_ips.clone())
            .collect();
        Link {
            connection: answer.id.clone(),
            addresses,
            prefixes,
            dns,
        }
    }

    fn announce(&self, connection: &mut Connection) -> Result<(), Error> {
        let own = self.vl3.prefixes().borrow().clone();
        let addresses = self.vl3.addresses();
        if addresses.is_empty() {
            return Err(Error::request(
                Self::NAME,
                connection,
                Kind::Unavailable,
                NoPrefix,
            ));
        }
        let ip = &mut connection.context.ip;
        ip.src_addrs = addresses.iter().copied().map(IpNet::from).collect();
        ip.dst_routes = routes(&addresses, &own);
        let server_ips = addresses.get(..1).unwrap_or_default().to_vec();
        connection.context.dns = vec![DnsConfig {
            server_ips,
            search_domains: Vec::new(),
        }];
        connection
            .labels
            .0
            .insert(PEER_LABEL.to_owned(), self.vl3.name().to_string());
        Ok(())
    }

    fn filter(&self, answer: &mut Connection) -> Result<(), Error> {
        let own = self.vl3.addresses();
        let ip = &mut answer.context.ip;
        let announced = ip.src_routes.iter().map(|route| route.prefix);
        let hosts = ip.dst_addrs.iter().map(|address| host(address.addr()));
        let verdict = self.vl3.accept(&self.peer, announced.chain(hosts));
        let taken = |prefix: Prefix| verdict.accepted.contains(&prefix);
        ip.src_routes.retain(|route| taken(route.prefix));
        ip.dst_addrs.retain(|address| taken(host(address.addr())));
        let foreign =
            |ip: &IpAddr| !own.contains(ip) && verdict.accepted.iter().any(|p| p.contains(*ip));
        for config in &mut answer.context.dns {
            config.server_ips.retain(foreign);
        }
        answer
            .context
            .dns
            .retain(|config| !config.server_ips.is_empty());
        if answer.context.ip.dst_addrs.is_empty() {
            let error = Unacceptable(self.peer.clone());
            return Err(Error::request(
                Self::NAME,
                answer,
                Kind::PermissionDenied,
                error,
            ));
        }
        Ok(())
    }
}

/// Routes to each address and each prefix by way of the address of its family.
fn routes(addresses: &[IpAddr], own: &[Prefix]) -> Vec<Route> {
    let of_family = |address: &IpAddr| {
        let address = *address;
        let prefixes = own
            .iter()
            .filter(move |prefix| prefix.network().is_ipv4() == address.is_ipv4());
        let prefixes = std::iter::once(host(address)).chain(prefixes.copied());
        prefixes.map(move |prefix| Route::via(prefix, address))
    };
    addresses.iter().flat_map(of_family).collect()
}

/// The peer's answer holds no address that may be taken.
#[derive(Debug, thiserror::Error)]
#[error("no address that {0} answered was accepted")]
struct Unacceptable(PeerId);

/// There is nothing to announce yet.
#[derive(Debug, thiserror::Error)]
#[error("this endpoint has no prefix yet")]
struct NoPrefix;

impl Element for PeerClient {
    const NAME: &'static str = "peer_client";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        self.announce(&mut connection)?;
        let mut answer = next.request(connection).await?;
        self.filter(&mut answer)?;
        Ok(answer)
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}
