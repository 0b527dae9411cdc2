use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrick_chain::{Element, Error, Handle, Next};
use carrick_types::{Connection, ConnectionId, Mtu, State};

use crate::mtu::Minimum;

/// Asks clients for a new Request: the endpoint's `ask_refresh`.
pub trait Refresh: Send + Sync + 'static {
    /// Asks those whose connection `which` names; `change` is what they shall
    /// see changed. Must not wait: it is called while a Request is served.
    fn ask(&self, which: &dyn Fn(&Connection) -> bool, change: &dyn Fn(&mut Connection));

    /// Asks that the chain is run again for a connection whose Request is
    /// being served, once that is answered: before, `ask` does not know it.
    fn again(&self, id: &ConnectionId);
}

impl Refresh for Handle {
    fn ask(&self, which: &dyn Fn(&Connection) -> bool, change: &dyn Fn(&mut Connection)) {
        self.ask_refresh(which, change);
    }

    fn again(&self, id: &ConnectionId) {
        self.refresh(id);
    }
}

/// Keeps the packets of all links to the size that each can carry
/// (NSM `vl3mtu`), and lets it rise again when the slowest leaves.
///
/// Stands before the element that makes the link. Server and client chains may
/// share one ([`MtuElement::clone`]).
#[derive(Clone)]
pub struct MtuElement {
    minimum: Arc<Mutex<Minimum>>,
    refresh: Arc<dyn Refresh>,
}

impl std::fmt::Debug for MtuElement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MtuElement")
            .field("minimum", &self.minimum)
            .finish_non_exhaustive()
    }
}

/// That a connection counts for the minimum.
#[derive(Debug)]
pub struct MtuOpen {
    /// The minimum fell while the last Request was served.
    is_outdated: bool,
}

impl MtuElement {
    /// Without links the size is `start`, usually [`Mtu::JUMBO`].
    #[must_use]
    pub fn new(start: Mtu, refresh: Arc<dyn Refresh>) -> Self {
        Self {
            minimum: Arc::new(Mutex::new(Minimum::new(start))),
            refresh,
        }
    }

    /// What every link carries.
    #[must_use]
    pub fn current(&self) -> Mtu {
        self.minimum().current()
    }

    fn minimum(&self) -> MutexGuard<'_, Minimum> {
        self.minimum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all connections but `own` that have another size to come again.
    fn tell_others(&self, own: &ConnectionId) {
        self.tell(&|connection| connection.id != *own);
    }

    fn tell(&self, whom: &dyn Fn(&Connection) -> bool) {
        let current = self.current();
        let which = |c: &Connection| whom(c) && c.context.mtu != Some(current);
        self.refresh.ask(&which, &|connection| {
            connection.context.mtu = Some(current);
            connection.state = State::RefreshRequested;
        });
    }
}

impl Element for MtuElement {
    const NAME: &'static str = "mtu";
    type State = MtuOpen;

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<MtuOpen>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let (id, asked) = (connection.id.clone(), connection.context.mtu);
        let offered = self.minimum().offer(&id, asked);
        connection.context.mtu = Some(offered);
        let was_outdated = state.as_ref().is_some_and(|open| open.is_outdated);
        let open = state.insert(MtuOpen { is_outdated: false });
        let answer = next.request(connection).await?;
        let answered = answer.context.mtu.unwrap_or(offered);
        let changed = self.minimum().set(&id, asked, offered, answered);
        if changed {
            self.tell_others(&id);
        }
        if answered > self.current() {
            // Whoever lowered the minimum meanwhile could not tell this
            // connection, which had no answer yet.
            open.is_outdated = true;
            self.refresh.again(&id);
        } else if was_outdated {
            self.tell(&|connection| connection.id == id);
        }
        Ok(answer)
    }

    async fn close(&self, connection: &Connection, _: &mut MtuOpen) -> Result<(), Error> {
        let changed = self.minimum().remove(&connection.id);
        if changed {
            self.tell_others(&connection.id);
        }
        Ok(())
    }
}
