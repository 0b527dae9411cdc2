use std::time::SystemTime;

use carrick_types::{ConnectionId, Prefix};

use super::{Book, Phase};
use crate::leases::plan::Plan;
use crate::leases::record::{ClientId, Former, Lease};

/// What a release changes on disk.
#[derive(Debug, Default)]
pub(crate) struct Release {
    /// These leases get another holder.
    pub(crate) give_back: Vec<(Prefix, Lease)>,
    /// These leases end.
    pub(crate) remove: Vec<Prefix>,
}

impl Release {
    pub(crate) fn is_empty(&self) -> bool {
        self.give_back.is_empty() && self.remove.is_empty()
    }
}

/// How leases end.
impl Book {
    /// Nothing of the plan was shown to anybody or written: takes it back.
    pub(super) fn undo(&mut self, connection: &ConnectionId, plan: Plan, now: SystemTime) {
        for prefix in plan.fresh {
            self.forget(prefix, now);
        }
        if let Some((former, held)) = plan.taken_over {
            debug_assert_ne!(&former, connection, "taken over from another");
            for prefix in held {
                self.hand_over(prefix, &former, Phase::Held);
            }
        }
    }

    /// Leases of an earlier run whose connections have not come back in time,
    /// or, if `all`, at all. They are removed from the disk, then comes
    /// [`Book::released`].
    pub(crate) fn overdue(&mut self, all: bool, now: SystemTime) -> Vec<Prefix> {
        let waited = now.duration_since(self.loaded).unwrap_or_default();
        if !all && waited < self.options.return_time {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        for id in std::mem::take(&mut self.waited_for) {
            self.claims.end_of(&id);
            for prefix in self.of_connection(&id).collect::<Vec<_>>() {
                self.set_phase(prefix, Phase::Releasing);
                // Should the connection come now, it does not meddle with them.
                self.unindex(&id, prefix);
                overdue.push(prefix);
            }
        }
        overdue
    }

    /// What has to change on disk so that `connection` holds nothing: its
    /// leases are removed, or go back to an open connection of the same client
    /// that had them before. Then come [`Book::given_back`] and
    /// [`Book::released`]; repeated until there is nothing to change.
    pub(crate) fn release(&mut self, connection: &ConnectionId) -> Release {
        let held: Vec<Prefix> = self.of_connection(connection).collect();
        if held.is_empty() {
            self.claims.end_of(connection);
        }
        let mut release = Release::default();
        for prefix in held {
            self.set_phase(prefix, Phase::Releasing);
            match self.claimed(prefix) {
                Some(lease) => release.give_back.push((prefix, lease)),
                None => release.remove.push(prefix),
            }
        }
        release
    }

    /// The lease as it is on disk once its next claimant has it.
    pub(super) fn claimed(&self, prefix: Prefix) -> Option<Lease> {
        let connection = self.claims.latest(prefix)?.clone();
        let lease = self.leases[&prefix].lease.clone();
        Some(Lease {
            connection,
            ..lease
        })
    }

    /// These leases are their claimants' on disk. Who has closed meanwhile is
    /// no claimant any more; such a lease stays where it is, to be released.
    pub(crate) fn given_back(&mut self, leases: &[(Prefix, Lease)]) {
        for (prefix, lease) in leases {
            if !self.leases.contains_key(prefix)
                || self.claims.latest(*prefix) != Some(&lease.connection)
            {
                continue;
            }
            self.claims.remove(*prefix, &lease.connection);
            self.hand_over(*prefix, &lease.connection, Phase::Held);
            if let Some(client) = &lease.client {
                self.by_client
                    .insert(client.clone(), lease.connection.clone());
            }
        }
    }

    /// What is to be remembered of a connection that is released.
    pub(crate) fn former(&self, prefixes: &[Prefix], now: SystemTime) -> Option<Former> {
        let leases = prefixes
            .iter()
            .filter_map(|prefix| Some((prefix, &self.leases.get(prefix)?.lease)));
        let addresses: Vec<(&Prefix, &Lease)> = leases.filter(|(_, lease)| !lease.extra).collect();
        Some(Former {
            client: addresses.first()?.1.client.clone()?,
            addresses: addresses
                .iter()
                .map(|(prefix, _)| prefix.network())
                .collect(),
            released: now,
        })
    }

    /// What a new entry pushes out of the history.
    pub(crate) fn history_overflow(&self, former: &Former, now: SystemTime) -> Vec<ClientId> {
        self.history.overflow(former, now)
    }

    /// The leases are off the disk, and the history on it.
    pub(crate) fn released(
        &mut self,
        prefixes: &[Prefix],
        former: Option<Former>,
        now: SystemTime,
    ) {
        for prefix in prefixes {
            if let Some(entry) = self.leases.get(prefix) {
                self.claims.end_of(&entry.lease.connection);
            }
            self.forget(*prefix, now);
        }
        if let Some(former) = former {
            self.history.insert(former, now);
        }
    }

    /// Connections that hold leases of an earlier run and have not come back.
    pub(crate) fn waited_for(&self) -> Vec<ConnectionId> {
        let holds = |id: &&ConnectionId| self.by_connection.contains_key(*id);
        self.waited_for.iter().filter(holds).cloned().collect()
    }
}
