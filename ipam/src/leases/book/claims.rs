use std::collections::{BTreeSet, HashMap};

use carrick_types::{ConnectionId, Prefix};

/// Which open connections had a lease before another one of the same client
/// took it over: should that come to nothing, the latest of them has it again,
/// as its link may still carry traffic.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By lease, latest last.
    by_lease: HashMap<Prefix, Vec<ConnectionId>>,
    by_connection: HashMap<ConnectionId, BTreeSet<Prefix>>,
}

impl Claims {
    /// `from` had the lease that is `to`'s now.
    pub(super) fn insert(&mut self, prefix: Prefix, from: &ConnectionId, to: &ConnectionId) {
        self.remove(prefix, to);
        self.remove(prefix, from);
        self.by_lease.entry(prefix).or_default().push(from.clone());
        self.by_connection
            .entry(from.clone())
            .or_default()
            .insert(prefix);
    }

    /// Who has it next.
    pub(super) fn latest(&self, prefix: Prefix) -> Option<&ConnectionId> {
        self.by_lease.get(&prefix)?.last()
    }

    /// The connection has the lease, or wants it no more.
    pub(super) fn remove(&mut self, prefix: Prefix, connection: &ConnectionId) {
        if let Some(claims) = self.by_lease.get_mut(&prefix) {
            claims.retain(|claim| claim != connection);
            if claims.is_empty() {
                self.by_lease.remove(&prefix);
            }
        }
        if let Some(prefixes) = self.by_connection.get_mut(connection) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.by_connection.remove(connection);
            }
        }
    }

    /// The lease has ended.
    pub(super) fn end_for(&mut self, prefix: Prefix) {
        for connection in self.by_lease.remove(&prefix).unwrap_or_default() {
            self.remove(prefix, &connection);
        }
    }

    /// The connection has closed, or was told other addresses.
    pub(super) fn end_of(&mut self, connection: &ConnectionId) {
        for prefix in self.by_connection.remove(connection).unwrap_or_default() {
            self.remove(prefix, connection);
        }
    }
}
