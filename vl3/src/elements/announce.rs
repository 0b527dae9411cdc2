use std::net::IpAddr;

use carrick_chain::{Element, Error, Next};
use carrick_types::{Connection, host};

use crate::Vl3;
use crate::peers::{Link, PeerId};

/// Tells the peer set that a peer's link is up, and with what behind it.
///
/// Stands behind the element that makes the link: what comes from the peer
/// is installed there, and from here on packets go over it.
#[derive(Clone, Debug)]
pub struct Announce {
    vl3: Vl3,
}

impl Announce {
    /// The element of a network.
    #[must_use]
    pub fn new(vl3: Vl3) -> Self {
        Self { vl3 }
    }
}

impl Element for Announce {
    const NAME: &'static str = "routes";
    type State = PeerId;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<PeerId>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let answer = next.request(connection).await?;
        if let Some(peer) = self.vl3.dialled_by(&answer.id) {
            self.vl3.inbound_up(link_of(&answer));
            *state = Some(peer);
        }
        Ok(answer)
    }

    /// The first element of the network's closes the peer's link for the set.
    async fn close(&self, _: &Connection, _: &mut PeerId) -> Result<(), Error> {
        Ok(())
    }
}

/// The peer's side of a connection that it dialled.
fn link_of(connection: &Connection) -> Link {
    let ip = &connection.context.ip;
    let addresses: Vec<_> = ip.src_addrs.iter().map(ipnet::IpNet::addr).collect();
    let prefixes = ip.dst_routes.iter().map(|route| route.prefix);
    let mut prefixes: Vec<_> = prefixes
        .chain(addresses.iter().copied().map(host))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let theirs = |ip: &IpAddr| prefixes.iter().any(|prefix| prefix.contains(*ip));
    let configs = connection.context.dns.iter();
    let servers = configs.flat_map(|config| config.server_ips.iter().copied());
    let dns = servers.filter(theirs).collect();
    Link {
        connection: connection.id.clone(),
        addresses,
        prefixes,
        dns,
    }
}
