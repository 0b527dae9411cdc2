mod claims;
mod end;
mod index;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_types::{ConnectionId, IpFamily, Prefix, host};
use tracing::warn;

use self::claims::Claims;
use super::history::History;
use super::plan::{Ask, LeaseError, Plan};
use super::record::{ClientId, Former, Lease};
use crate::Grant;
use crate::pool::{AddressPool, Excluded};

/// Which leases there are: pure, told the time, and returning what to write.
///
/// A lease passes through *pending* (taken, its record being written), *held*,
/// and *releasing* (its record being removed). Only what is held may change
/// hands, and only what is no longer on disk is given to another: so whatever
/// the moment of a crash, no address has two holders afterwards.
#[derive(Debug)]
pub(crate) struct Book {
    options: BookOptions,
    grants: Option<Arc<[Grant]>>,
    pools: Vec<AddressPool>,
    leases: BTreeMap<Prefix, Entry>,
    by_connection: HashMap<ConnectionId, BTreeSet<Prefix>>,
    by_client: HashMap<ClientId, ConnectionId>,
    history: History,
    claims: Claims,
    /// Connections of an earlier run that have not come back yet.
    waited_for: BTreeSet<ConnectionId>,
    loaded: SystemTime,
}

/// How a [`Book`] behaves.
#[derive(Clone, Debug)]
pub(crate) struct BookOptions {
    pub(crate) rest: Duration,
    pub(crate) history: usize,
    pub(crate) history_age: Duration,
    pub(crate) return_time: Duration,
    pub(crate) extra_prefixes: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    lease: Lease,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Pending,
    Releasing,
}

impl Book {
    pub(crate) fn new(
        options: BookOptions,
        leases: impl IntoIterator<Item = (Prefix, Lease)>,
        history: impl IntoIterator<Item = Former>,
        now: SystemTime,
    ) -> Self {
        let mut book = Self {
            history: History::new(options.history, options.history_age, history),
            options,
            grants: None,
            pools: Vec::new(),
            leases: BTreeMap::new(),
            by_connection: HashMap::new(),
            by_client: HashMap::new(),
            claims: Claims::default(),
            waited_for: BTreeSet::new(),
            loaded: now,
        };
        for (prefix, lease) in leases {
            book.waited_for.insert(lease.connection.clone());
            book.enter(prefix, lease, Phase::Held);
        }
        book
    }

