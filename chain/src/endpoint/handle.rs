use std::sync::{Arc, OnceLock, Weak};

use carrick_types::{Connection, ConnectionId};

use super::mailbox::Mailbox;
use super::{Endpoint, Inner};

/// By which an element or a subsystem asks for events from the top of the
/// chain (NSM `begin.EventFactory`). It only asks and never waits; asking for
/// a connection that is not there does nothing.
///
/// Elements are made before their endpoint: make a handle, give clones of it
/// to them, and bind it with
/// [`EndpointOptions::handle`](super::EndpointOptions::handle). It does not
/// keep the endpoint alive.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<OnceLock<Weak<Inner>>>);

impl Handle {
    pub(super) fn bind(&self, endpoint: &Endpoint) {
        let bound = self.0.set(Arc::downgrade(&endpoint.0));
        debug_assert!(bound.is_ok(), "a handle is bound to one endpoint");
    }

    /// Asks for a Close.
    pub fn close(&self, id: &ConnectionId) {
        self.signal(id, Mailbox::ask_close);
    }

    /// Asks that the chain is run again with the last answer; the expiry stays.
    pub fn refresh(&self, id: &ConnectionId) {
        self.signal(id, Mailbox::ask_refresh);
    }

    /// See [`Endpoint::ask_refresh`].
    pub fn ask_refresh(
        &self,
        which: &dyn Fn(&Connection) -> bool,
        change: &dyn Fn(&mut Connection),
    ) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.ask_refresh(which, change);
        }
    }

    /// The last answers; none before the endpoint is made.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.endpoint()
            .map(|endpoint| endpoint.connections())
            .unwrap_or_default()
    }

    fn signal(&self, id: &ConnectionId, ask: impl FnOnce(&Mailbox)) {
        let Some(endpoint) = self.endpoint() else {
            return;
        };
        if let Some(mailbox) = endpoint.lock().get(id).and_then(super::Held::mailbox) {
            ask(mailbox);
        }
    }

    fn endpoint(&self) -> Option<Endpoint> {
        self.0.get()?.upgrade().map(Endpoint)
    }
}
