use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use carrick_types::{ConnectionId, EndpointName, Labels, Prefix};
use serde::{Serialize, Serializer};

/// A registry domain as this endpoint knows it; the own one has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Option<Arc<str>>);

impl Domain {
    /// The domain this endpoint registers in.
    #[must_use]
    pub fn own() -> Self {
        Self(None)
    }

    /// Another domain; an empty name is the own domain.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.into()))
    }

    /// Its name, if it is another's.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Names a peer: its endpoint name, and the domain if it is not the own one.
/// Its text is `name` or `name@domain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// The name under which its own domain knows it.
    pub name: EndpointName,
    /// The domain in which it was seen.
    pub domain: Domain,
}

impl PeerId {
    /// The peer `name` of `domain`. A name that already ends in `@domain`
    /// (NSM interdomain) is cut there, so that each peer has one id.
    #[must_use]
    pub fn new(name: EndpointName, domain: Domain) -> Self {
        let bare = domain.name().and_then(|domain| {
            let (bare, suffix) = name.as_str().rsplit_once('@')?;
            (suffix == domain).then(|| EndpointName::new(bare).ok())?
        });
        Self {
            name: bare.unwrap_or(name),
            domain,
        }
    }

    /// Reads back what [`PeerId::to_stored`] wrote; `None` if it is nothing such.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        let (domain, name) = text.split_once('/')?;
        Some(Self::new(
            EndpointName::new(name).ok()?,
            Domain::named(domain),
        ))
    }

    /// A text that keeps name and domain apart also where the name has an `@`.
    pub(crate) fn to_stored(&self) -> String {
        format!("{}/{}", self.domain.name().unwrap_or_default(), self.name)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain.name() {
            Some(domain) => write!(f, "{}@{domain}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Another endpoint of the service, as a registry tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name and domain.
    pub id: PeerId,
    /// Where it listens.
    pub url: String,
    /// When it registered first (`initial_registration_time`): the newer of
    /// two endpoints dials the older.
    pub registered_at: Option<SystemTime>,
    /// The node it runs on, where it says so: links within a node need no tunnel.
    pub node: Option<String>,
    /// Its labels for the service.
    pub labels: Labels,
}

impl Endpoint {
    /// Label with the public key that an endpoint's path tokens verify with.
    pub const KEY: &str = "carrick.io/key";

    /// The public key it publishes; an empty one counts as none.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.labels.value(Self::KEY).filter(|key| !key.is_empty())
    }
}

/// What the two ends of a link agreed on, seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The connection, by its id at this end.
    pub connection: ConnectionId,
    /// The peer's own addresses; probes go to the first.
    pub addresses: Vec<IpAddr>,
    /// The prefixes accepted from the peer.
    pub prefixes: Vec<Prefix>,
    /// Where the peer's name server listens; empty means at its first address.
    pub dns: Vec<IpAddr>,
}

impl Link {
    /// A link of which only the connection is known yet.
    #[must_use]
    pub fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            dns: Vec::new(),
        }
    }

    /// The peer's name servers.
    #[must_use]
    pub fn name_servers(&self) -> &[IpAddr] {
        let own = self.addresses.get(..1).unwrap_or_default();
        if self.dns.is_empty() { own } else { &self.dns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_one_id_whether_or_not_its_name_carries_the_domain() {
        let name = |text| EndpointName::new(text).unwrap();
        let id = PeerId::new(name("nse-1@c2"), Domain::named("c2"));
        assert_eq!(id, PeerId::new(name("nse-1"), Domain::named("c2")));
        assert_eq!(id.to_string(), "nse-1@c2");
        assert_ne!(id, PeerId::new(name("nse-1"), Domain::own()));
    }
}
