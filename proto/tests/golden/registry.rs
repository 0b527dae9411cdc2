use carrick_proto::registry::{
    Destination, Match, Metadata, NetworkService, NetworkServiceEndpoint,
    NetworkServiceEndpointQuery, NetworkServiceEndpointResponse, NetworkServiceLabels,
    NetworkServiceQuery, NetworkServiceResponse,
};
use prost_types::Timestamp;

use crate::wire::Wire;
use crate::{check, map, strings};

fn endpoint_bytes() -> Wire {
    let vl3 = Wire::new()
        .entry(1, "app", "vl3")
        .entry(1, "nodeName", "node-1");
    Wire::new()
        .text(1, "nse-1")
        .text(2, "lb")
        .text(2, "vl3")
        .entry_of(3, "lb", &Wire::new().entry(1, "app", "lb"))
        .entry_of(3, "vl3", &vl3)
        .text(4, "tcp://10.1.0.7:5003")
        .timestamp(5, 1_900_000_600, 7)
        .timestamp(6, 1_900_000_000, 9)
        .text(7, "spiffe://example.org/nse")
        .text(7, "spiffe://example.org/nsmgr")
}

fn endpoint() -> NetworkServiceEndpoint {
    let labels = |labels| NetworkServiceLabels { labels };
    NetworkServiceEndpoint {
        name: "nse-1".into(),
        network_service_names: strings(["lb", "vl3"]),
        network_service_labels: map([
            ("lb", labels(map([("app", "lb".into())]))),
            (
                "vl3",
                labels(map([("app", "vl3".into()), ("nodeName", "node-1".into())])),
            ),
        ]),
        url: "tcp://10.1.0.7:5003".into(),
        expiration_time: Some(Timestamp {
            seconds: 1_900_000_600,
            nanos: 7,
        }),
        initial_registration_time: Some(Timestamp {
            seconds: 1_900_000_000,
            nanos: 9,
        }),
        path_ids: strings(["spiffe://example.org/nse", "spiffe://example.org/nsmgr"]),
    }
}

fn service_bytes() -> Wire {
    let routes = Wire::new()
        .entry(1, "nodeName", "{{ .nodeName }}")
        .number(2, 3);
    let matched = Wire::new()
        .entry(1, "app", "web")
        .message(2, &routes)
        .number(3, 1)
        .message(4, &Wire::new().entry(1, "tier", "gold"));
    Wire::new()
        .text(1, "vl3")
        .text(2, "IP")
        .message(3, &matched)
        .text(4, "spiffe://example.org/admin")
}

fn service() -> NetworkService {
    NetworkService {
        name: "vl3".into(),
        payload: "IP".into(),
        matches: vec![Match {
            source_selector: map([("app", "web".into())]),
            routes: vec![Destination {
                destination_selector: map([("nodeName", "{{ .nodeName }}".into())]),
                weight: 3,
            }],
            fallthrough: true,
            metadata: Some(Metadata {
                labels: map([("tier", "gold".into())]),
            }),
        }],
        path_ids: strings(["spiffe://example.org/admin"]),
    }
}

#[test]
fn an_endpoint_keeps_its_labels_and_times() {
    check(&endpoint_bytes(), &endpoint());
}

#[test]
fn a_network_service_keeps_its_matches() {
    check(&service_bytes(), &service());
}

#[test]
fn finding_endpoints_asks_and_answers_with_endpoints() {
    let query = NetworkServiceEndpointQuery {
        network_service_endpoint: Some(endpoint()),
        watch: true,
    };
    check(
        &Wire::new().message(1, &endpoint_bytes()).number(2, 1),
        &query,
    );
    let response = NetworkServiceEndpointResponse {
        network_service_endpoint: Some(endpoint()),
        deleted: true,
    };
    check(
        &Wire::new().message(1, &endpoint_bytes()).number(2, 1),
        &response,
    );
}

#[test]
fn finding_services_asks_and_answers_with_services() {
    let query = NetworkServiceQuery {
        network_service: Some(service()),
        watch: true,
    };
    check(
        &Wire::new().message(1, &service_bytes()).number(2, 1),
        &query,
    );
    let response = NetworkServiceResponse {
        network_service: Some(service()),
        deleted: true,
    };
    check(
        &Wire::new().message(1, &service_bytes()).number(2, 1),
        &response,
    );
}
