use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carrick_chain::{ConnectionEvent, EventKind, Selector};
use carrick_proto::connection as wire;
use carrick_proto::connectioncontext::{
    ConnectionContext, IpContext as WireIp, Route as WireRoute,
};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_types::{
    Connection, ConnectionId, Context, DnsConfig, EndpointName, Ethernet, ExtraPrefixRequest,
    IpContext, IpFamily, IpNeighbor, IpNet, Labels, Mechanism, Mtu, Path, PathSegment, Payload,
    PolicyRoute, Prefix, Route, ServiceName, State,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.@ -]{1,12}"
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.:/-]{0,8}"
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), ".{0,8}", 0..3)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
    ]
}

fn interface() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128).prop_map(|(address, length)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(max)).unwrap()
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    interface().prop_map(Prefix::from)
}

fn route() -> impl Strategy<Value = Route> {
    (prefix(), option::of(address())).prop_map(|(prefix, next_hop)| Route { prefix, next_hop })
}

fn extra_prefix_request() -> impl Strategy<Value = ExtraPrefixRequest> {
    (any::<bool>(), 0u8..=32, any::<u32>(), any::<u32>()).prop_map(
        |(v6, prefix_length, required, requested)| ExtraPrefixRequest {
            family: if v6 { IpFamily::V6 } else { IpFamily::V4 },
            prefix_length,
            required,
            requested,
        },
    )
}

fn policy() -> impl Strategy<Value = PolicyRoute> {
    (text(), text(), text(), text(), vec(route(), 0..2)).prop_map(
        |(from, proto, dst_port, src_port, routes)| PolicyRoute {
            from,
            proto,
            dst_port,
            src_port,
            routes,
        },
    )
}

fn ip_context() -> impl Strategy<Value = IpContext> {
    let neighbor = (address(), text()).prop_map(|(ip, hardware_address)| IpNeighbor {
        ip,
        hardware_address,
    });
    (
        vec(interface(), 0..3),
        vec(interface(), 0..3),
        vec(route(), 0..3),
        vec(route(), 0..3),
        vec(prefix(), 0..3),
        vec(neighbor, 0..2),
        vec(extra_prefix_request(), 0..2),
        vec(prefix(), 0..2),
        vec(policy(), 0..2),
    )
        .prop_map(
            |(
                src_addrs,
                dst_addrs,
                src_routes,
                dst_routes,
                excluded_prefixes,
                neighbors,
                extra_prefix_request,
                extra_prefixes,
                policies,
            )| IpContext {
                src_addrs,
                dst_addrs,
                src_routes,
                dst_routes,
                excluded_prefixes,
                neighbors,
                extra_prefix_request,
                extra_prefixes,
                policies,
            },
        )
}

fn context() -> impl Strategy<Value = Context> {
    let dns = (vec(address(), 0..2), vec(text(), 0..2)).prop_map(|(server_ips, search_domains)| {
        DnsConfig {
            server_ips,
            search_domains,
        }
    });
    let ethernet =
        (text(), text(), any::<i32>()).prop_map(|(src_mac, dst_mac, vlan_tag)| Ethernet {
            src_mac,
            dst_mac,
            vlan_tag,
        });
    let mtu = (1280u32..=65_535).prop_map(|bytes| Mtu::new(bytes).unwrap());
    (
        ip_context(),
        vec(dns, 0..3),
        option::of(ethernet),
        texts(),
        option::of(mtu),
    )
        .prop_map(|(ip, dns, ethernet, extra, mtu)| Context {
            ip,
            dns,
            ethernet,
            extra,
            mtu,
        })
}

fn time() -> impl Strategy<Value = SystemTime> {
    (-62_135_596_800i64..=253_402_300_799, 0u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| super::time::time(seconds, nanos).unwrap())
}

fn segment() -> impl Strategy<Value = PathSegment> {
    (text(), text(), text(), option::of(time()), texts()).prop_map(
        |(name, id, token, expires, metrics)| PathSegment {
            name,
            id,
            token,
            expires,
            metrics,
        },
    )
}

