//! What `/status` says. Pure.

use std::net::IpAddr;
use std::time::SystemTime;

use carrick_chain::{ClientState, ClientStatus};
use carrick_grpc::rfc3339;
use carrick_types::{
    Connection, ConnectionId, DnsConfig, EndpointName, IfName, IpNet, Route, ServiceName,
};
use serde::{Deserialize, Serialize};

use crate::error::causes;

/// How a client is: what its admin listener answers to `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the client.
    pub name: String,
    /// Its connections, in the order of its settings.
    pub connections: Vec<ConnectionStatus>,
}

/// How a connection of a client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its id at the client.
    pub id: ConnectionId,
    /// The service asked for.
    pub network_service: ServiceName,
    /// The endpoint that serves it, once known.
    pub endpoint: Option<EndpointName>,
    /// How it is.
    pub state: ConnectionState,
    /// Name of the client's interface.
    pub interface: IfName,
    /// Addresses of the interface; like all below as last answered, also while
    /// the connection heals.
    pub src_addrs: Vec<IpNet>,
    /// Addresses of the endpoint.
    pub dst_addrs: Vec<IpNet>,
    /// Routes as `prefix via address`, or `prefix` where no next hop is named.
    pub routes: Vec<String>,
    /// Name servers.
    pub dns: Vec<DnsStatus>,
    /// Largest packet in bytes, where somebody has said.
    pub mtu: Option<u32>,
    /// Requests sent.
    pub attempts: u64,
    /// Why the last Request failed; gone when one succeeds.
    pub last_error: Option<String>,
    /// When `state` became what it is (RFC 3339).
    pub since: String,
}

/// How a connection is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConnectionState {
    /// It is closed, or left to a successor.
    Closed,
    /// It was never up yet.
    Connecting,
    /// It was up and is mended; traffic may go on meanwhile.
    Healing,
    /// It is up.
    Up,
}

/// Name servers and the domains to search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Addresses of the servers.
    pub server_ips: Vec<IpAddr>,
    /// Domains to search.
    pub search_domains: Vec<String>,
}

// === impl ConnectionStatus ===

impl ConnectionStatus {
    /// How `wanted` is before anything was done about it.
    pub(crate) fn new(wanted: &Connection, interface: &IfName, now: SystemTime) -> Self {
        Self {
            id: wanted.id.clone(),
            network_service: wanted.network_service.clone(),
            endpoint: None,
            state: ConnectionState::Connecting,
            interface: interface.clone(),
            src_addrs: Vec::new(),
            dst_addrs: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            mtu: None,
            attempts: 0,
            last_error: None,
            since: rfc3339(now),
        }
    }

    pub(crate) fn update(&mut self, status: &ClientStatus, now: SystemTime) {
        let state = ConnectionState::from(&status.state);
        if self.state != state {
            self.state = state;
            self.since = rfc3339(now);
        }
        self.attempts = status.requests;
        self.last_error = status.error.as_deref().map(|error| causes(error));
        if let Some(answer) = status.connection() {
            self.show(answer);
        }
    }

    fn show(&mut self, answer: &Connection) {
        let context = &answer.context;
        self.endpoint.clone_from(&answer.endpoint);
        self.src_addrs.clone_from(&context.ip.src_addrs);
        self.dst_addrs.clone_from(&context.ip.dst_addrs);
        self.routes = context.ip.src_routes.iter().map(route).collect();
        self.dns = context.dns.iter().map(DnsStatus::from).collect();
        self.mtu = context.mtu.map(carrick_types::Mtu::bytes);
    }
}

fn route(route: &Route) -> String {
    match route.next_hop {
        Some(next_hop) => format!("{} via {next_hop}", route.prefix),
        None => route.prefix.to_string(),
    }
}

impl From<&ClientState> for ConnectionState {
    fn from(state: &ClientState) -> Self {
        match state {
            ClientState::Closed => Self::Closed,
            ClientState::Connecting => Self::Connecting,
            ClientState::Healing => Self::Healing,
            ClientState::Up(_) => Self::Up,
        }
    }
}

