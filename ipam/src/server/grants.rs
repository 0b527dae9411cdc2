use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use carrick_types::{Invalid, IpFamily, Prefix};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::GrantError;
use super::network::Network;
use crate::pool::{Excluded, PrefixPool};

/// A granted prefix, keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// Who owns it; `None` if it belongs to a stream alone.
    pub owner: Option<String>,
    /// Until when it is kept without a sign of its owner.
    #[serde(with = "carrick_types::rfc3339")]
    pub expires: SystemTime,
    /// Since when.
    #[serde(with = "carrick_types::rfc3339")]
    pub since: SystemTime,
}

/// Names one stream of this run.
pub(crate) type StreamId = u64;

/// Which prefixes are granted: pure, told the time, and returning what to
/// write. A prefix is given to another only when its record is off the disk.
#[derive(Debug)]
pub(crate) struct Grants {
    options: GrantOptions,
    networks: Vec<(PrefixPool, u8)>,
    entries: BTreeMap<Prefix, Entry>,
    /// Ends of those that no stream holds.
    ends: BTreeSet<(SystemTime, Prefix)>,
    by_owner: HashMap<String, BTreeSet<Prefix>>,
    by_stream: HashMap<StreamId, BTreeSet<Prefix>>,
}

#[derive(Clone, Debug)]
pub(crate) struct GrantOptions {
    pub(crate) lease: Duration,
    pub(crate) anonymous_grace: Duration,
    pub(crate) restart_grace: Duration,
    pub(crate) most: usize,
}

#[derive(Debug)]
struct Entry {
    record: GrantRecord,
    stream: Option<StreamId>,
    releasing: bool,
}

/// An ALLOCATE, or an `AllocateSubnet`.
#[derive(Clone, Debug, Default)]
pub(crate) struct GrantAsk<'a> {
    pub(crate) stream: Option<StreamId>,
    pub(crate) owner: Option<&'a str>,
    pub(crate) asked: Option<Prefix>,
    pub(crate) excluded: &'a [Prefix],
    pub(crate) family: Option<IpFamily>,
    /// Another length than the network's own.
    pub(crate) length: Option<u8>,
    /// Another time than the usual.
    pub(crate) lease: Option<Duration>,
}

/// What is granted, and whether it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) prefix: Prefix,
    pub(crate) record: GrantRecord,
    pub(crate) renewed: bool,
}

/// What changes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) put: Vec<(Prefix, GrantRecord)>,
    pub(crate) remove: Vec<Prefix>,
}

impl Grants {
    /// Divides `networks`, of which `excluded` is never given. `known` is what
    /// an earlier run had granted: it is kept for a while, so that owners that
    /// were cut off find it again.
    pub(crate) fn new(
        networks: &[Network],
        excluded: &[Prefix],
        options: GrantOptions,
        known: impl IntoIterator<Item = (Prefix, GrantRecord)>,
        now: SystemTime,
    ) -> Result<Self, Invalid> {
        let prefixes: Vec<Prefix> = networks.iter().map(|network| network.prefix()).collect();
        if prefixes.is_empty() {
            return Err(Invalid::new("networks", "", "at least one network"));
        }
        if let Some((one, other)) = carrick_types::overlaps(&prefixes) {
            let value = format!("{one},{other}");
            return Err(Invalid::new(
                "networks",
                value,
                "networks that do not overlap",
            ));
        }
        let mut pools = Vec::new();
        for network in networks {
            let mut pool = PrefixPool::new(network.prefix())?;
            for excluded in excluded {
                pool.exclude(*excluded);
            }
            pools.push((pool, network.client_length()));
        }
        let mut grants = Self {
            options,
            networks: pools,
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            by_owner: HashMap::new(),
            by_stream: HashMap::new(),
        };
        for (prefix, record) in known {
            grants.load(prefix, record, now);
        }
        Ok(grants)
    }

    fn load(&mut self, prefix: Prefix, mut record: GrantRecord, now: SystemTime) {
        let reserved = self
            .pool_of(prefix)
            .is_some_and(|pool| pool.reserve(prefix).is_ok());
        if reserved {
            record.expires = record.expires.max(now + self.options.restart_grace);
        } else {
            warn!(%prefix, owner = ?record.owner, "a granted prefix is outside of the networks now");
            record.expires = now;
        }
        self.enter(prefix, record, None);
    }

