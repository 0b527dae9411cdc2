//! What registries tell about the other endpoints of the service.

use std::future::ready;

use carrick_registry::{Client, EndpointQuery, Event};
use carrick_types::{Labels, Mechanism, ServiceName};
use carrick_vl3::Vl3;
use carrick_vl3::peers::{Discovery, Domain, Endpoint, PeerId};
use futures::StreamExt;
use futures::stream::BoxStream;

/// Follows the endpoints of `service` in one domain.
pub(crate) fn follow(
    vl3: &Vl3,
    registry: &Client,
    domain: Domain,
    service: ServiceName,
) -> BoxStream<'static, Discovery> {
    let query = EndpointQuery {
        services: vec![service.clone()],
        ..EndpointQuery::default()
    };
    let events = registry.watch_endpoints(query);
    let failed = vl3.metrics().failed_finds.clone();
    events
        .filter_map(move |event| {
            let told = told(event, &domain, &service);
            if told.is_none() {
                failed.inc();
            }
            ready(told)
        })
        .boxed()
}

/// What an event says of the peers; nothing where the registry could not be asked.
fn told(event: Event, domain: &Domain, service: &ServiceName) -> Option<Discovery> {
    Some(match event {
        Event::Failed => return None,
        Event::Deleted(name) => Discovery::Gone(PeerId::new(name, domain.clone())),
        Event::Synced => Discovery::Synced(domain.clone()),
        Event::Updated(endpoint) => {
            let labels = endpoint
                .labels_for(service.as_str())
                .cloned()
                .unwrap_or_default();
            Discovery::Seen(Endpoint {
                id: PeerId::new(endpoint.name, domain.clone()),
                url: endpoint.url.unwrap_or_default(),
                registered_at: endpoint.registered_at,
                node: node(&labels),
                labels,
            })
        }
    })
}

/// The node of an endpoint (NSM `clientinfo`).
fn node(labels: &Labels) -> Option<String> {
    labels.value(Mechanism::NODE_NAME).map(str::to_owned)
}
