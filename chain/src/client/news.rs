//! What monitor events say about our own connection. Pure.

use carrick_types::{Connection, ConnectionId, State};

use super::heal::Control;
use crate::{ConnectionEvent, EventKind};

/// The sum of the events that have come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// A new Request is asked for. Unlike `control` this is not taken back by
    /// later events, which may still be about the Request before.
    pub(super) refresh: bool,
    /// The last word on whether the connection is served, if there was any.
    pub(super) control: Option<Control>,
}

impl News {
    /// Adds an event; `id` is our connection's id and `kept` its last answer.
    pub(super) fn add(
        &mut self,
        event: &ConnectionEvent,
        id: &ConnectionId,
        kept: Option<&Connection>,
    ) {
        let own = event
            .connections
            .iter()
            .filter(|connection| is_own(connection, id));
        let mut heard = false;
        for connection in own {
            heard = true;
            self.add_own(event.kind, connection, kept);
        }
        let forgotten = event.kind == EventKind::InitialStateTransfer && !heard;
        if forgotten && kept.is_some() {
            // It works as far as we know, but who answers now does not know it.
            self.refresh = true;
        }
    }

    fn add_own(&mut self, kind: EventKind, connection: &Connection, kept: Option<&Connection>) {
        let control = match (kind, connection.state) {
            (EventKind::Delete, _) | (_, State::Down) => Control::Down,
            (_, State::Up | State::ReselectRequested) => Control::Up,
            (_, State::RefreshRequested) => {
                self.refresh = true;
                Control::Up
            }
        };
        if control == Control::Up || !is_stale(connection, kept) {
            self.control = Some(control);
        }
    }
}

/// The path is ours, and the event comes from us or from the hop behind us.
fn is_own(connection: &Connection, id: &ConnectionId) -> bool {
    let client = connection.path.client();
    client.is_some_and(|client| client.id == id.as_str()) && connection.path.index <= 1
}

/// Whether an event is about an answer before the one that is kept: our own
/// segment is signed anew for each Request, so its end tells them apart.
fn is_stale(connection: &Connection, kept: Option<&Connection>) -> bool {
    let signed = |connection: &Connection| connection.path.client().and_then(|own| own.expires);
    match (signed(connection), kept.and_then(signed)) {
        (Some(event), Some(kept)) => event < kept,
        _ => false,
    }
}
