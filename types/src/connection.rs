use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ConnectionId, Context, EndpointName, Labels, Mechanism, Path, ServiceName};

/// A connection to a network service, as a Request asks for it and as the
/// endpoint answers it (NSM `connection.Connection`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its identity at this hop.
    pub id: ConnectionId,
    /// The service asked for.
    pub network_service: ServiceName,
    /// The endpoint that shall serve it, where one is named.
    pub endpoint: Option<EndpointName>,
    /// How its link is made, once chosen.
    pub mechanism: Option<Mechanism>,
    /// What the caller would take, best first
    /// (`NetworkServiceRequest.mechanism_preferences`); empty in an answer.
    pub preferences: Vec<Mechanism>,
    /// Addresses, routes, name servers, MTU.
    pub context: Context,
    /// Labels of the client.
    pub labels: Labels,
    /// The hops between client and endpoint.
    pub path: Path,
    /// What the link carries.
    pub payload: Payload,
    /// How it is.
    pub state: State,
}

impl Connection {
    /// A connection of which nothing is known but whose it is and what for.
    #[must_use]
    pub fn new(id: ConnectionId, network_service: ServiceName) -> Self {
        Self {
            id,
            network_service,
            endpoint: None,
            mechanism: None,
            preferences: Vec::new(),
            context: Context::default(),
            labels: Labels::default(),
            path: Path::default(),
            payload: Payload::Ip,
            state: State::Up,
        }
    }

    /// The name of the client that the connection is for: the first path
    /// segment's, which each hop leaves as it is.
    #[must_use]
    pub fn client_name(&self) -> Option<&str> {
        self.path.client().map(|segment| segment.name.as_str())
    }

    /// Whether `other` says the same, be it with newer tokens.
    #[must_use]
    pub fn is_same_but_for_tokens(&self, other: &Self) -> bool {
        let Self {
            id,
            network_service,
            endpoint,
            mechanism,
            preferences,
            context,
            labels,
            path,
            payload,
            state,
        } = self;
        (id, network_service, endpoint, mechanism)
            == (
                &other.id,
                &other.network_service,
                &other.endpoint,
                &other.mechanism,
            )
            && (preferences, context, labels) == (&other.preferences, &other.context, &other.labels)
            && (payload, state) == (&other.payload, &other.state)
            && path.is_same_but_for_tokens(&other.path)
    }
}

/// What a link carries (`Connection.payload`). An absent payload is IP (NSM `setpayload`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Payload {
    /// Ethernet frames.
    Ethernet,
    /// IP packets.
    #[default]
    Ip,
    /// A word that this version does not know; carried on unchanged.
    Other(String),
}

impl Payload {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ethernet => "ETHERNET",
            Self::Ip => "IP",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for Payload {
    fn from(word: String) -> Self {
        match word.as_str() {
            "ETHERNET" => Self::Ethernet,
            "" | "IP" => Self::Ip,
            _ => Self::Other(word),
        }
    }
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        payload.as_str().to_owned()
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection is (`connection.State`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// It works.
    #[default]
    Up,
    /// It does not; the client should heal.
    Down,
    /// The endpoint asks its client for a new Request.
    RefreshRequested,
    /// The client asks that what was held is released before it is served.
    ReselectRequested,
}
