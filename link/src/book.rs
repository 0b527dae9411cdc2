use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrick_agent::{Agent, Change, Error, Link, LinkRoute, Netns, Side};
use carrick_types::{ConnectionId, Prefix};
use tokio::sync::Notify;

/// What links there shall be, by connection; makes them so with the agent.
///
/// A link's routes can be withheld without its Request being served again: the
/// next Request, whatever it asks for, leaves them withheld. Changes of one
/// link are made one after another, those of different links side by side.
#[derive(Clone)]
pub struct LinkBook {
    agent: Arc<dyn Agent>,
    entries: Arc<Mutex<HashMap<ConnectionId, Entry>>>,
    idle: Arc<Notify>,
}

#[derive(Default)]
struct Entry {
    link: Option<Link>,
    withheld: bool,
    /// Somebody is making a change of this link.
    busy: bool,
}

impl fmt::Debug for LinkBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkBook")
            .field("links", &self.lock().len())
            .finish_non_exhaustive()
    }
}

impl LinkBook {
    /// No links yet; they will be made by `agent`.
    #[must_use]
    pub fn new(agent: Arc<dyn Agent>) -> Self {
        Self {
            agent,
            entries: Arc::default(),
            idle: Arc::default(),
        }
    }

    /// The link of `connection` shall be `link`.
    ///
    /// # Errors
    ///
    /// What the agent says; then the former link is what counts again.
    pub async fn put(&self, connection: &ConnectionId, link: Link) -> Result<(), Error> {
        let turn = self.turn(connection).await;
        let (former, withheld) =
            turn.change(|entry| (entry.link.replace(link.clone()), entry.withheld));
        let put = self.agent.apply(vec![put(link, withheld)]).await;
        if put.is_err() {
            turn.change(|entry| entry.link = former);
        }
        put
    }

    /// The `connection` shall have no link `id` in `netns`; one of another id stays.
    ///
    /// # Errors
    ///
    /// What the agent says; then the link still counts as there.
    pub async fn delete(
        &self,
        connection: &ConnectionId,
        netns: Netns,
        id: &ConnectionId,
        side: Side,
    ) -> Result<(), Error> {
        let turn = self.turn(connection).await;
        let delete = Change::DeleteLink {
            netns,
            id: id.clone(),
            side,
        };
        self.agent.apply(vec![delete]).await?;
        turn.change(|entry| entry.link.take_if(|link| link.id == *id));
        Ok(())
    }

    /// Withholds the routes of a link, or no longer; those to the other end's
    /// own addresses stay, since probes of the link need them. A connection
    /// without a link is left alone.
    ///
    /// # Errors
    ///
    /// What the agent says.
    pub async fn withhold(&self, connection: &ConnectionId, withheld: bool) -> Result<(), Error> {
        let turn = self.turn(connection).await;
        let link = turn.change(|entry| {
            entry.withheld = withheld && entry.link.is_some();
            entry.link.clone()
        });
        match link {
            Some(link) => self.agent.apply(vec![put(link, withheld)]).await,
            None => Ok(()),
        }
    }

    /// The prefixes that a connection's link takes packets for now.
    #[must_use]
    pub fn routes(&self, connection: &ConnectionId) -> Vec<Prefix> {
        let entries = self.lock();
        let entry = entries.get(connection);
        let link = entry.and_then(|entry| Some((entry.link.as_ref()?, entry.withheld)));
        link.map_or_else(Vec::new, |(link, withheld)| {
            let routes = effective(link, withheld);
            routes.map(|route| route.prefix).collect()
        })
    }

    /// The ids that the links have in the agent.
    #[must_use]
    pub fn link_ids(&self) -> Vec<ConnectionId> {
        let entries = self.lock();
        let links = entries.values().filter_map(|entry| entry.link.as_ref());
        links.map(|link| link.id.clone()).collect()
    }

    /// Whether the link `id` of that side is kept for another connection.
    pub(crate) fn is_of_another(
        &self,
        connection: &ConnectionId,
        id: &ConnectionId,
        side: Side,
    ) -> bool {
        let is_it = |link: &Link| link.id == *id && link.side == side;
        self.lock()
            .iter()
            .any(|(other, entry)| other != connection && entry.link.as_ref().is_some_and(is_it))
    }

    /// Waits until nobody else changes the link.
    async fn turn(&self, connection: &ConnectionId) -> Turn<'_> {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that no wake-up is missed.
            idle.as_mut().enable();
            let taken = {
                let mut entries = self.lock();
                let entry = entries.entry(connection.clone()).or_default();
                std::mem::replace(&mut entry.busy, true)
            };
            if !taken {
                return Turn {
                    book: self,
                    connection: connection.clone(),
                };
            }
            idle.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to change one link; ends also where a deadline cuts the change off.
struct Turn<'a> {
    book: &'a LinkBook,
    connection: ConnectionId,
}

impl Turn<'_> {
    fn change<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.book.lock();
        change(entries.entry(self.connection.clone()).or_default())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut entries = self.book.lock();
        if let Some(entry) = entries.get_mut(&self.connection) {
            entry.busy = false;
            if entry.link.is_none() {
                entries.remove(&self.connection);
            }
        }
        self.book.idle.notify_waiters();
    }
}

fn put(mut link: Link, withheld: bool) -> Change {
    link.near.routes = effective(&link, withheld).cloned().collect();
    Change::PutLink(Box::new(link))
}

fn effective(link: &Link, withheld: bool) -> impl Iterator<Item = &LinkRoute> {
    let routes = link.near.routes.iter();
    routes.filter(move |route| !withheld || route.next_hop.is_none())
}

#[cfg(test)]
mod tests;