    /// Grants what is asked for. Whoever calls writes the record down.
    pub(crate) fn allocate(
        &mut self,
        ask: &GrantAsk<'_>,
        now: SystemTime,
    ) -> Result<Granted, GrantError> {
        if let Some(prefix) = self.granted_before(ask)? {
            return Ok(self.renew_entry(prefix, ask, now));
        }
        let count = match (ask.owner, ask.stream) {
            (Some(owner), _) => self.by_owner.get(owner).map_or(0, BTreeSet::len),
            (None, Some(stream)) => self.by_stream.get(&stream).map_or(0, BTreeSet::len),
            (None, None) => 0,
        };
        if count >= self.options.most {
            return Err(GrantError::TooMany(count));
        }
        let prefix = match ask.asked.filter(|asked| self.take_asked(*asked)) {
            Some(asked) => asked,
            None => self.take_lowest(ask)?,
        };
        let record = GrantRecord {
            owner: ask.owner.map(str::to_owned),
            expires: now + self.term(ask.owner, ask.lease),
            since: now,
        };
        self.enter(prefix, record.clone(), ask.stream);
        Ok(Granted {
            prefix,
            record,
            renewed: false,
        })
    }

    /// A prefix that the caller has, or had until its stream broke.
    fn granted_before(&self, ask: &GrantAsk<'_>) -> Result<Option<Prefix>, GrantError> {
        if let Some((asked, entry)) = ask
            .asked
            .and_then(|asked| Some((asked, self.entries.get(&asked)?)))
        {
            let inside = self
                .networks
                .iter()
                .any(|(pool, _)| pool.network().covers(asked));
            let own = entry.record.owner.as_deref() == ask.owner
                && (ask.owner.is_some() || entry.stream.is_none() || entry.stream == ask.stream);
            if own && inside {
                return if entry.releasing {
                    Err(GrantError::Busy(asked))
                } else {
                    Ok(Some(asked))
                };
            }
        }
        let Some(owned) = ask.owner.and_then(|owner| self.by_owner.get(owner)) else {
            return Ok(None);
        };
        let excluded = Excluded::new(ask.excluded.iter().copied());
        Ok(owned.iter().copied().find(|prefix| {
            let entry = &self.entries[prefix];
            let network = self
                .networks
                .iter()
                .find(|(pool, _)| pool.network().covers(*prefix));
            entry.stream.is_none()
                && !entry.releasing
                && !excluded.overlaps(*prefix)
                && ask.family.is_none_or(|family| family == prefix.family())
                && network
                    .is_some_and(|(_, length)| ask.length.unwrap_or(*length) == prefix.length())
        }))
    }

    fn renew_entry(&mut self, prefix: Prefix, ask: &GrantAsk<'_>, now: SystemTime) -> Granted {
        let term = self.term(ask.owner, ask.lease);
        self.attach(prefix, ask.stream, now + term);
        Granted {
            prefix,
            record: self.entries[&prefix].record.clone(),
            renewed: true,
        }
    }

    /// Keeps a prefix of `owner` for another term.
    pub(crate) fn renew(
        &mut self,
        prefix: Prefix,
        owner: &str,
        lease: Duration,
        now: SystemTime,
    ) -> Result<Granted, GrantError> {
        let own = |entry: &Entry| !entry.releasing && entry.record.owner.as_deref() == Some(owner);
        if !self.entries.get(&prefix).is_some_and(own) {
            return Err(GrantError::NotOwner(prefix));
        }
        let ask = GrantAsk {
            owner: Some(owner),
            lease: Some(lease),
            ..GrantAsk::default()
        };
        Ok(self.renew_entry(prefix, &ask, now))
    }

    /// A prefix that is asked for may have any length that is not shorter than
    /// usual, so that nobody takes a whole network.
    fn take_asked(&mut self, asked: Prefix) -> bool {
        self.networks
            .iter_mut()
            .find(|(pool, _)| pool.network().covers(asked))
            .is_some_and(|(pool, length)| asked.length() >= *length && pool.reserve(asked).is_ok())
    }

    fn take_lowest(&mut self, ask: &GrantAsk<'_>) -> Result<Prefix, GrantError> {
        let excluded = Excluded::new(ask.excluded.iter().copied());
        self.networks
            .iter_mut()
            .filter(|(pool, _)| {
                ask.family
                    .is_none_or(|family| family == pool.network().family())
            })
            .find_map(|(pool, length)| {
                pool.allocate_outside(ask.length.unwrap_or(*length), &excluded)
                    .ok()
            })
            .ok_or_else(|| GrantError::Exhausted {
                networks: self
                    .networks
                    .iter()
                    .map(|(pool, _)| pool.network())
                    .collect(),
                length: ask.length,
            })
    }

    /// A stream has ended: its prefixes stay with their owners for another
    /// lease, those without an owner for their grace.
    pub(crate) fn detach(&mut self, stream: StreamId, now: SystemTime) -> Change {
        let mut change = Change::default();
        for prefix in self.by_stream.remove(&stream).unwrap_or_default() {
            let owner = self.entries[&prefix].record.owner.clone();
            let term = self.term(owner.as_deref(), None);
            if term.is_zero() {
                self.set_stream(prefix, None);
                self.start_release(prefix, &mut change);
            } else if !self.entries[&prefix].releasing {
                self.attach(prefix, None, now + term);
                change
                    .put
                    .push((prefix, self.entries[&prefix].record.clone()));
            }
        }
        change
    }

