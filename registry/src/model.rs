use std::collections::BTreeMap;
use std::time::SystemTime;

use carrick_types::{EndpointName, Labels, Payload, ServiceName};
use serde::{Deserialize, Serialize};

/// A network service: its name and how its clients are led to endpoints
/// (`registry.NetworkService`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, unique in its domain.
    pub name: ServiceName,
    /// What its links carry; IP if the one who registers it says nothing (NSM `setpayload`).
    pub payload: Payload,
    /// Rules tried in order; without any, each endpoint serves each client.
    pub matches: Vec<Match>,
    /// Identities of those who registered it, the owner first.
    pub path_ids: Vec<String>,
}

impl Service {
    /// A service that carries IP and leads every client to every endpoint.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            payload: Payload::default(),
            matches: Vec::new(),
            path_ids: Vec::new(),
        }
    }
}

/// One rule of a [`Service`]: clients of a kind go to endpoints of a kind
/// (`registry.Match`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Labels a client must have; none takes every client.
    pub source_selector: Labels,
    /// Labels endpoints must have, one set for each destination. A value may
    /// be a template over the client's labels: `{{ .nodeName }}`.
    pub routes: Vec<Destination>,
    /// Whether the rules behind are tried when no endpoint fits this one.
    pub fallthrough: bool,
    /// Labels that connections of such clients get.
    pub metadata: Option<Labels>,
}

/// Endpoints a [`Match`] leads to (`registry.Destination`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Labels the endpoint must have for the service.
    pub destination_selector: Labels,
    /// Share among the destinations; kept, but not read by NSM v1.
    pub weight: u32,
}

/// A network service endpoint (`registry.NetworkServiceEndpoint`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name, unique in its domain.
    pub name: EndpointName,
    /// The services it serves.
    pub services: Vec<ServiceName>,
    /// Its labels for each of its services.
    pub labels: BTreeMap<ServiceName, Labels>,
    /// Where it listens: `tcp://10.0.0.7:5003`, `unix:///run/nse.sock`.
    pub url: Option<String>,
    /// When it is forgotten unless it is registered again. In a registration
    /// a wish, which the registry may shorten.
    #[serde(with = "carrick_types::rfc3339::option")]
    pub expires: Option<SystemTime>,
    /// When it was registered first; peers order themselves by it.
    #[serde(with = "carrick_types::rfc3339::option")]
    pub registered_at: Option<SystemTime>,
    /// Identities of those who registered it, the owner first.
    pub path_ids: Vec<String>,
}

impl Endpoint {
    /// The label by which an endpoint shows that it is the same one after a
    /// restart: a text that only it uses, such as the fingerprint of its key.
    ///
    /// It stands among the labels of any of its services. Where identities are
    /// proved, `path_ids` say the same with more weight.
    pub const KEY_LABEL: &'static str = "carrick.io/key";

    /// An endpoint without labels and URL.
    #[must_use]
    pub fn new(name: EndpointName, services: impl IntoIterator<Item = ServiceName>) -> Self {
        Self {
            name,
            services: services.into_iter().collect(),
            labels: BTreeMap::new(),
            url: None,
            expires: None,
            registered_at: None,
            path_ids: Vec::new(),
        }
    }

    /// Its labels for one service.
    #[must_use]
    pub fn labels_for(&self, service: &str) -> Option<&Labels> {
        self.labels.get(service)
    }

    /// The value of its [`KEY_LABEL`](Self::KEY_LABEL).
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        let mut labels = self.labels.values();
        labels.find_map(|labels| labels.value(Self::KEY_LABEL))
    }

    /// The identity of who registered it first.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.path_ids.first().map(String::as_str)
    }

    /// Whether both come from one and the same endpoint, as far as they tell:
    /// by key, else by owner, else by URL. One URL cannot be two endpoints'.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        if self.url.is_some() && self.url == other.url {
            return true;
        }
        let by_key = self.key().zip(other.key());
        let by_owner = self.owner().zip(other.owner());
        match by_key.or(by_owner) {
            Some((ours, theirs)) => ours == theirs,
            None => self.url == other.url,
        }
    }
}

/// Selects endpoints. What is empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointQuery {
    /// The name as a whole.
    pub name: Option<EndpointName>,
    /// Services of which it must serve each.
    pub services: Vec<ServiceName>,
    /// Labels it must have, for each of these services.
    pub labels: BTreeMap<ServiceName, Labels>,
    /// A part of its URL.
    pub url: Option<String>,
}

impl EndpointQuery {
    /// Asks for one endpoint.
    #[must_use]
    pub fn by_name(name: EndpointName) -> Self {
        Self {
            name: Some(name),
            ..Self::default()
        }
    }

    /// Asks for the endpoints of a service.
    #[must_use]
    pub fn by_service(service: ServiceName) -> Self {
        Self {
            services: vec![service],
            ..Self::default()
        }
    }

