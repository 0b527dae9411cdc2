use carrick_proto::connection::{
    Connection, ConnectionEvent, ConnectionEventType, Mechanism, MonitorScopeSelector, Path,
    PathSegment, State,
};
use carrick_proto::connectioncontext::{
    ConnectionContext, DnsConfig, DnsContext, EthernetContext, ExtraPrefixRequest, IpContext,
    IpFamily, IpNeighbor, PolicyRoute, Route, ip_family,
};
use carrick_proto::networkservice::NetworkServiceRequest;
use prost::Message as _;
use prost_types::Timestamp;

use crate::wire::Wire;
use crate::{check, map, strings};

fn route(prefix: &str, next_hop: &str) -> Route {
    Route {
        prefix: prefix.into(),
        next_hop: next_hop.into(),
    }
}

fn route_bytes(prefix: &str, next_hop: &str) -> Wire {
    Wire::new().text(1, prefix).text(2, next_hop)
}

fn ip_context_bytes() -> Wire {
    let family = Wire::new().number(1, 1);
    Wire::new()
        .text(1, "10.0.0.1/32")
        .text(1, "fd00::1/128")
        .text(2, "10.0.0.0/32")
        .number(3, 1)
        .number(4, 1)
        .message(5, &route_bytes("10.0.0.1/32", "10.0.0.1"))
        .message(6, &route_bytes("10.0.0.0/16", "10.0.0.0"))
        .message(6, &Wire::new().text(1, "10.0.0.0/24"))
        .text(7, "172.16.0.0/12")
        .message(
            8,
            &Wire::new().text(1, "10.0.0.9").text(2, "02:fe:00:00:00:09"),
        )
        .message(
            9,
            &Wire::new()
                .message(1, &family)
                .number(2, 64)
                .number(3, 2)
                .number(4, 3),
        )
        .text(10, "fd00:1::/64")
        .message(
            11,
            &Wire::new()
                .text(1, "10.0.0.1/32")
                .text(2, "6")
                .text(3, "80-443")
                .text(4, "1024-65535")
                .message(5, &route_bytes("0.0.0.0/0", "10.0.0.2")),
        )
}

fn ip_context() -> IpContext {
    IpContext {
        src_ip_addrs: strings(["10.0.0.1/32", "fd00::1/128"]),
        dst_ip_addrs: strings(["10.0.0.0/32"]),
        src_ip_required: true,
        dst_ip_required: true,
        src_routes: vec![route("10.0.0.1/32", "10.0.0.1")],
        dst_routes: vec![route("10.0.0.0/16", "10.0.0.0"), route("10.0.0.0/24", "")],
        excluded_prefixes: strings(["172.16.0.0/12"]),
        ip_neighbors: vec![IpNeighbor {
            ip: "10.0.0.9".into(),
            hardware_address: "02:fe:00:00:00:09".into(),
        }],
        extra_prefix_request: vec![ExtraPrefixRequest {
            addr_family: Some(IpFamily {
                family: ip_family::Family::Ipv6.into(),
            }),
            prefix_len: 64,
            required_number: 2,
            requested_number: 3,
        }],
        extra_prefixes: strings(["fd00:1::/64"]),
        policies: vec![PolicyRoute {
            from: "10.0.0.1/32".into(),
            proto: "6".into(),
            dst_port: "80-443".into(),
            src_port: "1024-65535".into(),
            routes: vec![route("0.0.0.0/0", "10.0.0.2")],
        }],
    }
}

fn context_bytes() -> Wire {
    let dns = Wire::new()
        .text(1, "10.0.0.53")
        .text(1, "fd00::53")
        .text(2, "vl3.example");
    Wire::new()
        .message(1, &ip_context_bytes())
        .message(2, &Wire::new().message(1, &dns))
        .message(
            3,
            &Wire::new()
                .text(1, "02:fe:00:00:00:01")
                .text(2, "02:fe:00:00:00:02")
                .number(3, 300),
        )
        .entry(4, "mtu_overhead", "50")
        .number(5, 1450)
}

fn context() -> ConnectionContext {
    ConnectionContext {
        ip_context: Some(ip_context()),
        dns_context: Some(DnsContext {
            configs: vec![DnsConfig {
                dns_server_ips: strings(["10.0.0.53", "fd00::53"]),
                search_domains: strings(["vl3.example"]),
            }],
        }),
        ethernet_context: Some(EthernetContext {
            src_mac: "02:fe:00:00:00:01".into(),
            dst_mac: "02:fe:00:00:00:02".into(),
            vlan_tag: 300,
        }),
        extra_context: map([("mtu_overhead", "50".to_owned())]),
        mtu: 1450,
    }
}

fn mechanism_bytes() -> Wire {
    Wire::new()
        .text(1, "LOCAL")
        .text(2, "KERNEL")
        .entry(3, "inodeURL", "inode://4/26")
        .entry(3, "name", "nsm-1")
}

fn mechanism() -> Mechanism {
    Mechanism {
        cls: "LOCAL".into(),
        r#type: "KERNEL".into(),
        parameters: map([
            ("inodeURL", "inode://4/26".into()),
            ("name", "nsm-1".into()),
        ]),
    }
}

