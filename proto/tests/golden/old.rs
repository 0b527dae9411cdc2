//! NSM v0.2, whose Request, Close and monitor have the paths and mostly the numbers of
//! v1. Source: networkservicemesh/api 69bf0a8fb131982e630f3403077f64b8b031492e
//! `pkg/api/connection` and 0623273c4e70ea80e64087a7a9ff217c9dbdb358
//! `pkg/api/connectioncontext`.

use carrick_proto::connection::{Connection, MonitorScopeSelector, State};
use carrick_proto::networkservice::NetworkServiceRequest;
use prost::Message as _;

use crate::map;
use crate::wire::Wire;

/// One address each (a single string), no payload, a mechanism of the old name.
fn connection(state: u64) -> Wire {
    let ip = Wire::new()
        .text(1, "10.60.1.1/30")
        .text(2, "10.60.1.2/30")
        .number(3, 1)
        .number(4, 1)
        .message(6, &Wire::new().text(1, "10.60.0.0/16"))
        .text(7, "10.96.0.0/12");
    let segment = Wire::new()
        .text(1, "nsc")
        .text(2, "1")
        .text(3, "")
        .timestamp(4, 1_580_000_000, 1);
    let connection = Wire::new()
        .text(1, "1")
        .text(2, "icmp-responder")
        .message(3, &mechanism())
        .message(4, &Wire::new().message(1, &ip))
        .entry(5, "app", "icmp")
        .message(6, &Wire::new().message(2, &segment))
        .text(7, "icmp-responder-nse-1");
    if state == 0 {
        connection
    } else {
        connection.number(9, state)
    }
}

fn mechanism() -> Wire {
    Wire::new()
        .text(1, "LOCAL")
        .text(2, "KERNEL_INTERFACE")
        .entry(3, "name", "nsm0")
        .entry(3, "netnsInode", "4026532197")
}

#[test]
fn a_request_of_v0_2_is_understood() {
    let bytes = Wire::new()
        .message(1, &connection(0))
        .message(2, &mechanism());
    let request = NetworkServiceRequest::decode(bytes.as_bytes()).unwrap();

    let offered = &request.mechanism_preferences[0];
    assert_eq!(
        (offered.cls.as_str(), offered.r#type.as_str()),
        ("LOCAL", "KERNEL_INTERFACE")
    );
    let parameters = map([
        ("name", "nsm0".to_owned()),
        ("netnsInode", "4026532197".to_owned()),
    ]);
    assert_eq!(offered.parameters, parameters);

    let connection = request.connection.unwrap();
    assert_eq!(connection.network_service, "icmp-responder");
    assert_eq!(
        connection.network_service_endpoint_name,
        "icmp-responder-nse-1"
    );
    assert_eq!(connection.payload, "");
    assert_eq!(connection.state(), State::Up);
    assert_eq!(connection.labels["app"], "icmp");

    let path = connection.path.unwrap();
    assert_eq!(
        (path.index, path.path_segments[0].name.as_str()),
        (0, "nsc")
    );
    assert_eq!(
        path.path_segments[0].expires.unwrap().seconds,
        1_580_000_000
    );
    assert!(path.path_segments[0].metrics.is_empty());

    let ip = connection.context.unwrap().ip_context.unwrap();
    assert_eq!(ip.src_ip_addrs, ["10.60.1.1/30"]);
    assert_eq!(ip.dst_ip_addrs, ["10.60.1.2/30"]);
    assert!(ip.src_ip_required && ip.dst_ip_required);
    assert_eq!(
        (
            ip.dst_routes[0].prefix.as_str(),
            ip.dst_routes[0].next_hop.as_str()
        ),
        ("10.60.0.0/16", "")
    );
    assert_eq!(ip.excluded_prefixes, ["10.96.0.0/12"]);
}

#[test]
fn a_close_of_v0_2_is_understood() {
    let connection = Connection::decode(connection(1).as_bytes()).unwrap();
    assert_eq!(connection.id, "1");
    assert_eq!(connection.state(), State::Down);
    assert_eq!(connection.mechanism.unwrap().r#type, "KERNEL_INTERFACE");
}

#[test]
fn a_monitor_selector_of_v0_2_is_understood() {
    let bytes = Wire::new().message(1, &Wire::new().text(1, "nsmgr-1"));
    let selector = MonitorScopeSelector::decode(bytes.as_bytes()).unwrap();
    assert_eq!(selector.path_segments[0].name, "nsmgr-1");
    assert!(selector.network_services.is_empty());
}
