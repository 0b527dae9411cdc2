use std::time::SystemTime;

use carrick_types::{ConnectionId, Prefix};

use super::{Book, Entry, Phase};
use crate::leases::record::Lease;
use crate::pool::{AddressPool, Excluded};

/// How leases are found, entered and forgotten.
impl Book {
    pub(super) fn is_good(&self, prefix: Prefix, excluded: &Excluded) -> bool {
        let grants = self.grants.as_deref().unwrap_or_default();
        let granted = grants.iter().any(|grant| {
            grant.prefix.covers(prefix)
                && !prefix.contains(grant.prefix.network())
                && !grant
                    .excluded
                    .iter()
                    .any(|excluded| excluded.overlaps(prefix))
        });
        granted && !excluded.overlaps(prefix) && self.leases[&prefix].phase != Phase::Releasing
    }

    pub(super) fn of_connection(
        &self,
        connection: &ConnectionId,
    ) -> impl Iterator<Item = Prefix> + use<'_> {
        self.by_connection
            .get(connection)
            .into_iter()
            .flatten()
            .copied()
    }

    pub(super) fn pool_of(&mut self, prefix: Prefix) -> Option<&mut AddressPool> {
        self.pools
            .iter_mut()
            .find(|pool| pool.prefix().covers(prefix))
    }

    pub(super) fn enter(&mut self, prefix: Prefix, lease: Lease, phase: Phase) {
        if let Some(client) = &lease.client {
            self.by_client
                .insert(client.clone(), lease.connection.clone());
        }
        self.by_connection
            .entry(lease.connection.clone())
            .or_default()
            .insert(prefix);
        self.leases.insert(prefix, Entry { lease, phase });
    }

    pub(super) fn set_phase(&mut self, prefix: Prefix, phase: Phase) {
        if let Some(entry) = self.leases.get_mut(&prefix) {
            entry.phase = phase;
        }
    }

    pub(super) fn forget(&mut self, prefix: Prefix, now: SystemTime) {
        let Some(entry) = self.leases.remove(&prefix) else {
            return;
        };
        self.claims.end_for(prefix);
        let connection = entry.lease.connection;
        self.unindex(&connection, prefix);
        if let Some(client) = entry.lease.client
            && !self.by_connection.contains_key(&connection)
            && self.by_client.get(&client) == Some(&connection)
        {
            self.by_client.remove(&client);
        }
        if let Some(pool) = self.pool_of(prefix) {
            pool.release(prefix, now);
        }
    }

    pub(super) fn unindex(&mut self, connection: &ConnectionId, prefix: Prefix) {
        if let Some(held) = self.by_connection.get_mut(connection) {
            held.remove(&prefix);
            if held.is_empty() {
                self.by_connection.remove(connection);
            }
        }
    }
}