impl From<&DnsConfig> for DnsStatus {
    fn from(dns: &DnsConfig) -> Self {
        Self {
            server_ips: dns.server_ips.clone(),
            search_domains: dns.search_domains.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use carrick_chain::{Error, Kind};
    use carrick_types::Mtu;
    use serde_json::json;

    use super::*;

    fn wanted() -> Connection {
        let service = ServiceName::new("vl3").unwrap();
        Connection::new(ConnectionId::new("nsc-0").unwrap(), service)
    }

    fn answer() -> Connection {
        let mut answer = wanted();
        answer.endpoint = Some(EndpointName::new("nse-1").unwrap());
        let ip = &mut answer.context.ip;
        ip.add_src_addr("172.16.0.1/32".parse().unwrap());
        ip.add_dst_addr("172.16.0.0/32".parse().unwrap());
        let prefix = "172.16.0.0/16".parse().unwrap();
        ip.add_src_route(Route::via(prefix, "172.16.0.0".parse().unwrap()));
        answer.context.dns.push(DnsConfig {
            server_ips: vec!["172.16.0.0".parse().unwrap()],
            search_domains: vec!["vl3".into()],
        });
        answer.context.mtu = Some(Mtu::new(1450).unwrap());
        answer
    }

    #[test]
    fn the_json_has_the_agreed_shape() {
        let interface = IfName::new("nsm-1").unwrap();
        let mut connection = ConnectionStatus::new(&wanted(), &interface, UNIX_EPOCH);
        let up = ClientStatus {
            state: ClientState::Up(Arc::new(answer())),
            requests: 3,
            ..ClientStatus::default()
        };
        connection.update(&up, UNIX_EPOCH + Duration::from_secs(1));
        let status = Status {
            name: "nsc".into(),
            connections: vec![connection],
        };
        let shape = json!({"name": "nsc", "connections": [{
            "id": "nsc-0",
            "network_service": "vl3",
            "endpoint": "nse-1",
            "state": "Up",
            "interface": "nsm-1",
            "src_addrs": ["172.16.0.1/32"],
            "dst_addrs": ["172.16.0.0/32"],
            "routes": ["172.16.0.0/16 via 172.16.0.0"],
            "dns": [{"server_ips": ["172.16.0.0"], "search_domains": ["vl3"]}],
            "mtu": 1450,
            "attempts": 3,
            "last_error": null,
            "since": "1970-01-01T00:00:01Z",
        }]});
        assert_eq!(serde_json::to_value(&status).unwrap(), shape);
        assert_eq!(serde_json::from_value::<Status>(shape).unwrap(), status);
    }

    #[test]
    fn a_healing_connection_still_shows_its_addresses_and_the_reason() {
        let interface = IfName::new("nsm-1").unwrap();
        let mut connection = ConnectionStatus::new(&wanted(), &interface, UNIX_EPOCH);
        let mut status = ClientStatus {
            state: ClientState::Up(Arc::new(answer())),
            ..ClientStatus::default()
        };
        connection.update(&status, UNIX_EPOCH);
        let up = connection.clone();
        let error = Error::request("connect", &wanted(), Kind::Unavailable, "nobody is there");
        status.state = ClientState::Healing;
        status.error = Some(Arc::new(error));
        connection.update(&status, UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(connection.src_addrs, up.src_addrs);
        assert_eq!(connection.since, "1970-01-01T00:00:09Z");
        let reason = connection.last_error.unwrap();
        assert!(reason.ends_with("failed: nobody is there"), "{reason}");
    }

    #[test]
    fn a_refresh_does_not_change_since_when_it_is_up() {
        let interface = IfName::new("nsm-1").unwrap();
        let mut connection = ConnectionStatus::new(&wanted(), &interface, UNIX_EPOCH);
        let status = ClientStatus {
            state: ClientState::Up(Arc::new(answer())),
            ..ClientStatus::default()
        };
        connection.update(&status, UNIX_EPOCH + Duration::from_secs(1));
        connection.update(&status, UNIX_EPOCH + Duration::from_secs(2));
        assert_eq!(connection.since, "1970-01-01T00:00:01Z");
    }
}