    /// From now on addresses come from these prefixes. Leases of others stay
    /// until their connections are served again.
    pub(crate) fn set_grants(&mut self, grants: &Arc<[Grant]>, now: SystemTime) {
        if self
            .grants
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, grants))
        {
            return;
        }
        let mut old = std::mem::take(&mut self.pools);
        for (index, grant) in grants.iter().enumerate() {
            let known = old.iter().position(|pool| {
                pool.prefix() == grant.prefix
                    && self
                        .grants
                        .as_ref()
                        .is_some_and(|grants| grants.contains(grant))
            });
            match known {
                Some(position) => self.pools.push(old.swap_remove(position)),
                None => self.open_pool(grant, index, now),
            }
        }
        self.grants = Some(Arc::clone(grants));
    }

    fn open_pool(&mut self, grant: &Grant, index: usize, now: SystemTime) {
        match AddressPool::new(grant.prefix, &grant.excluded, self.options.rest) {
            Ok(mut pool) => {
                for prefix in self
                    .leases
                    .keys()
                    .filter(|prefix| grant.prefix.covers(**prefix))
                {
                    // Fails for what the grant excludes by now: see `is_good`.
                    let _ = pool.reserve(*prefix, now);
                }
                self.pools.push(pool);
            }
            Err(error) => warn!(index, %error, "a granted prefix is of no use"),
        }
    }

    fn prefixes(&self) -> Vec<Prefix> {
        self.pools.iter().map(AddressPool::prefix).collect()
    }

    /// What `ask` is given. Whoever calls writes the plan down, then says
    /// [`Book::written`]. If that fails, all stays as it is, and the next
    /// request or release of the connection writes it again.
    pub(crate) fn request(&mut self, ask: &Ask<'_>, now: SystemTime) -> Result<Plan, LeaseError> {
        if self.pools.is_empty() {
            return Err(LeaseError::Initializing);
        }
        let mut plan = Plan {
            connection: Some(ask.connection.clone()),
            ..Plan::default()
        };
        let excluded = Excluded::new(ask.excluded.iter().copied());
        self.take_over(ask, &excluded, &mut plan);
        let result = self
            .request_addresses(ask, &excluded, &mut plan, now)
            .and_then(|()| self.request_extra(ask, &excluded, &mut plan, now));
        if let Err(error) = result {
            self.undo(ask.connection, plan, now);
            return Err(error);
        }
        self.drop_others(ask.connection, &mut plan);
        self.waited_for.remove(ask.connection);
        if plan.is_written() {
            self.claims.end_of(ask.connection);
        }
        if let Some((former, held)) = &plan.taken_over {
            for prefix in held {
                self.claims.insert(*prefix, former, ask.connection);
            }
        }
        if let Some(client) = &ask.client {
            self.by_client
                .insert(client.clone(), ask.connection.clone());
        }
        Ok(plan)
    }

    /// The same client under a new id, as after a heal: it takes its leases along.
    fn take_over(&mut self, ask: &Ask<'_>, excluded: &Excluded, plan: &mut Plan) {
        let Some(client) = &ask.client else { return };
        let Some(former) = self
            .by_client
            .get(client)
            .filter(|id| *id != ask.connection)
            .cloned()
        else {
            return;
        };
        if self.by_connection.contains_key(ask.connection) {
            return;
        }
        let held = self.of_use(&former, ask, excluded);
        for prefix in &held {
            self.hand_over(*prefix, ask.connection, Phase::Pending);
            plan.put.push((*prefix, self.leases[prefix].lease.clone()));
        }
        if !held.is_empty() {
            plan.taken_over = Some((former, held));
        }
    }

    /// Of what `former` holds, what `ask` will keep: what it would drop stays
    /// with `former`, which may still be using it.
    fn of_use(&self, former: &ConnectionId, ask: &Ask<'_>, excluded: &Excluded) -> Vec<Prefix> {
        let mut families = BTreeSet::new();
        let mut of_use = |prefix: &Prefix| {
            let entry = &self.leases[prefix];
            let wanted = ask.extra.iter().any(|extra| {
                extra.family == prefix.family() && extra.prefix_length == prefix.length()
            });
            entry.phase == Phase::Held
                && self.is_good(*prefix, excluded)
                && if entry.lease.extra {
                    wanted
                } else {
                    families.insert(prefix.family())
                }
        };
        self.of_connection(former)
            .filter(|prefix| of_use(prefix))
            .collect()
    }

    fn hand_over(&mut self, prefix: Prefix, to: &ConnectionId, phase: Phase) {
        let entry = self
            .leases
            .get_mut(&prefix)
            .expect("an index names leases that exist");
        let from = std::mem::replace(&mut entry.lease.connection, to.clone());
        entry.phase = phase;
        self.unindex(&from, prefix);
        self.by_connection
            .entry(to.clone())
            .or_default()
            .insert(prefix);
    }

    fn request_addresses(
        &mut self,
        ask: &Ask<'_>,
        excluded: &Excluded,
        plan: &mut Plan,
        now: SystemTime,
    ) -> Result<(), LeaseError> {
        let mut families: Vec<IpFamily> = Vec::new();
        for pool in &self.pools {
            if !families.contains(&pool.prefix().family()) {
                families.push(pool.prefix().family());
            }
        }
        for family in families {
            let held = self
                .of_connection(ask.connection)
                .filter(|prefix| prefix.family() == family && !self.leases[prefix].lease.extra)
                .find(|prefix| self.is_good(*prefix, excluded));
            let prefix = match held {
                Some(prefix) => self.kept(prefix, plan),
                None => self.new_address(ask, family, excluded, plan, now)?,
            };
            plan.addresses.push(prefix.network());
        }
        Ok(())
    }

    /// Of an earlier plan that may not have been written, the record is
    /// written again.
    fn kept(&self, prefix: Prefix, plan: &mut Plan) -> Prefix {
        let entry = &self.leases[&prefix];
        let planned = plan.put.iter().any(|(put, _)| *put == prefix);
        if entry.phase == Phase::Pending && !planned {
            plan.put.push((prefix, entry.lease.clone()));
        }
        prefix
    }

    fn new_address(
        &mut self,
        ask: &Ask<'_>,
        family: IpFamily,
        excluded: &Excluded,
        plan: &mut Plan,
        now: SystemTime,
    ) -> Result<Prefix, LeaseError> {
        let prefix = self
            .former_address(ask, family, excluded, now)
            .or_else(|| self.lowest(family, family.width(), excluded, now))
            .ok_or_else(|| self.none_left(family, family.width()))?;
        self.lease(prefix, ask, false, plan, now);
        Ok(prefix)
    }

    /// The address that the client had before or says it has, if nobody else does.
    fn former_address(
        &mut self,
        ask: &Ask<'_>,
        family: IpFamily,
        excluded: &Excluded,
        now: SystemTime,
    ) -> Option<Prefix> {
        let own = ask
            .client
            .as_ref()
            .map(|client| self.history.of(client))
            .unwrap_or_default();
        let fits = |address: &&IpAddr| {
            IpFamily::of(**address) == family && !excluded.overlaps(host(**address))
        };
        for address in own.iter().filter(fits) {
            if self
                .pool_of(host(*address))
                .is_some_and(|pool| pool.reclaim(host(*address), now).is_ok())
            {
                return Some(host(*address));
            }
        }
        let claimed = ask
            .claimed
            .iter()
            .filter(fits)
            .map(|address| host(*address));
        claimed.into_iter().find(|prefix| {
            self.pool_of(*prefix)
                .is_some_and(|pool| pool.reserve(*prefix, now).is_ok())
        })
    }

    fn lowest(
        &mut self,
        family: IpFamily,
        length: u8,
        excluded: &Excluded,
        now: SystemTime,
    ) -> Option<Prefix> {
        self.pools
            .iter_mut()
            .filter(|pool| pool.prefix().family() == family)
            .find_map(|pool| pool.allocate_prefix(length, excluded, now).ok())
    }

    fn request_extra(
        &mut self,
        ask: &Ask<'_>,
        excluded: &Excluded,
        plan: &mut Plan,
        now: SystemTime,
    ) -> Result<(), LeaseError> {
        let limit = self.options.extra_prefixes;
        let required: u32 = ask
            .extra
            .iter()
            .map(|extra| extra.required)
            .fold(0, u32::saturating_add);
        for extra in ask.extra {
            let length = extra.prefix_length;
            let possible = self.pools.iter().any(|pool| {
                pool.prefix().family() == extra.family
                    && (pool.prefix().length() + 1..=pool.prefix().width()).contains(&length)
            });
            if extra.required > 0 && (required > limit || !possible) {
                let prefixes = self.prefixes();
                return Err(LeaseError::Extra {
                    length,
                    required,
                    limit,
                    prefixes,
                });
            }
            let room = usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .saturating_sub(plan.extra.len());
            let wanted = usize::try_from(extra.requested.max(extra.required))
                .unwrap_or(usize::MAX)
                .min(room);
            let before = plan.extra.len();
            let held: Vec<Prefix> = self
                .of_connection(ask.connection)
                .filter(|prefix| prefix.family() == extra.family && prefix.length() == length)
                .filter(|prefix| self.leases[prefix].lease.extra && !plan.extra.contains(prefix))
                .filter(|prefix| self.is_good(*prefix, excluded))
                .take(wanted)
                .collect();
            for prefix in held {
                let prefix = self.kept(prefix, plan);
                plan.extra.push(prefix);
            }
            while plan.extra.len() - before < wanted {
                let Some(prefix) = self.lowest(extra.family, length, excluded, now) else {
                    break;
                };
                self.lease(prefix, ask, true, plan, now);
                plan.extra.push(prefix);
            }
            if plan.extra.len() - before < usize::try_from(extra.required).unwrap_or(usize::MAX) {
                return Err(self.none_left(extra.family, length));
            }
        }
        Ok(())
    }

    fn none_left(&self, family: IpFamily, length: u8) -> LeaseError {
        let prefixes = self.prefixes();
        let free =
            |pool: &AddressPool| pool.prefix().family() == family && pool.free_addresses() > 0;
        if length == family.width() && self.pools.iter().any(free) {
            LeaseError::Excluded { family, prefixes }
        } else {
            LeaseError::Full {
                family,
                length,
                prefixes,
            }
        }
    }

    fn lease(
        &mut self,
        prefix: Prefix,
        ask: &Ask<'_>,
        extra: bool,
        plan: &mut Plan,
        now: SystemTime,
    ) {
        let lease = Lease {
            connection: ask.connection.clone(),
            client: ask.client.clone(),
            extra,
            since: now,
        };
        plan.put.push((prefix, lease.clone()));
        plan.fresh.push(prefix);
        self.enter(prefix, lease, Phase::Pending);
    }

    /// Leases that the connection has and should not have any more: of a
    /// former prefix, excluded by now, no longer asked for.
    fn drop_others(&mut self, connection: &ConnectionId, plan: &mut Plan) {
        let keep = |prefix: &Prefix| {
            plan.extra.contains(prefix)
                || plan
                    .addresses
                    .iter()
                    .any(|address| host(*address) == *prefix)
        };
        let others: Vec<Prefix> = self
            .of_connection(connection)
            .filter(|prefix| !keep(prefix))
            .collect();
        for prefix in others {
            self.set_phase(prefix, Phase::Releasing);
            plan.put.retain(|(put, _)| *put != prefix);
            match self.claimed(prefix) {
                Some(lease) => plan.give_back.push((prefix, lease)),
                None => plan.remove.push(prefix),
            }
        }
    }

    /// The plan is on disk.
    pub(crate) fn written(&mut self, plan: &Plan, now: SystemTime) {
        if let Some(connection) = &plan.connection {
            self.claims.end_of(connection);
        }
        for (prefix, _) in &plan.put {
            self.set_phase(*prefix, Phase::Held);
        }
        self.given_back(&plan.give_back);
        for prefix in &plan.remove {
            self.forget(*prefix, now);
        }
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = (Prefix, &Lease)> {
        self.leases
            .iter()
            .map(|(prefix, entry)| (*prefix, &entry.lease))
    }

    pub(crate) fn count(&self) -> usize {
        self.leases.len()
    }
}
