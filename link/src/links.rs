use std::net::IpAddr;
use std::sync::Arc;

use carrick_agent::{End, Link, LinkKind, LinkRoute, Side};
use carrick_chain::{Element, Next};
use carrick_types::{
    Connection, ConnectionId, IfName, Invalid, IpContext, IpFamily, IpNet, Mechanism,
};
use carrick_types::{MechanismType, Mtu, Route};

use crate::mechanisms::{address, far_netns, port, remote_underlay, vni};
use crate::{Error, LinkBook, Site};

/// Has the agent make the link of each connection, whole: devices, addresses,
/// routes, neighbours and MTU as the connection's context says.
///
/// Must stand behind everything that writes into the context.
pub struct Links {
    site: Site,
    book: LinkBook,
    is_peer: IsPeer,
}

/// Whether a connection is another endpoint's, which dresses its own end.
pub(crate) type IsPeer = Arc<dyn Fn(&Connection) -> bool + Send + Sync>;

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl Links {
    /// Links of an endpoint at `site`, kept in `book`. Where `is_peer` holds
    /// for a connection, the far end is left to its owner.
    pub fn new(
        site: Site,
        book: LinkBook,
        is_peer: impl Fn(&Connection) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            site,
            book,
            is_peer: Arc::new(is_peer),
        }
    }

    /// The link that `connection` shall have; `None` where none is made here.
    fn link(&self, connection: &Connection) -> Result<Option<Link>, Invalid> {
        let Some(mechanism) = &connection.mechanism else {
            return Ok(None);
        };
        let kind = match mechanism.kind {
            MechanismType::Kernel => self.veth(connection, mechanism)?,
            MechanismType::Vxlan => self.vxlan(mechanism)?,
            _ => return Ok(None),
        };
        let ip = &connection.context.ip;
        let near = End {
            netns: self.site.router.clone(),
            name: IfName::of("c", &connection.id),
            addresses: Vec::new(),
            routes: routes(&ip.src_addrs, &ip.dst_routes, &ip.dst_addrs),
        };
        Ok(Some(Link {
            id: connection.id.clone(),
            side: Side::Endpoint,
            owner: self.site.owner.clone(),
            mtu: connection.context.mtu.unwrap_or(Mtu::ETHERNET),
            near,
            neighbors: ip.src_addrs.iter().map(IpNet::addr).collect(),
            kind,
        }))
    }

    fn veth(&self, connection: &Connection, mechanism: &Mechanism) -> Result<LinkKind, Invalid> {
        let netns = far_netns(mechanism, &self.site)?;
        if (self.is_peer)(connection) {
            let name = IfName::of("p", &connection.id);
            return Ok(LinkKind::VethOpen { netns, name });
        }
        let name = IfName::new(mechanism.parameter(Mechanism::NAME).unwrap_or_default())?;
        let ip = &connection.context.ip;
        Ok(LinkKind::Veth {
            far: End {
                netns,
                name,
                addresses: ip.src_addrs.clone(),
                routes: routes(&ip.dst_addrs, &ip.src_routes, &ip.src_addrs),
            },
        })
    }

    fn vxlan(&self, mechanism: &Mechanism) -> Result<LinkKind, Invalid> {
        Ok(LinkKind::Vxlan {
            vni: vni(mechanism.parameter(Mechanism::VNI).unwrap_or_default())?,
            local: address(mechanism, Mechanism::DST_IP)?,
            remote: remote_underlay(mechanism)?,
            port: port(mechanism, Mechanism::DST_PORT, self.site.vxlan_port)?,
        })
    }
}

impl Element for Links {
    const NAME: &'static str = "link";
    type State = ConnectionId;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<ConnectionId>,
        next: Next<'_>,
    ) -> Result<Connection, carrick_chain::Error> {
        let failed = |e: Error| carrick_chain::Error::request(Self::NAME, &connection, e.kind(), e);
        let link = self
            .link(&connection)
            .map_err(|e| failed(Error::Mechanism(e)))?;
        if let Some(link) = link {
            state.get_or_insert_with(|| connection.id.clone());
            self.book
                .put(&connection.id, link)
                .await
                .map_err(|e| failed(Error::of_agent(e, &self.site.router)))?;
        }
        next.request(connection).await
    }

    async fn close(
        &self,
        connection: &Connection,
        id: &mut ConnectionId,
    ) -> Result<(), carrick_chain::Error> {
        let netns = self.site.router.clone();
        self.book
            .delete(id, netns, id, Side::Endpoint)
            .await
            .map_err(|e| {
                let e = Error::Agent(e);
                carrick_chain::Error::close(Self::NAME, connection, e.kind(), e)
            })
    }
}

/// Routes out of one end: to each address of the `other` end itself, then what
/// is `announced`, through its next hop or else the other end's first address
/// of that family (NSM `GetSrcRoutesWithExplicitNextHop`). `own` addresses are
/// the source of packets made here.
pub(crate) fn routes(other: &[IpNet], announced: &[Route], own: &[IpNet]) -> Vec<LinkRoute> {
    let source = |family| first(own, family);
    let neighbors = other.iter().map(|net| LinkRoute {
        prefix: carrick_types::host(net.addr()),
        next_hop: None,
        source: source(IpFamily::of(net.addr())),
    });
    let mut routes: Vec<LinkRoute> = neighbors.collect();
    for route in announced {
        let family = route.prefix.family();
        let Some(next_hop) = route.next_hop.or_else(|| first(other, family)) else {
            continue; // nobody at the other end speaks this family
        };
        let is_neighbor = route.prefix == carrick_types::host(next_hop);
        if !is_neighbor && !routes.iter().any(|known| known.prefix == route.prefix) {
            routes.push(LinkRoute {
                prefix: route.prefix,
                next_hop: Some(next_hop),
                source: source(family),
            });
        }
    }
    routes
}

fn first(addresses: &[IpNet], family: IpFamily) -> Option<IpAddr> {
    addresses
        .iter()
        .map(IpNet::addr)
        .find(|address| IpFamily::of(*address) == family)
}

/// The other side's routes that an endpoint installs on its own end.
pub(crate) fn own_end_routes(ip: &IpContext) -> Vec<LinkRoute> {
    routes(&ip.dst_addrs, &ip.src_routes, &ip.src_addrs)
}

#[cfg(test)]
mod tests;