    /// The caller gives `prefix` back; nothing if it is not the caller's.
    pub(crate) fn delete(
        &mut self,
        prefix: Prefix,
        owner: Option<&str>,
        stream: Option<StreamId>,
    ) -> Change {
        let mut change = Change::default();
        let own = |entry: &Entry| {
            !entry.releasing
                && ((stream.is_some() && entry.stream == stream)
                    || (owner.is_some() && entry.record.owner.as_deref() == owner))
        };
        if self.entries.get(&prefix).is_some_and(own) {
            self.set_stream(prefix, None);
            self.start_release(prefix, &mut change);
        }
        change
    }

    /// Takes a grant back that was never told to anybody.
    pub(crate) fn withdraw(&mut self, prefix: Prefix) -> Change {
        let mut change = Change::default();
        if self.entries.contains_key(&prefix) {
            self.set_stream(prefix, None);
            self.start_release(prefix, &mut change);
        }
        change
    }

    /// What nobody has shown a sign of for its time.
    pub(crate) fn expire(&mut self, now: SystemTime) -> Change {
        let mut change = Change::default();
        while let Some(&(_, prefix)) = self.ends.first().filter(|(end, _)| *end <= now) {
            self.start_release(prefix, &mut change);
        }
        change
    }

    fn start_release(&mut self, prefix: Prefix, change: &mut Change) {
        if let Some(entry) = self.entries.get_mut(&prefix) {
            entry.releasing = true;
            self.ends.remove(&(entry.record.expires, prefix));
            change.remove.push(prefix);
        }
    }

    /// `change` is on disk: what was removed is free.
    pub(crate) fn written(&mut self, change: &Change) {
        for prefix in &change.remove {
            self.forget(*prefix);
        }
    }

    /// `change` is not on disk: what was to be removed is tried again with the
    /// next that expires.
    pub(crate) fn unwritten(&mut self, change: &Change, now: SystemTime) {
        for prefix in &change.remove {
            if let Some(entry) = self.entries.get_mut(prefix) {
                entry.releasing = false;
                entry.record.expires = now;
                self.ends.insert((now, *prefix));
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Prefix, &GrantRecord, bool)> {
        let shown = |(prefix, entry): (&Prefix, &'_ Entry)| (*prefix, entry.stream.is_some());
        self.entries.iter().map(move |item| {
            let (prefix, connected) = shown(item);
            (prefix, &item.1.record, connected)
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    fn term(&self, owner: Option<&str>, lease: Option<Duration>) -> Duration {
        match owner {
            Some(_) => lease.unwrap_or(self.options.lease),
            None => self.options.anonymous_grace,
        }
    }

    fn pool_of(&mut self, prefix: Prefix) -> Option<&mut PrefixPool> {
        self.networks
            .iter_mut()
            .map(|(pool, _)| pool)
            .find(|pool| pool.network().covers(prefix))
    }

    fn enter(&mut self, prefix: Prefix, record: GrantRecord, stream: Option<StreamId>) {
        if let Some(owner) = &record.owner {
            self.by_owner
                .entry(owner.clone())
                .or_default()
                .insert(prefix);
        }
        let expires = record.expires;
        let entry = Entry {
            record,
            stream: None,
            releasing: false,
        };
        self.entries.insert(prefix, entry);
        self.attach(prefix, stream, expires);
    }

    fn attach(&mut self, prefix: Prefix, stream: Option<StreamId>, expires: SystemTime) {
        self.set_stream(prefix, stream);
        let entry = self
            .entries
            .get_mut(&prefix)
            .expect("attached is what was entered");
        self.ends.remove(&(entry.record.expires, prefix));
        entry.record.expires = expires;
        if stream.is_none() {
            self.ends.insert((expires, prefix));
        }
    }

    fn set_stream(&mut self, prefix: Prefix, stream: Option<StreamId>) {
        let entry = self
            .entries
            .get_mut(&prefix)
            .expect("a stream holds what was entered");
        let before = std::mem::replace(&mut entry.stream, stream);
        if let Some(held) = before.and_then(|before| self.by_stream.get_mut(&before)) {
            held.remove(&prefix);
        }
        if let Some(stream) = stream {
            self.by_stream.entry(stream).or_default().insert(prefix);
        }
    }

    fn forget(&mut self, prefix: Prefix) {
        let Some(entry) = self.entries.remove(&prefix) else {
            return;
        };
        self.ends.remove(&(entry.record.expires, prefix));
        if let Some(owner) = entry.record.owner
            && let Some(owned) = self.by_owner.get_mut(&owner)
        {
            owned.remove(&prefix);
            if owned.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        if let Some(pool) = self.pool_of(prefix) {
            pool.free(prefix);
        }
    }
}
