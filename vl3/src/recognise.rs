//! Whether a Request comes from another endpoint of the service, and whether
//! that is proven.

use carrick_types::Connection;

use crate::peers::Domain;
use crate::peers::{Endpoint, PeerId};

/// Label by which an endpoint says that a Request comes from it, with its name.
pub const PEER_LABEL: &str = "vl3Nse/nseSource/endpointName";

/// How strictly peers are told from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecogniseOptions {
    /// Let only those in whose registration publishes a key
    /// ([`Endpoint::KEY`]). Go endpoints publish none.
    pub require_keys: bool,
    /// Let in also those that no registry we ask knows, as happens when they
    /// know our domain and we do not know theirs. Anybody can claim that.
    pub allow_unregistered: bool,
}

/// What a Request turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Of a client.
    Client,
    /// Of somebody who claims to be a peer and is not.
    Forged(Forgery),
    /// Of a peer.
    Peer(PeerId),
}

/// What is wrong with a claim to be a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Forgery {
    /// The token does not verify with the key that the endpoint published.
    #[error("its token is not signed with the key that this endpoint registered")]
    BadToken,
    /// The label names another endpoint than the path.
    #[error("the label {PEER_LABEL} and the first path segment name different endpoints")]
    Mismatch,
    /// The endpoint published no key, and one is required.
    #[error("this endpoint registered no key, and one is required")]
    NoKey,
    /// The connection was a client's until now.
    #[error("this connection was made as a client's")]
    TurnedPeer,
    /// No registry knows such an endpoint.
    #[error("no registry knows this endpoint")]
    Unregistered,
}

impl Forgery {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::BadToken,
        Self::Mismatch,
        Self::NoKey,
        Self::TurnedPeer,
        Self::Unregistered,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadToken => "bad_token",
            Self::Mismatch => "mismatch",
            Self::NoKey => "no_key",
            Self::TurnedPeer => "turned_peer",
            Self::Unregistered => "unregistered",
        }
    }
}

/// Tells peers from clients.
///
/// A Request claims to be a peer's if its first path segment bears the name of
/// one of the `known` endpoints, or if it has [`PEER_LABEL`]. The claim holds
/// if the token of that segment verifies with the key that the registration
/// publishes; `verify` is given the token and the key. A registration without
/// key is believed, unless keys are required, since Go endpoints have none.
#[must_use]
pub fn recognise<'a>(
    request: &Connection,
    known: impl IntoIterator<Item = &'a Endpoint>,
    options: RecogniseOptions,
    verify: &dyn Fn(&str, &str) -> bool,
) -> Recognition {
    let Some(first) = request.path.client() else {
        return Recognition::Client;
    };
    let label = request.labels.value(PEER_LABEL);
    let named: Vec<_> = known
        .into_iter()
        .filter(|endpoint| endpoint.id.name.as_str() == first.name)
        .collect();
    if label.is_some_and(|label| label != first.name) {
        return Recognition::Forged(Forgery::Mismatch);
    }
    if named.is_empty() {
        return match label.and_then(|name| carrick_types::EndpointName::new(name).ok()) {
            Some(name) if options.allow_unregistered => {
                Recognition::Peer(PeerId::new(name, Domain::own()))
            }
            Some(_) => Recognition::Forged(Forgery::Unregistered),
            None => Recognition::Client,
        };
    }
    proven(&named, &first.token, options, verify)
}

/// Which of the endpoints of one name it is: one whose key fits, else one without key.
fn proven(
    named: &[&Endpoint],
    token: &str,
    options: RecogniseOptions,
    verify: &dyn Fn(&str, &str) -> bool,
) -> Recognition {
    let fits = |endpoint: &&&Endpoint| endpoint.key().is_some_and(|key| verify(token, key));
    let keyless = |endpoint: &&&Endpoint| endpoint.key().is_none();
    if let Some(endpoint) = named.iter().find(fits) {
        return Recognition::Peer(endpoint.id.clone());
    }
    match named.iter().find(keyless) {
        Some(_) if options.require_keys => Recognition::Forged(Forgery::NoKey),
        Some(endpoint) => Recognition::Peer(endpoint.id.clone()),
        None => Recognition::Forged(Forgery::BadToken),
    }
}

