use std::collections::BTreeMap;

use serde::Serialize;

use super::Wanted;
use super::book::Book;
use crate::dataplane::{Counters, ServerCounters, Statistics};
use crate::service::{Server, Service};

/// What a balancer does and has done, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The data plane's name.
    pub dataplane: &'static str,
    /// Services by name.
    pub services: Vec<ServiceStatus>,
    /// Packets by reason, those that never occurred left out.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The policy's name.
    pub policy: &'static str,
    /// The mode's name.
    pub mode: &'static str,
    /// Its VIPs with what arrived for them.
    pub vips: Vec<VipStatus>,
    /// Its servers with what was sent to them.
    pub servers: Vec<ServerStatus>,
}

/// One VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VipStatus {
    /// The prefix.
    pub prefix: String,
    /// The protocols.
    pub protocols: String,
    /// The ports.
    pub ports: String,
    /// Packets that arrived.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its id.
    pub id: String,
    /// Its address, with the port where one is translated to.
    pub address: String,
    /// Its weight.
    pub weight: u16,
    /// What that means for it.
    pub state: ServerState,
    /// Slots of the hash table that are its.
    pub slots: usize,
    /// Flows that are remembered.
    pub flows: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Packets sent to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// Takes new flows.
    Active,
    /// Weight 0, no flow left: it can be removed.
    Drained,
    /// Weight 0, flows are left.
    Draining,
}

impl Status {
    pub(super) fn of(
        dataplane: &'static str,
        wanted: &Wanted,
        book: &Book,
        statistics: &Statistics,
    ) -> Self {
        let services = wanted.services();
        let reasons = statistics.reasons.iter().filter(|(_, count)| **count > 0);
        Self {
            dataplane,
            services: services.map(|one| service(one, book, statistics)).collect(),
            reasons: reasons.map(|(reason, count)| (*reason, *count)).collect(),
        }
    }
}

fn service(of: &Service, book: &Book, statistics: &Statistics) -> ServiceStatus {
    let slots = book.slots(of.identity());
    let server = |server: &Server| {
        let number = book.server(of.server_identity(&server.id));
        let counters = number.and_then(|number| statistics.servers.get(&number));
        let slots = number.and_then(|number| slots.get(&number));
        server_status(
            server,
            slots.copied().unwrap_or_default(),
            counters.copied().unwrap_or_default(),
        )
    };
    let vip = |vip: &crate::service::Vip| {
        let counters = book
            .vip(vip)
            .and_then(|number| statistics.vips.get(&number));
        vip_status(vip, counters.copied().unwrap_or_default())
    };
    ServiceStatus {
        name: of.name.to_string(),
        policy: of.policy.name(),
        mode: of.mode.name(),
        vips: of.vips.iter().map(vip).collect(),
        servers: of.servers.iter().map(server).collect(),
    }
}

fn vip_status(vip: &crate::service::Vip, counters: Counters) -> VipStatus {
    VipStatus {
        prefix: vip.prefix.to_string(),
        protocols: vip.protocols.to_string(),
        ports: vip.ports.to_string(),
        packets: counters.packets,
        bytes: counters.bytes,
        new_flows: counters.flows,
    }
}

fn server_status(server: &Server, slots: usize, counters: ServerCounters) -> ServerStatus {
    let address = match server.port {
        Some(port) => std::net::SocketAddr::new(server.address, port).to_string(),
        None => server.address.to_string(),
    };
    let state = match (server.weight, counters.live) {
        (0, 0) => ServerState::Drained,
        (0, _) => ServerState::Draining,
        _ => ServerState::Active,
    };
    ServerStatus {
        id: server.id.to_string(),
        address,
        weight: server.weight,
        state,
        slots,
        flows: counters.live,
        new_flows: counters.total.flows,
        packets: counters.total.packets,
        bytes: counters.total.bytes,
    }
}
