//! What `/status` shows.

use std::net::IpAddr;

use carrick_ipam::Lease;
use carrick_types::{Connection, DnsConfig, IpNet, Prefix, Route};
use carrick_vl3::peers::PeerStatus;
use serde::Serialize;
use serde_json::Value;

use crate::parts::Parts;

/// One client's connection.
#[derive(Debug, Serialize)]
struct ConnectionStatus {
    id: String,
    client: Option<String>,
    labels: carrick_types::Labels,
    mechanism: Option<String>,
    src_addrs: Vec<IpNet>,
    dst_addrs: Vec<IpNet>,
    src_routes: Vec<Route>,
    dns: Vec<DnsConfig>,
    mtu: Option<u32>,
    peer: Option<String>,
}

/// A route of the router.
#[derive(Debug, Serialize)]
pub(crate) struct RouteStatus {
    prefix: Prefix,
    via: Option<IpAddr>,
    peer: String,
}

/// A lease of an address.
#[derive(Debug, Serialize)]
struct LeaseStatus {
    prefix: Prefix,
    #[serde(flatten)]
    lease: Lease,
}

impl Parts {
    pub(crate) fn connections_status(&self) -> Value {
        let connections = self.handle.connections();
        json(
            connections
                .iter()
                .map(|connection| self.connection_status(connection)),
        )
    }

    fn connection_status(&self, connection: &Connection) -> ConnectionStatus {
        let Connection { context, .. } = connection;
        ConnectionStatus {
            id: connection.id.to_string(),
            client: connection.client_name().map(str::to_owned),
            labels: connection.labels.clone(),
            mechanism: connection
                .mechanism
                .as_ref()
                .map(|mechanism| mechanism.kind.to_string()),
            src_addrs: context.ip.src_addrs.clone(),
            dst_addrs: context.ip.dst_addrs.clone(),
            src_routes: context.ip.src_routes.clone(),
            dns: context.dns.clone(),
            mtu: context.mtu.map(carrick_types::Mtu::bytes),
            peer: self
                .vl3
                .dialled_by(&connection.id)
                .map(|peer| peer.to_string()),
        }
    }

    pub(crate) fn peers_status(&self) -> Vec<PeerStatus> {
        self.vl3.status()
    }

    pub(crate) fn routes_status(&self) -> Value {
        json(self.routes())
    }

    /// The routes over links that work.
    pub(crate) fn routes(&self) -> impl Iterator<Item = RouteStatus> {
        let links = self.vl3.links().into_iter();
        let working = links.filter(|(_, _, alive)| *alive);
        working.flat_map(|(peer, link, _)| {
            let via = link.addresses.first().copied();
            link.prefixes.into_iter().map(move |prefix| RouteStatus {
                prefix,
                via,
                peer: peer.to_string(),
            })
        })
    }

    pub(crate) fn leases_status(&self) -> Value {
        let leases = self.leases.all().into_iter();
        json(leases.map(|(prefix, lease)| LeaseStatus { prefix, lease }))
    }
}

pub(crate) fn json<T: Serialize>(items: impl Iterator<Item = T>) -> Value {
    serde_json::to_value(items.collect::<Vec<_>>()).unwrap_or_default()
}
