use std::collections::BTreeMap;
use std::time::SystemTime;

use carrick_chain::{Endpoint, Selector};
use carrick_policy::{About, Caller, Input, Policies, Refused, Segment, subject};
use carrick_types::{Connection, ConnectionId};
use tonic::Status;
use tracing::debug;

use crate::answers::segment;
use crate::status::status;

/// Who may request, close and follow connections (NSM `authorize`). Asked only
/// where the caller's identity is proved, which is over TLS.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// Asked about each Request and Close; by default NSM's own.
    pub requests: Policies,
    /// Asked about each `MonitorConnections`; by default none, as in NSM.
    pub monitoring: Policies,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            requests: Policies::server(),
            monitoring: Policies::any(),
        }
    }
}

impl Authorization {
    /// Judges a Request as it came here, the caller's token in its segment.
    pub(super) fn request(
        &self,
        endpoint: &Endpoint,
        request: &Connection,
        peer: Option<Caller<'_>>,
    ) -> Result<(), Status> {
        let Some(peer) = peer.filter(|_| !self.requests.is_empty()) else {
            return Ok(());
        };
        self.ask(endpoint, request, peer)?
            .map_err(|refused| refuse(&refused))
    }

    /// Judges a Close.
    ///
    /// Other than in NSM, whoever made the last Request may close the
    /// connection however its path looks by now: where a token of it has ended,
    /// a refusal would only leave the connection until it expires.
    pub(super) fn close(
        &self,
        endpoint: &Endpoint,
        connection: &Connection,
        peer: Option<Caller<'_>>,
    ) -> Result<(), Status> {
        let Some(peer) = peer.filter(|_| !self.requests.is_empty()) else {
            return Ok(());
        };
        if is_last_caller(endpoint, connection, peer) {
            return Ok(());
        }
        self.request(endpoint, connection, Some(peer))
    }

    /// Judges who wants to follow connections.
    pub(super) fn monitor(
        &self,
        endpoint: &Endpoint,
        selector: &Selector,
        peer: Option<Caller<'_>>,
    ) -> Result<(), Status> {
        let Some(peer) = peer.filter(|_| !self.monitoring.is_empty()) else {
            return Ok(());
        };
        let selected: Vec<&str> = (selector.segments.iter())
            .map(|segment| segment.id.as_str())
            .collect();
        let about = About::Monitor {
            selected: &selected,
            is_callers: &|id| is_callers(endpoint, id, peer),
            by_caller: &|| by_caller(endpoint),
        };
        let input = Input {
            index: 0,
            segments: Vec::new(),
            caller: peer,
            about,
        };
        self.monitoring
            .check(&input, SystemTime::now())
            .map_err(|refused| refuse(&refused))
    }

    /// Asks about the path as it is once our own segment is entered.
    fn ask(
        &self,
        endpoint: &Endpoint,
        connection: &Connection,
        peer: Caller<'_>,
    ) -> Result<Result<(), Refused>, Status> {
        let token = endpoint.token(connection, Some(peer.id));
        let token = token.map_err(|error| status(&error))?;
        let segments = &connection.path.segments;
        let index = own_index(endpoint, connection).unwrap_or(0);
        let mut before: Vec<_> = segments.iter().take(index).map(segment).collect();
        before.push(Segment {
            name: endpoint.name(),
            id: own_id(endpoint, connection).unwrap_or_default(),
            token: &token.value,
            expires: Some(token.expires),
        });
        let input = Input {
            index,
            segments: before,
            caller: peer,
            about: About::Connection,
        };
        Ok(self.requests.check(&input, SystemTime::now()))
    }
}

/// What a caller can cause at will is worth a counter and a debug line.
fn refuse(refused: &Refused) -> Status {
    let why = refused.explained();
    debug!(policy = refused.policy(), why, "refused");
    Status::permission_denied(why)
}

/// Where our segment is or will be: at the caller's if that has our name (NSM
/// `updatepath`), else behind it. `None` if there is no caller's.
fn own_index(endpoint: &Endpoint, connection: &Connection) -> Option<usize> {
    let path = &connection.path;
    let caller = path.current()?;
    Some(if caller.name == endpoint.name() {
        path.index
    } else {
        path.index + 1
    })
}

/// The connection's id here, if the path tells it.
fn own_id<'a>(endpoint: &Endpoint, connection: &'a Connection) -> Option<&'a str> {
    let index = own_index(endpoint, connection)?;
    let own = connection.path.segments.get(index)?;
    (own.name == endpoint.name()).then_some(own.id.as_str())
}

/// Whether the last Request of a connection that is up was this peer's.
fn is_last_caller(endpoint: &Endpoint, connection: &Connection, peer: Caller<'_>) -> bool {
    let id = own_id(endpoint, connection).and_then(|id| ConnectionId::new(id).ok());
    let last = id.and_then(|id| endpoint.connection(&id));
    last.is_some_and(|last| is_of(&last, peer))
}

/// Whether a connection that was answered comes from this peer: its token in
/// the path was compared with its certificate.
fn is_of(answered: &Connection, peer: Caller<'_>) -> bool {
    let previous = answered.path.previous();
    previous
        .and_then(|segment| subject(&segment.token))
        .as_deref()
        == Some(peer.id)
}

fn is_callers(endpoint: &Endpoint, id: &str, peer: Caller<'_>) -> bool {
    let is_callers = |connection: &Connection| {
        connection.path.previous().is_some_and(|it| it.id == id) && is_of(connection, peer)
    };
    let named = Selector::segment("", id);
    endpoint
        .select(&named)
        .iter()
        .any(|connection| is_callers(connection))
}

fn by_caller(endpoint: &Endpoint) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for connection in endpoint.connections() {
        if let Some(previous) = connection.path.previous()
            && let Some(caller) = subject(&previous.token)
        {
            all.entry(caller).or_default().push(previous.id.clone());
        }
    }
    all
}
