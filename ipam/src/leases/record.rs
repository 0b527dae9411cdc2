use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use carrick_types::{Connection, ConnectionId, ServiceName};
use serde::{Deserialize, Serialize};

/// Whom a lease is for, as far as it outlives one connection's id at this
/// endpoint: the first path segment, which stays the same when a client heals
/// by another way, and the network service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId {
    /// The network service.
    pub service: ServiceName,
    /// Name of the client (`path.path_segments[0].name`).
    pub name: String,
    /// Its own id of the connection (`path.path_segments[0].id`).
    pub id: String,
}

impl ClientId {
    /// The client of `connection`; `None` where the path does not name another
    /// hop than this one.
    #[must_use]
    pub fn of(connection: &Connection) -> Option<Self> {
        let client = connection.path.client()?;
        if connection.path.segments.len() < 2 || client.name.is_empty() {
            return None;
        }
        Some(Self {
            service: connection.network_service.clone(),
            name: client.name.clone(),
            id: client.id.clone(),
        })
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.service, self.name, self.id)
    }
}

/// A lease of an address (a host prefix) or of an extra prefix, by which its
/// record is keyed: so one address cannot have two records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The connection that holds it.
    pub connection: ConnectionId,
    /// The client of that connection, where it is known.
    pub client: Option<ClientId>,
    /// Whether it is an extra prefix and not the client's address.
    pub extra: bool,
    /// Since when.
    #[serde(with = "carrick_types::rfc3339")]
    pub since: SystemTime,
}

/// What a client had before it closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The client.
    pub client: ClientId,
    /// The addresses it had.
    pub addresses: Vec<IpAddr>,
    /// When it closed.
    #[serde(with = "carrick_types::rfc3339")]
    pub released: SystemTime,
}
