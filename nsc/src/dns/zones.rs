//! Whom to ask. Pure.

use std::net::IpAddr;

use carrick_types::Prefix;
use hickory_proto::rr::Name;

use crate::{ConnectionState, Status};

/// The name servers that the connections brought, and those from before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zones {
    domains: Vec<(Name, Vec<IpAddr>)>,
    /// Whose reverse names an endpoint knows.
    prefixes: Vec<(Prefix, Vec<IpAddr>)>,
    former: Vec<IpAddr>,
}

impl Zones {
    /// What connections say as they are in `status`; `former` has the rest.
    pub(super) fn new(status: &Status, former: Vec<IpAddr>) -> Self {
        let mut zones = Self {
            former,
            ..Self::default()
        };
        let open = status
            .connections
            .iter()
            .filter(|connection| connection.state != ConnectionState::Closed);
        for connection in open {
            for config in &connection.dns {
                for domain in &config.search_domains {
                    if let Ok(mut zone) = Name::from_ascii(domain) {
                        zone.set_fqdn(true);
                        zones.domains.push((zone, config.server_ips.clone()));
                    }
                }
                let routes = connection.routes.iter();
                let prefixes = routes.filter_map(|route| route.split(' ').next()?.parse().ok());
                let reverse = prefixes.map(|prefix| (prefix, config.server_ips.clone()));
                zones.prefixes.extend(reverse);
            }
        }
        zones
    }

    /// Whether a connection brought a name server.
    pub(super) fn has_servers(&self) -> bool {
        let zones = self.domains.iter().map(|(_, servers)| servers);
        let prefixes = self.prefixes.iter().map(|(_, servers)| servers);
        zones.chain(prefixes).any(|servers| !servers.is_empty())
    }

    /// The servers to ask for `name`, one after the other until one knows it:
    /// those with the longest domain that it lies in, then the former ones. A
    /// domain may be as wide as `org`, and not all in it is the endpoint's.
    pub(super) fn servers(&self, name: &Name) -> Vec<IpAddr> {
        let mut matching: Vec<_> = self
            .domains
            .iter()
            .filter(|(zone, _)| zone.zone_of(name))
            .collect();
        matching.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.num_labels()));
        let reverse = name.parse_arpa_name().ok().map(|net| net.addr());
        let reverse = self.prefixes.iter().filter(|(prefix, _)| {
            // Not the default route: reverse names of the world are not the endpoint's.
            prefix.length() > 0 && reverse.is_some_and(|address| prefix.contains(address))
        });
        let mut servers = Vec::new();
        let brought = matching.into_iter().map(|(_, servers)| servers);
        let brought = brought.chain(reverse.map(|(_, servers)| servers));
        for server in brought.flatten().chain(&self.former) {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        servers
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use carrick_types::{Connection, ConnectionId, IfName, ServiceName};

    use super::*;
    use crate::{ConnectionStatus, DnsStatus};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn connection(id: &str, server: &str, domains: &[&str]) -> ConnectionStatus {
        let wanted = Connection::new(
            ConnectionId::new(id).unwrap(),
            ServiceName::new("vl3").unwrap(),
        );
        let interface = IfName::new("nsm-1").unwrap();
        ConnectionStatus {
            state: ConnectionState::Up,
            routes: vec!["172.16.0.0/16 via 172.16.0.0".into(), "0.0.0.0/0".into()],
            dns: vec![DnsStatus {
                server_ips: vec![ip(server)],
                search_domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            }],
            ..ConnectionStatus::new(&wanted, &interface, SystemTime::now())
        }
    }

    fn zones(connections: Vec<ConnectionStatus>) -> Zones {
        let status = Status {
            name: "nsc".into(),
            connections,
        };
        Zones::new(&status, vec![ip("10.96.0.10")])
    }

    fn asked(zones: &Zones, name: &str) -> Vec<IpAddr> {
        zones.servers(&Name::from_ascii(name).unwrap())
    }

    #[test]
    fn an_endpoint_is_asked_for_its_domains_and_the_former_servers_for_the_rest() {
        let zones = zones(vec![
            connection("nsc-0", "172.16.0.0", &["vl3.my.org", "my.org", "org"]),
            connection("nsc-1", "172.17.0.0", &["other"]),
        ]);
        let former = ip("10.96.0.10");
        assert_eq!(asked(&zones, "Pod.VL3.my.org."), [ip("172.16.0.0"), former]);
        assert_eq!(asked(&zones, "pod.other."), [ip("172.17.0.0"), former]);
        assert_eq!(asked(&zones, "example.org."), [ip("172.16.0.0"), former]);
        assert_eq!(asked(&zones, "example.net."), [former]);
    }

    #[test]
    fn the_longest_domain_comes_first() {
        let zones = zones(vec![
            connection("nsc-0", "172.16.0.0", &["org"]),
            connection("nsc-1", "172.17.0.0", &["vl3.org"]),
        ]);
        let servers = asked(&zones, "pod.vl3.org.");
        assert_eq!(servers[..2], [ip("172.17.0.0"), ip("172.16.0.0")]);
    }

    #[test]
    fn reverse_names_of_the_network_are_the_endpoints() {
        let zones = zones(vec![connection("nsc-0", "172.16.0.0", &["vl3"])]);
        let former = ip("10.96.0.10");
        let own = asked(&zones, "7.1.16.172.in-addr.arpa.");
        assert_eq!(own, [ip("172.16.0.0"), former]);
        assert_eq!(asked(&zones, "8.8.8.8.in-addr.arpa."), [former]);
    }

    #[test]
    fn a_closed_connection_brings_nothing() {
        let mut closed = connection("nsc-0", "172.16.0.0", &["vl3"]);
        closed.state = ConnectionState::Closed;
        let zones = zones(vec![closed]);
        assert!(!zones.has_servers());
        assert_eq!(asked(&zones, "pod.vl3."), [ip("10.96.0.10")]);
    }
}