#[cfg(test)]
mod tests {
    use carrick_types::{ConnectionId, EndpointName, Labels, PathSegment, ServiceName};

    use super::*;

    fn request(name: &str, token: &str) -> Connection {
        let id = ConnectionId::new("c").unwrap();
        let mut request = Connection::new(id, ServiceName::new("vl3").unwrap());
        let (name, token) = (name.into(), token.into());
        request.path.segments.push(PathSegment {
            name,
            token,
            ..PathSegment::default()
        });
        request
    }

    fn labelled(name: &str, token: &str, label: &str) -> Connection {
        let mut request = request(name, token);
        request.labels.0.insert(PEER_LABEL.into(), label.into());
        request
    }

    fn endpoint(name: &str, domain: &str, key: Option<&str>) -> Endpoint {
        Endpoint {
            id: PeerId::new(EndpointName::new(name).unwrap(), Domain::named(domain)),
            url: String::new(),
            registered_at: None,
            node: None,
            labels: key
                .map(|key| (Endpoint::KEY, key))
                .into_iter()
                .collect::<Labels>(),
        }
    }

    /// A token verifies with the key that is its text.
    fn ask(request: &Connection, known: &[Endpoint], options: RecogniseOptions) -> Recognition {
        recognise(request, known, options, &|token, key| token == key)
    }

    fn usual(request: &Connection, known: &[Endpoint]) -> Recognition {
        ask(request, known, RecogniseOptions::default())
    }

    #[test]
    fn a_client_is_a_client() {
        assert_eq!(
            usual(&request("nsc", ""), &[endpoint("a", "", None)]),
            Recognition::Client
        );
    }

    #[test]
    fn a_client_with_a_forged_label_is_found_out() {
        let known = [endpoint("a", "", None)];
        let forged = |label| usual(&labelled("nsc", "", label), &known);
        assert_eq!(forged("nsc"), Recognition::Forged(Forgery::Unregistered));
        assert_eq!(forged("a"), Recognition::Forged(Forgery::Mismatch));
    }

    #[test]
    fn a_client_that_takes_a_peers_name_needs_its_key_too() {
        let known = [endpoint("a", "", Some("secret"))];
        assert_eq!(
            usual(&request("a", "guess"), &known),
            Recognition::Forged(Forgery::BadToken)
        );
        assert_eq!(
            usual(&request("a", "secret"), &known),
            Recognition::Peer(known[0].id.clone())
        );
    }

    #[test]
    fn an_endpoint_without_key_is_believed_unless_keys_are_required() {
        let known = [endpoint("a", "", None)];
        let strict = RecogniseOptions {
            require_keys: true,
            ..RecogniseOptions::default()
        };
        assert_eq!(
            usual(&request("a", ""), &known),
            Recognition::Peer(known[0].id.clone())
        );
        assert_eq!(
            ask(&request("a", ""), &known, strict),
            Recognition::Forged(Forgery::NoKey)
        );
    }

    #[test]
    fn of_namesakes_in_two_domains_the_key_says_which_it_is() {
        let known = [
            endpoint("a", "c2", Some("two")),
            endpoint("a", "c3", Some("three")),
        ];
        assert_eq!(
            usual(&request("a", "three"), &known),
            Recognition::Peer(known[1].id.clone())
        );
    }

    #[test]
    fn an_unregistered_endpoint_is_let_in_only_if_that_is_allowed() {
        let open = RecogniseOptions {
            allow_unregistered: true,
            ..RecogniseOptions::default()
        };
        assert!(matches!(
            ask(&labelled("x", "", "x"), &[], open),
            Recognition::Peer(_)
        ));
        assert_eq!(
            usual(&labelled("x", "", "x"), &[]),
            Recognition::Forged(Forgery::Unregistered)
        );
    }
}
