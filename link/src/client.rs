use carrick_agent::{End, Link, LinkKind, Side};
use carrick_chain::{Element, Next};
use carrick_types::{Connection, ConnectionId, IfName, Invalid, IpNet, Mechanism, MechanismClass};
use carrick_types::{MechanismType, Mtu};

use crate::links::own_end_routes;
use crate::mechanisms::{address, port, vni};
use crate::vnis::Reserved;
use crate::{Error, LinkBook, Site, Vnis, url_of_netns};

/// Offers what a node can do, as an endpoint that requests a connection to
/// another one: a veth if both are on one node, else VXLAN.
#[derive(Debug)]
pub struct Offer {
    site: Site,
    vnis: Vnis,
}

impl Offer {
    /// Offers of an endpoint at `site`; `vnis` is shared by all tunnels of the node.
    #[must_use]
    pub fn new(site: Site, vnis: Vnis) -> Self {
        Self { site, vnis }
    }

    fn preferences(&self, tunnel: Option<&Reserved>) -> Vec<Mechanism> {
        let netns = url_of_netns(&self.site.router);
        let kernel = Mechanism::new(MechanismClass::Local, MechanismType::Kernel)
            .with(Mechanism::INODE_URL, netns)
            .with(Mechanism::NODE_NAME, &self.site.node);
        let vxlan = self.site.underlay.zip(tunnel).map(|(underlay, tunnel)| {
            Mechanism::new(MechanismClass::Remote, MechanismType::Vxlan)
                .with(Mechanism::SRC_IP, underlay)
                .with(Mechanism::SRC_PORT, self.site.vxlan_port)
                .with(Mechanism::VNI, tunnel.vni())
        });
        std::iter::once(kernel).chain(vxlan).collect()
    }

    /// Packets are no larger than what the chosen link carries here.
    fn limit(&self, connection: &mut Connection) {
        let Some(chosen) = &connection.mechanism else {
            return;
        };
        let (most, mtu) = (self.site.mtu_of(chosen), &mut connection.context.mtu);
        *mtu = Some(mtu.map_or(most, |mtu| mtu.min(most)));
    }
}

impl Element for Offer {
    const NAME: &'static str = "offer";
    type State = Option<Reserved>;

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<Option<Reserved>>,
        next: Next<'_>,
    ) -> Result<Connection, carrick_chain::Error> {
        let tunnel = state.get_or_insert_with(|| self.site.underlay.map(|_| self.vnis.take(None)));
        connection.preferences = self.preferences(tunnel.as_ref());
        self.limit(&mut connection);
        let mut answer = next.request(connection).await?;
        // The other node's underlay may carry more than ours.
        self.limit(&mut answer);
        Ok(answer)
    }

    async fn close(
        &self,
        _: &Connection,
        _: &mut Option<Reserved>,
    ) -> Result<(), carrick_chain::Error> {
        Ok(()) // dropping the offer gives the identifier back
    }
}

/// Makes the requesting endpoint's own end of the link from the answer.
///
/// Must stand before everything that changes the answer on its way back, since
/// it acts on what is left of it.
pub struct OwnEnd {
    site: Site,
    book: LinkBook,
}

impl std::fmt::Debug for OwnEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnEnd")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl OwnEnd {
    /// Ends of links of an endpoint at `site`, kept in `book` under the
    /// connection's id at this end.
    #[must_use]
    pub fn new(site: Site, book: LinkBook) -> Self {
        Self { site, book }
    }

    fn link(&self, id: &ConnectionId, answer: &Connection) -> Result<Option<Link>, Invalid> {
        let Some(mechanism) = &answer.mechanism else {
            return Ok(None);
        };
        let (prefix, kind) = match mechanism.kind {
            MechanismType::Kernel => ("p", LinkKind::Given),
            MechanismType::Vxlan => ("c", self.vxlan(mechanism)?),
            _ => return Ok(None),
        };
        let ip = &answer.context.ip;
        let mtu = answer.context.mtu.unwrap_or(Mtu::ETHERNET);
        Ok(Some(Link {
            id: id.clone(),
            side: Side::Client,
            owner: self.site.owner.clone(),
            mtu: mtu.min(self.site.mtu_of(mechanism)),
            near: End {
                netns: self.site.router.clone(),
                name: IfName::of(prefix, id),
                addresses: Vec::new(),
                routes: own_end_routes(ip),
            },
            neighbors: ip.dst_addrs.iter().map(IpNet::addr).collect(),
            kind,
        }))
    }

    fn vxlan(&self, mechanism: &Mechanism) -> Result<LinkKind, Invalid> {
        Ok(LinkKind::Vxlan {
            vni: vni(mechanism.parameter(Mechanism::VNI).unwrap_or_default())?,
            local: address(mechanism, Mechanism::SRC_IP)?,
            remote: address(mechanism, Mechanism::DST_IP)?,
            port: port(mechanism, Mechanism::DST_PORT, self.site.vxlan_port)?,
        })
    }
}

impl Element for OwnEnd {
    const NAME: &'static str = "own-end";
    type State = Vec<ConnectionId>;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<Vec<ConnectionId>>,
        next: Next<'_>,
    ) -> Result<Connection, carrick_chain::Error> {
        // What the answer says of our id is the other side's word.
        let own = connection.id.clone();
        let answer = next.request(connection).await?;
        let failed = |e: Error| carrick_chain::Error::request(Self::NAME, &answer, e.kind(), e);
        let id = endpoint_id(&answer).ok_or_else(|| failed(Error::NoSegment))?;
        if self.book.is_of_another(&own, &id, Side::Client) {
            return Err(failed(Error::IdInUse(id)));
        }
        let link = self
            .link(&id, &answer)
            .map_err(|e| failed(Error::Mechanism(e)))?;
        let made = state.get_or_insert_default();
        if let Some(link) = link {
            // Another endpoint (or the same one, risen anew) answers under
            // another id: the former link goes once the new one is there.
            let former: Vec<_> = made.iter().filter(|was| **was != id).cloned().collect();
            if !made.contains(&id) {
                made.push(id.clone());
            }
            self.book
                .put(&own, link)
                .await
                .map_err(|e| failed(Error::Agent(e)))?;
            for id in former {
                self.delete(&own, &id)
                    .await
                    .map_err(|e| failed(Error::Agent(e)))?;
                made.retain(|is| *is != id);
            }
        }
        Ok(answer)
    }

    async fn close(
        &self,
        connection: &Connection,
        made: &mut Vec<ConnectionId>,
    ) -> Result<(), carrick_chain::Error> {
        while let Some(id) = made.last() {
            self.delete(&connection.id, id).await.map_err(|e| {
                let e = Error::Agent(e);
                carrick_chain::Error::close(Self::NAME, connection, e.kind(), e)
            })?;
            made.pop();
        }
        Ok(())
    }
}

impl OwnEnd {
    async fn delete(
        &self,
        connection: &ConnectionId,
        id: &ConnectionId,
    ) -> Result<(), carrick_agent::Error> {
        self.book
            .delete(connection, self.site.router.clone(), id, Side::Client)
            .await
    }
}

/// The connection's id at the endpoint: the last segment's of the answer.
fn endpoint_id(answer: &Connection) -> Option<ConnectionId> {
    let segment = answer.path.segments.last()?;
    ConnectionId::new(&segment.id).ok()
}

#[cfg(test)]
mod tests;
