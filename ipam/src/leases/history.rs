use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::record::{ClientId, Former};

/// What clients had before they closed: bounded in number and in time.
#[derive(Debug)]
pub(crate) struct History {
    most: usize,
    age: Duration,
    by_client: BTreeMap<ClientId, Former>,
    by_time: BTreeSet<(SystemTime, ClientId)>,
}

impl History {
    pub(crate) fn new(
        most: usize,
        age: Duration,
        entries: impl IntoIterator<Item = Former>,
    ) -> Self {
        let mut history = Self {
            most,
            age,
            by_client: BTreeMap::new(),
            by_time: BTreeSet::new(),
        };
        for entry in entries {
            history.enter(entry);
        }
        history
    }

    /// Addresses of `client`, its own first, then those of the same name with
    /// another id, latest first: a client that restarted counts anew.
    pub(crate) fn of(&self, client: &ClientId) -> Vec<IpAddr> {
        if let Some(own) = self.by_client.get(client) {
            return own.addresses.clone();
        }
        let from = ClientId {
            id: String::new(),
            ..client.clone()
        };
        let mut namesakes: Vec<&Former> = self
            .by_client
            .range(from..)
            .map(|(_, former)| former)
            .take_while(|former| {
                former.client.service == client.service && former.client.name == client.name
            })
            .take(Self::NAMESAKES)
            .collect();
        namesakes.sort_by_key(|former| std::cmp::Reverse(former.released));
        namesakes
            .iter()
            .flat_map(|former| former.addresses.iter().copied())
            .collect()
    }

    /// Most entries of one name that are looked at.
    const NAMESAKES: usize = 64;

    /// Whom `former` pushes out, and whose time is over.
    pub(crate) fn overflow(&self, former: &Former, now: SystemTime) -> Vec<ClientId> {
        let added = usize::from(!self.by_client.contains_key(&former.client));
        let surplus = (self.by_client.len() + added).saturating_sub(self.most);
        let old = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age > self.age);
        self.by_time
            .iter()
            .filter(|(_, client)| *client != former.client)
            .enumerate()
            .take_while(|(index, (since, _))| *index < surplus || old(*since))
            .map(|(_, (_, client))| client.clone())
            .collect()
    }

    pub(crate) fn insert(&mut self, former: Former, now: SystemTime) {
        for client in self.overflow(&former, now) {
            if let Some(entry) = self.by_client.remove(&client) {
                self.by_time.remove(&(entry.released, client));
            }
        }
        self.enter(former);
    }

    fn enter(&mut self, former: Former) {
        let client = former.client.clone();
        self.by_time.insert((former.released, client.clone()));
        if let Some(before) = self.by_client.insert(client.clone(), former)
            && before.released != self.by_client[&client].released
        {
            self.by_time.remove(&(before.released, client));
        }
    }
}
