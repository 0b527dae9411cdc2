//! Between the wire and the types of this crate.

use std::collections::BTreeMap;
use std::time::SystemTime;

use carrick_proto::registry as proto;
use carrick_types::{EndpointName, Invalid, Labels, ServiceName};
use prost_types::Timestamp;

use crate::{Destination, Endpoint, EndpointQuery, Match, Service, ServiceQuery};

/// Largest message a server takes, in bytes. It bounds an entry: names, labels
/// and rules of any real endpoint fit many times over.
pub(crate) const MESSAGE_MAX: usize = 64 << 10;

const ENDPOINT: &str = "network_service_endpoint";
const SERVICE: &str = "network_service";

// === from the wire ===

pub(crate) fn endpoint(wire: proto::NetworkServiceEndpoint) -> Result<Endpoint, Invalid> {
    Ok(Endpoint {
        name: EndpointName::new(&wire.name)?,
        services: service_names(&wire.network_service_names)?,
        labels: labels(wire.network_service_labels)?,
        url: some(wire.url),
        expires: time("expiration_time", wire.expiration_time)?,
        registered_at: time("initial_registration_time", wire.initial_registration_time)?,
        path_ids: wire.path_ids,
    })
}

pub(crate) fn service(wire: proto::NetworkService) -> Result<Service, Invalid> {
    Ok(Service {
        name: ServiceName::new(&wire.name)?,
        payload: wire.payload.into(),
        matches: wire.matches.into_iter().map(rule).collect(),
        path_ids: wire.path_ids,
    })
}

pub(crate) fn endpoint_query(
    wire: Option<proto::NetworkServiceEndpoint>,
) -> Result<EndpointQuery, Invalid> {
    let wire = wire.unwrap_or_default();
    Ok(EndpointQuery {
        name: some(wire.name).map(EndpointName::new).transpose()?,
        services: service_names(&wire.network_service_names)?,
        labels: labels(wire.network_service_labels)?,
        url: some(wire.url),
    })
}

pub(crate) fn service_query(wire: Option<proto::NetworkService>) -> Result<ServiceQuery, Invalid> {
    let wire = wire.unwrap_or_default();
    Ok(ServiceQuery {
        name: some(wire.name).map(ServiceName::new).transpose()?,
        payload: some(wire.payload).map(Into::into),
    })
}

fn rule(wire: proto::Match) -> Match {
    let destination = |wire: proto::Destination| Destination {
        destination_selector: Labels(wire.destination_selector),
        weight: wire.weight,
    };
    Match {
        source_selector: Labels(wire.source_selector),
        routes: wire.routes.into_iter().map(destination).collect(),
        fallthrough: wire.fallthrough,
        metadata: wire.metadata.map(|metadata| Labels(metadata.labels)),
    }
}

fn service_names(wire: &[String]) -> Result<Vec<ServiceName>, Invalid> {
    let names = wire.iter().map(ServiceName::new);
    names
        .map(|name| name.map_err(|invalid| invalid.within(ENDPOINT)))
        .collect()
}

fn labels(
    wire: BTreeMap<String, proto::NetworkServiceLabels>,
) -> Result<BTreeMap<ServiceName, Labels>, Invalid> {
    let labels = wire.into_iter().map(|(service, labels)| {
        let service = ServiceName::new(service).map_err(|invalid| invalid.within(ENDPOINT))?;
        Ok((service, Labels(labels.labels)))
    });
    labels.collect()
}