fn segment_bytes() -> Wire {
    Wire::new()
        .text(1, "nsc-1")
        .text(2, "id-1")
        .text(3, "token-1")
        .timestamp(4, 1_900_000_000, 500_000_000)
        .entry(5, "rx_bytes", "1024")
}

fn segment() -> PathSegment {
    PathSegment {
        name: "nsc-1".into(),
        id: "id-1".into(),
        token: "token-1".into(),
        expires: Some(Timestamp {
            seconds: 1_900_000_000,
            nanos: 500_000_000,
        }),
        metrics: map([("rx_bytes", "1024".into())]),
    }
}

fn connection_bytes() -> Wire {
    let next = Wire::new().text(1, "nse-1").text(2, "id-2");
    Wire::new()
        .text(1, "id-2")
        .text(2, "vl3@example.org")
        .message(3, &mechanism_bytes())
        .message(4, &context_bytes())
        .entry(5, "app", "web")
        .entry(5, "nodeName", "node-1")
        .message(
            6,
            &Wire::new()
                .number(1, 1)
                .message(2, &segment_bytes())
                .message(2, &next),
        )
        .text(7, "nse-1")
        .text(8, "IP")
        .number(9, 3)
}

fn connection() -> Connection {
    let next = PathSegment {
        name: "nse-1".into(),
        id: "id-2".into(),
        ..Default::default()
    };
    Connection {
        id: "id-2".into(),
        network_service: "vl3@example.org".into(),
        mechanism: Some(mechanism()),
        context: Some(context()),
        labels: map([("app", "web".into()), ("nodeName", "node-1".into())]),
        path: Some(Path {
            index: 1,
            path_segments: vec![segment(), next],
        }),
        network_service_endpoint_name: "nse-1".into(),
        payload: "IP".into(),
        state: State::ReselectRequested.into(),
    }
}

#[test]
fn a_request_keeps_every_field() {
    let vxlan = Wire::new()
        .text(1, "REMOTE")
        .text(2, "VXLAN")
        .entry(3, "vni", "4097");
    let bytes = Wire::new()
        .message(1, &connection_bytes())
        .message(2, &mechanism_bytes())
        .message(2, &vxlan);
    let vxlan = Mechanism {
        cls: "REMOTE".into(),
        r#type: "VXLAN".into(),
        parameters: map([("vni", "4097".into())]),
    };
    let request = NetworkServiceRequest {
        connection: Some(connection()),
        mechanism_preferences: vec![mechanism(), vxlan],
    };
    check(&bytes, &request);
}

#[test]
fn a_close_is_the_connection_itself() {
    check(&connection_bytes(), &connection());
}

#[test]
fn a_monitor_event_keeps_its_connections() {
    let gone = Wire::new().text(1, "id-9").number(9, 1);
    let bytes = Wire::new()
        .number(1, 2)
        .entry_of(2, "id-2", &connection_bytes())
        .entry_of(2, "id-9", &gone);
    let gone = Connection {
        id: "id-9".into(),
        state: State::Down.into(),
        ..Default::default()
    };
    let event = ConnectionEvent {
        r#type: ConnectionEventType::Delete.into(),
        connections: map([("id-2", connection()), ("id-9", gone)]),
    };
    check(&bytes, &event);
}

#[test]
fn a_monitor_selector_keeps_segments_and_services() {
    let bytes = Wire::new()
        .message(1, &segment_bytes())
        .text(2, "vl3")
        .text(2, "lb");
    let selector = MonitorScopeSelector {
        path_segments: vec![segment()],
        network_services: strings(["vl3", "lb"]),
    };
    check(&bytes, &selector);
}

#[test]
fn enum_values_are_those_of_nsm() {
    use ConnectionEventType::{Delete, InitialStateTransfer, Update};
    use State::{Down, RefreshRequested, ReselectRequested, Up};
    assert_eq!(
        [Up, Down, RefreshRequested, ReselectRequested].map(i32::from),
        [0, 1, 2, 3]
    );
    assert_eq!(
        [InitialStateTransfer, Update, Delete].map(i32::from),
        [0, 1, 2]
    );
    assert_eq!(RefreshRequested.as_str_name(), "REFRESH_REQUESTED");
}

#[test]
fn map_entries_may_come_in_any_order() {
    let bytes = Wire::new().entry(5, "b", "2").entry(5, "a", "1");
    let connection = Connection::decode(bytes.as_bytes()).unwrap();
    assert_eq!(
        connection.labels,
        map([("a", "1".into()), ("b", "2".into())])
    );
}

#[test]
fn fields_and_states_of_a_later_version_do_no_harm() {
    let bytes = Wire::new()
        .text(1, "id-1")
        .number(9, 77)
        .text(1000, "later")
        .number(1001, 5);
    let connection = Connection::decode(bytes.as_bytes()).unwrap();
    assert_eq!(connection.id, "id-1");
    assert_eq!(connection.state, 77);
    assert!(State::try_from(connection.state).is_err());
}