    /// Whether it asks for `endpoint` (NSM `matchutils`, with names exact).
    #[must_use]
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        let labels = |(service, want): (&ServiceName, &Labels)| {
            endpoint
                .labels
                .get(service)
                .is_some_and(|has| want.is_subset_of(has))
        };
        self.name.as_ref().is_none_or(|name| *name == endpoint.name)
            && self
                .services
                .iter()
                .all(|service| endpoint.services.contains(service))
            && self.labels.iter().all(labels)
            && self.url.as_deref().is_none_or(|part| {
                endpoint
                    .url
                    .as_deref()
                    .is_some_and(|url| url.contains(part))
            })
    }
}

/// Selects services. What is empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceQuery {
    /// The name as a whole.
    pub name: Option<ServiceName>,
    /// What its links carry.
    pub payload: Option<Payload>,
}

impl ServiceQuery {
    /// Asks for one service.
    #[must_use]
    pub fn by_name(name: ServiceName) -> Self {
        Self {
            name: Some(name),
            payload: None,
        }
    }

    /// Whether it asks for `service`.
    #[must_use]
    pub fn matches(&self, service: &Service) -> bool {
        self.name.as_ref().is_none_or(|name| *name == service.name)
            && self
                .payload
                .as_ref()
                .is_none_or(|payload| *payload == service.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        let services = ["vl3", "dns"].map(|name| ServiceName::new(name).unwrap());
        let mut endpoint = Endpoint::new(EndpointName::new("nse-1").unwrap(), services);
        let labels = [("app", "web"), ("zone", "a")].into_iter().collect();
        endpoint
            .labels
            .insert(ServiceName::new("vl3").unwrap(), labels);
        endpoint.url = Some("tcp://10.0.0.7:5003".into());
        endpoint
    }

    fn with_key(key: &str) -> Endpoint {
        let mut endpoint = endpoint();
        let labels = endpoint.labels.values_mut().next().unwrap();
        labels.0.insert(Endpoint::KEY_LABEL.into(), key.into());
        endpoint
    }

    #[test]
    fn a_query_without_wishes_finds_everything() {
        assert!(EndpointQuery::default().matches(&endpoint()));
    }

    #[test]
    fn a_name_is_asked_for_as_a_whole() {
        let asks = |name| EndpointQuery::by_name(EndpointName::new(name).unwrap());
        assert!(asks("nse-1").matches(&endpoint()));
        assert!(!asks("nse").matches(&endpoint()));
    }

    #[test]
    fn every_service_asked_for_must_be_served() {
        let mut query = EndpointQuery::by_service(ServiceName::new("dns").unwrap());
        assert!(query.matches(&endpoint()));
        query.services.push(ServiceName::new("lb").unwrap());
        assert!(!query.matches(&endpoint()));
    }

    #[test]
    fn labels_are_asked_for_by_service_and_in_part() {
        let asks = |service, labels: &[(&str, &str)]| EndpointQuery {
            labels: [(
                ServiceName::new(service).unwrap(),
                labels.iter().copied().collect(),
            )]
            .into(),
            ..EndpointQuery::default()
        };
        assert!(asks("vl3", &[("app", "web")]).matches(&endpoint()));
        assert!(!asks("vl3", &[("app", "db")]).matches(&endpoint()));
        assert!(!asks("dns", &[("app", "web")]).matches(&endpoint()));
    }

    #[test]
    fn a_url_is_asked_for_in_part() {
        let asks = |url: &str| EndpointQuery {
            url: Some(url.into()),
            ..EndpointQuery::default()
        };
        assert!(asks("10.0.0.7").matches(&endpoint()));
        assert!(!asks("10.0.0.8").matches(&endpoint()));
        assert!(!asks("tcp").matches(&Endpoint {
            url: None,
            ..endpoint()
        }));
    }

    #[test]
    fn an_endpoint_with_its_key_is_the_same_at_another_url() {
        let moved = |mut endpoint: Endpoint| {
            endpoint.url = Some("tcp://10.0.0.8:5003".into());
            endpoint
        };
        assert!(with_key("a").is_same_as(&moved(with_key("a"))));
        assert!(!with_key("a").is_same_as(&moved(with_key("b"))));
        assert!(with_key("a").is_same_as(&with_key("b")), "one URL");
        assert!(!endpoint().is_same_as(&moved(endpoint())));
    }

    #[test]
    fn an_owner_is_the_same_at_another_url_unless_keys_differ() {
        let owned = |mut endpoint: Endpoint, owner: &str, url: &str| {
            endpoint.path_ids = vec![owner.into()];
            endpoint.url = Some(url.into());
            endpoint
        };
        let here = owned(endpoint(), "spiffe://a", "tcp://1");
        assert!(here.is_same_as(&owned(endpoint(), "spiffe://a", "tcp://2")));
        assert!(!here.is_same_as(&owned(endpoint(), "spiffe://b", "tcp://2")));
        let keyed = owned(with_key("a"), "spiffe://a", "tcp://1");
        assert!(!keyed.is_same_as(&owned(with_key("b"), "spiffe://a", "tcp://2")));
    }
}