fn path() -> impl Strategy<Value = Path> {
    (0usize..5, vec(segment(), 0..4)).prop_map(|(index, segments)| Path { index, segments })
}

fn mechanism() -> impl Strategy<Value = Mechanism> {
    (text(), text(), texts()).prop_map(|(class, kind, parameters)| Mechanism {
        class: class.into(),
        kind: kind.into(),
        parameters,
    })
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Up),
        Just(State::Down),
        Just(State::RefreshRequested),
        Just(State::ReselectRequested),
    ]
}

fn connection() -> impl Strategy<Value = Connection> {
    (
        (name(), name(), option::of(name())),
        option::of(mechanism()),
        vec(mechanism(), 0..3),
        context(),
        texts(),
        path(),
        text(),
        state(),
    )
        .prop_map(
            |(
                (id, service, endpoint),
                mechanism,
                preferences,
                context,
                labels,
                path,
                payload,
                state,
            )| {
                Connection {
                    id: ConnectionId::new(id).unwrap(),
                    network_service: ServiceName::new(service).unwrap(),
                    endpoint: endpoint.map(|name| EndpointName::new(name).unwrap()),
                    mechanism,
                    preferences,
                    context,
                    labels: Labels(labels),
                    path,
                    payload: Payload::from(payload),
                    state,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_request_survives_the_wire(request in connection()) {
        let bytes = request_to_wire(&request).encode_to_vec();
        let wire = NetworkServiceRequest::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(request_from_wire(wire).unwrap(), request);
    }

    #[test]
    fn an_event_survives_the_wire(mut one in connection(), mut other in connection()) {
        (one.preferences, other.preferences) = (Vec::new(), Vec::new());
        one.id = ConnectionId::new("1").unwrap();
        other.id = ConnectionId::new("2").unwrap();
        let connections = vec![Arc::new(one), Arc::new(other)];
        let event = ConnectionEvent { kind: EventKind::Update, connections };
        prop_assert_eq!(event_from_wire(event_to_wire(&event)).unwrap(), event.clone());
        prop_assert_eq!(events_to_wire(&event), vec![event_to_wire(&event)]);
    }

    #[test]
    fn a_selector_survives_the_wire(
        segments in vec(segment(), 0..4),
        network_services in vec(text(), 0..3),
    ) {
        let selector = Selector { segments, network_services };
        prop_assert_eq!(selector_from_wire(selector_to_wire(&selector)).unwrap(), selector);
    }

    #[test]
    fn a_time_survives_the_wire(time in time()) {
        prop_assert_eq!(time_from_wire("t", time_to_wire(time)).unwrap(), time);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = NetworkServiceRequest::decode(bytes.as_slice()) {
            let _ = request_from_wire(wire);
        }
        if let Ok(wire) = wire::ConnectionEvent::decode(bytes.as_slice()) {
            let _ = event_from_wire(wire);
        }
    }

    /// Bytes at random seldom decode; this message always does.
    #[test]
    fn a_message_of_random_fields_never_panics(
        id in ".{0,20}",
        state in any::<i32>(),
        index in any::<u32>(),
        seconds in any::<i64>(),
        nanos in any::<i32>(),
        mtu in any::<u32>(),
        texts in vec(".{0,20}", 8),
    ) {
        let segment = wire::PathSegment {
            id: texts[0].clone(),
            expires: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        };
        let ip = WireIp {
            src_ip_addrs: vec![texts[1].clone()],
            excluded_prefixes: vec![texts[2].clone()],
            src_routes: vec![WireRoute { prefix: texts[3].clone(), next_hop: texts[4].clone() }],
            ..Default::default()
        };
        let context = ConnectionContext { ip_context: Some(ip), mtu, ..Default::default() };
        let _ = connection_from_wire(wire::Connection {
            id,
            network_service: texts[5].clone(),
            context: Some(context),
            path: Some(wire::Path { index, path_segments: vec![segment] }),
            state,
            ..Default::default()
        });
    }
}

/// A connection with nothing but what must be there.
fn bare() -> wire::Connection {
    wire::Connection {
        id: "1".into(),
        network_service: "vl3".into(),
        ..Default::default()
    }
}

fn with_ip(ip: WireIp) -> wire::Connection {
    let context = ConnectionContext {
        ip_context: Some(ip),
        ..Default::default()
    };
    wire::Connection {
        context: Some(context),
        ..bare()
    }
}

#[test]
fn absent_messages_are_empty_ones() {
    let connection = connection_from_wire(bare()).unwrap();
    assert_eq!(
        connection,
        Connection::new(connection.id.clone(), connection.network_service.clone())
    );
}

#[test]
fn an_empty_id_is_the_current_segments_or_a_new_one() {
    let segment = |id: &str| wire::PathSegment {
        id: id.into(),
        ..Default::default()
    };
    let path = wire::Path {
        index: 1,
        path_segments: vec![segment("a"), segment("b")],
    };
    let with_path = wire::Connection {
        id: String::new(),
        path: Some(path),
        ..bare()
    };
    assert_eq!(connection_from_wire(with_path).unwrap().id.as_str(), "b");
    let without = || {
        connection_from_wire(wire::Connection {
            id: String::new(),
            ..bare()
        })
        .unwrap()
    };
    assert_ne!(without().id, without().id);
}

#[test]
fn host_bits_of_an_address_are_kept_and_a_bare_address_is_a_hosts() {
    let addresses = ["10.0.0.5/24", "10.0.0.7", "2001:db8::1"]
        .map(str::to_owned)
        .to_vec();
    let wire = with_ip(WireIp {
        src_ip_addrs: addresses,
        ..Default::default()
    });
    let back = connection_to_wire(&connection_from_wire(wire).unwrap());
    let addresses = back.context.unwrap().ip_context.unwrap().src_ip_addrs;
    assert_eq!(addresses, ["10.0.0.5/24", "10.0.0.7/32", "2001:db8::1/128"]);
}

#[test]
fn an_mtu_of_0_is_none_and_one_out_of_range_is_refused() {
    let with_mtu = |mtu| {
        let context = ConnectionContext {
            mtu,
            ..Default::default()
        };
        connection_from_wire(wire::Connection {
            context: Some(context),
            ..bare()
        })
    };
    assert_eq!(with_mtu(0).unwrap().context.mtu, None);
    assert_eq!(with_mtu(1500).unwrap().context.mtu, Some(Mtu::ETHERNET));
    assert_eq!(with_mtu(1279).unwrap_err().field, "connection.context.MTU");
    assert_eq!(
        with_mtu(65_536).unwrap_err().field,
        "connection.context.MTU"
    );
}

#[test]
fn a_mistake_names_its_field() {
    let refused = |wire| connection_from_wire(wire).unwrap_err().field;
    let ip = WireIp {
        src_ip_addrs: vec!["10.0.0.1/32".into(), "10.0.0.300".into()],
        ..Default::default()
    };
    assert_eq!(
        refused(with_ip(ip)),
        "connection.context.ip_context.src_ip_addrs[1]"
    );
    let route = WireRoute {
        prefix: "10.0.0.0/8".into(),
        next_hop: "x".into(),
    };
    let ip = WireIp {
        dst_routes: vec![route],
        ..Default::default()
    };
    assert_eq!(
        refused(with_ip(ip)),
        "connection.context.ip_context.dst_routes[0].nextHop"
    );
    let segment = wire::PathSegment {
        expires: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..Default::default()
    };
    let path = wire::Path {
        index: 0,
        path_segments: vec![segment],
    };
    let connection = wire::Connection {
        path: Some(path),
        ..bare()
    };
    assert_eq!(
        refused(connection),
        "connection.path.path_segments[0].expires"
    );
    let connection = wire::Connection {
        network_service: String::new(),
        ..bare()
    };
    assert_eq!(refused(connection), "connection.network_service");
    assert_eq!(
        refused(wire::Connection { state: 9, ..bare() }),
        "connection.state"
    );
    let nothing = NetworkServiceRequest::default();
    assert_eq!(request_from_wire(nothing).unwrap_err().field, "connection");
}

#[test]
fn what_is_too_much_is_refused() {
    let refused = |wire| connection_from_wire(wire).unwrap_err().to_string();
    let path_segments = vec![wire::PathSegment::default(); Path::SEGMENTS_MAX + 1];
    let path = wire::Path {
        index: 0,
        path_segments,
    };
    assert!(
        refused(wire::Connection {
            path: Some(path),
            ..bare()
        })
        .contains("64 segments")
    );
    let excluded_prefixes = vec!["10.0.0.0/8".to_owned(); 4097];
    let ip = WireIp {
        excluded_prefixes,
        ..Default::default()
    };
    assert!(refused(with_ip(ip)).contains("4096"));
    let labels = (0..1025).map(|i| (i.to_string(), String::new())).collect();
    assert!(refused(wire::Connection { labels, ..bare() }).contains("1024"));
    let segment = wire::PathSegment {
        name: "x".repeat(513),
        ..Default::default()
    };
    let path = wire::Path {
        index: 0,
        path_segments: vec![segment],
    };
    assert!(
        refused(wire::Connection {
            path: Some(path),
            ..bare()
        })
        .contains("512")
    );
}

#[test]
fn a_token_that_is_too_long_is_not_repeated() {
    let segment = wire::PathSegment {
        token: "secret".repeat(4000),
        ..Default::default()
    };
    let path = wire::Path {
        index: 0,
        path_segments: vec![segment],
    };
    let error = path_from_wire(path).unwrap_err().to_string();
    assert!(
        error.contains("24000 bytes") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn times_are_those_of_protobuf() {
    let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    let read = |seconds, nanos| time_from_wire("t", wire(seconds, nanos));
    assert_eq!(
        read(-1, 500_000_000).unwrap(),
        UNIX_EPOCH - Duration::from_millis(500)
    );
    for (seconds, nanos) in [
        (0, -1),
        (0, 1_000_000_000),
        (253_402_300_800, 0),
        (i64::MIN, 0),
    ] {
        assert!(read(seconds, nanos).is_err(), "{seconds} {nanos}");
    }
    let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(time_to_wire(far), wire(253_402_300_799, 999_999_999));
    let early = UNIX_EPOCH - Duration::from_secs(1 << 40);
    assert_eq!(time_to_wire(early), wire(-62_135_596_800, 0));
}

#[test]
fn a_large_initial_state_is_sent_in_parts_that_clients_accept() {
    let connections = (0..300).map(|i| {
        let id = ConnectionId::new(format!("{i:03}")).unwrap();
        let mut connection = Connection::new(id, ServiceName::new("vl3").unwrap());
        connection.labels = [("note", "x".repeat(16 * 1024))].into_iter().collect();
        Arc::new(connection)
    });
    let connections: Vec<_> = connections.collect();
    let event = ConnectionEvent {
        kind: EventKind::InitialStateTransfer,
        connections,
    };
    let parts = events_to_wire(&event);
    assert!(parts.iter().all(|part| part.encoded_len() < 4 << 20));
    let parts: Vec<_> = parts
        .into_iter()
        .map(|part| event_from_wire(part).unwrap())
        .collect();
    let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [EventKind::InitialStateTransfer, EventKind::Update]);
    let all: Vec<_> = parts
        .into_iter()
        .flat_map(|part| part.connections)
        .collect();
    assert_eq!(all, event.connections);
}

#[test]
fn an_empty_initial_state_is_sent_too() {
    let event = ConnectionEvent {
        kind: EventKind::InitialStateTransfer,
        connections: Vec::new(),
    };
    assert_eq!(events_to_wire(&event).len(), 1);
}