fn time(field: &str, wire: Option<Timestamp>) -> Result<Option<SystemTime>, Invalid> {
    let time = |wire: Timestamp| {
        SystemTime::try_from(wire).map_err(|_| {
            let value = format!("{} s {} ns", wire.seconds, wire.nanos);
            Invalid::new(field, value, "a time after 1970").within(ENDPOINT)
        })
    };
    wire.map(time).transpose()
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// What an answer must contain.
pub(crate) fn endpoint_found(
    wire: Option<proto::NetworkServiceEndpoint>,
) -> Result<Endpoint, Invalid> {
    endpoint(wire.ok_or_else(|| Invalid::new(ENDPOINT, "", "an endpoint"))?)
}

/// What an answer must contain.
pub(crate) fn service_found(wire: Option<proto::NetworkService>) -> Result<Service, Invalid> {
    service(wire.ok_or_else(|| Invalid::new(SERVICE, "", "a service"))?)
}

// === to the wire ===

pub(crate) fn to_endpoint(endpoint: &Endpoint) -> proto::NetworkServiceEndpoint {
    proto::NetworkServiceEndpoint {
        name: endpoint.name.to_string(),
        network_service_names: texts(&endpoint.services),
        network_service_labels: to_labels(&endpoint.labels),
        url: endpoint.url.clone().unwrap_or_default(),
        expiration_time: endpoint.expires.map(Timestamp::from),
        initial_registration_time: endpoint.registered_at.map(Timestamp::from),
        path_ids: endpoint.path_ids.clone(),
    }
}

pub(crate) fn to_service(service: &Service) -> proto::NetworkService {
    proto::NetworkService {
        name: service.name.to_string(),
        payload: service.payload.to_string(),
        matches: service.matches.iter().map(to_match).collect(),
        path_ids: service.path_ids.clone(),
    }
}

pub(crate) fn to_endpoint_query(
    query: &EndpointQuery,
    watch: bool,
) -> proto::NetworkServiceEndpointQuery {
    let endpoint = proto::NetworkServiceEndpoint {
        name: text(query.name.as_ref()),
        network_service_names: texts(&query.services),
        network_service_labels: to_labels(&query.labels),
        url: query.url.clone().unwrap_or_default(),
        ..proto::NetworkServiceEndpoint::default()
    };
    proto::NetworkServiceEndpointQuery {
        network_service_endpoint: Some(endpoint),
        watch,
    }
}

pub(crate) fn to_service_query(query: &ServiceQuery, watch: bool) -> proto::NetworkServiceQuery {
    let service = proto::NetworkService {
        name: text(query.name.as_ref()),
        payload: text(query.payload.as_ref()),
        ..proto::NetworkService::default()
    };
    proto::NetworkServiceQuery {
        network_service: Some(service),
        watch,
    }
}

fn to_match(rule: &Match) -> proto::Match {
    let destination = |destination: &Destination| proto::Destination {
        destination_selector: destination.destination_selector.0.clone(),
        weight: destination.weight,
    };
    proto::Match {
        source_selector: rule.source_selector.0.clone(),
        routes: rule.routes.iter().map(destination).collect(),
        fallthrough: rule.fallthrough,
        metadata: rule
            .metadata
            .clone()
            .map(|Labels(labels)| proto::Metadata { labels }),
    }
}

fn to_labels(
    labels: &BTreeMap<ServiceName, Labels>,
) -> BTreeMap<String, proto::NetworkServiceLabels> {
    let wire = |labels: &Labels| proto::NetworkServiceLabels {
        labels: labels.0.clone(),
    };
    labels
        .iter()
        .map(|(service, labels)| (service.to_string(), wire(labels)))
        .collect()
}

fn texts<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(T::to_string).collect()
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_endpoint_comes_back_from_the_wire_as_it_was() {
        let vl3 = ServiceName::new("vl3").unwrap();
        let endpoint = Endpoint {
            name: EndpointName::new("nse-1").unwrap(),
            labels: [(vl3.clone(), [("app", "web")].into_iter().collect())].into(),
            services: vec![vl3],
            url: Some("tcp://127.0.0.1:5003".into()),
            expires: Some(UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            registered_at: Some(UNIX_EPOCH + Duration::from_secs(1_600_000_000)),
            path_ids: vec!["spiffe://example.org/nse".into()],
        };
        assert_eq!(super::endpoint(to_endpoint(&endpoint)), Ok(endpoint));
    }

    #[test]
    fn a_service_comes_back_from_the_wire_as_it_was() {
        let service = Service {
            matches: vec![Match {
                source_selector: [("app", "nsc")].into_iter().collect(),
                routes: vec![Destination {
                    destination_selector: [("node", "{{ .nodeName }}")].into_iter().collect(),
                    weight: 3,
                }],
                fallthrough: true,
                metadata: Some([("policy", "a")].into_iter().collect()),
            }],
            ..Service::new(ServiceName::new("vl3").unwrap())
        };
        assert_eq!(super::service(to_service(&service)), Ok(service));
    }

    #[test]
    fn a_query_comes_back_from_the_wire_as_it_was() {
        let query = EndpointQuery::by_service(ServiceName::new("vl3").unwrap());
        let wire = to_endpoint_query(&query, true);
        assert!(wire.watch);
        assert_eq!(endpoint_query(wire.network_service_endpoint), Ok(query));
        assert_eq!(endpoint_query(None), Ok(EndpointQuery::default()));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let wire = proto::NetworkServiceEndpoint {
            name: "a".into(),
            expiration_time: Some(Timestamp {
                seconds: i64::MIN,
                nanos: 0,
            }),
            ..Default::default()
        };
        let error = endpoint(wire).unwrap_err();
        assert_eq!(error.field, "network_service_endpoint.expiration_time");
        assert!(
            endpoint(proto::NetworkServiceEndpoint::default()).is_err(),
            "no name"
        );
    }
}
