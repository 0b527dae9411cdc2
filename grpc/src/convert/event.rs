use std::collections::BTreeMap;
use std::sync::Arc;

use carrick_chain::{ConnectionEvent, EventKind, Selector};
use carrick_proto::connection as wire;
use carrick_types::Invalid;
use prost::Message;

use super::connection::{connection_from_wire, connection_to_wire};
use super::field::{list, name, within};
use super::path::{segment_to_wire, segments_from_wire};

/// Largest event that is sent, in bytes: what grpc-go and tonic accept unless
/// told otherwise is 4 MiB.
const EVENT_MAX: usize = 3 << 20;

/// An event from the wire; the keys of its map say nothing (NSM `monitor`).
///
/// # Errors
///
/// The type is none that NSM has, or a connection is wrong.
pub fn event_from_wire(wire: wire::ConnectionEvent) -> Result<ConnectionEvent, Invalid> {
    let connections = wire
        .connections
        .into_values()
        .enumerate()
        .map(|(i, connection)| {
            connection_from_wire(connection)
                .map(Arc::new)
                .map_err(|e| within(&format!("connections[{i}]"), e))
        });
    Ok(ConnectionEvent {
        kind: kind(wire.r#type)?,
        connections: connections.collect::<Result<_, _>>()?,
    })
}

fn kind(number: i32) -> Result<EventKind, Invalid> {
    match wire::ConnectionEventType::try_from(number) {
        Ok(wire::ConnectionEventType::Delete) => Ok(EventKind::Delete),
        Ok(wire::ConnectionEventType::InitialStateTransfer) => Ok(EventKind::InitialStateTransfer),
        Ok(wire::ConnectionEventType::Update) => Ok(EventKind::Update),
        Err(_) => Err(Invalid::new("type", number, "an event type of 0 to 2")),
    }
}

/// An event for the wire, as one message of whatever size.
#[must_use]
pub fn event_to_wire(event: &ConnectionEvent) -> wire::ConnectionEvent {
    let connections = event
        .connections
        .iter()
        .map(|connection| (connection.id.to_string(), connection_to_wire(connection)));
    message(event.kind, connections.collect())
}

/// An event for the wire, in as many messages as keep each below what clients
/// accept. Behind the initial state come Updates, which add to it.
#[must_use]
pub fn events_to_wire(event: &ConnectionEvent) -> Vec<wire::ConnectionEvent> {
    let mut events = Vec::with_capacity(1);
    let mut connections = BTreeMap::new();
    let (mut kind, mut size) = (event.kind, 0);
    for connection in &event.connections {
        let wire = connection_to_wire(connection);
        let length = wire.encoded_len() + connection.id.as_str().len() + 32;
        if size + length > EVENT_MAX && !connections.is_empty() {
            events.push(message(kind, std::mem::take(&mut connections)));
            kind = following(kind);
            size = 0;
        }
        size += length;
        connections.insert(connection.id.to_string(), wire);
    }
    events.push(message(kind, connections));
    events
}

fn following(kind: EventKind) -> EventKind {
    match kind {
        EventKind::Delete => EventKind::Delete,
        EventKind::InitialStateTransfer | EventKind::Update => EventKind::Update,
    }
}

fn message(
    kind: EventKind,
    connections: BTreeMap<String, wire::Connection>,
) -> wire::ConnectionEvent {
    let kind = match kind {
        EventKind::Delete => wire::ConnectionEventType::Delete,
        EventKind::InitialStateTransfer => wire::ConnectionEventType::InitialStateTransfer,
        EventKind::Update => wire::ConnectionEventType::Update,
    };
    wire::ConnectionEvent {
        r#type: kind.into(),
        connections,
    }
}

/// A selector from the wire.
///
/// # Errors
///
/// It has too many segments or services, or one is too long.
pub fn selector_from_wire(wire: wire::MonitorScopeSelector) -> Result<Selector, Invalid> {
    Ok(Selector {
        segments: segments_from_wire(wire.path_segments)?,
        network_services: list("network_services", wire.network_services, |text| {
            name("", text)
        })?,
    })
}

/// A selector for the wire.
#[must_use]
pub fn selector_to_wire(selector: &Selector) -> wire::MonitorScopeSelector {
    wire::MonitorScopeSelector {
        path_segments: selector.segments.iter().map(segment_to_wire).collect(),
        network_services: selector.network_services.clone(),
    }
}
