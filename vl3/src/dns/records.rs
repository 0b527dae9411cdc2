use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use carrick_types::ConnectionId;
use hickory_proto::rr::{LowerName, Name};

/// The names of this endpoint's workloads. Each record belongs to the
/// connection that published it, and only that one takes it away: namesakes
/// are answered with the addresses of all. Clones share the records.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<RwLock<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    names: HashMap<LowerName, Owners>,
    addresses: HashMap<IpAddr, Owners>,
    owners: HashMap<ConnectionId, Published>,
}

/// What one connection publishes.
#[derive(Debug, PartialEq, Eq)]
struct Published {
    names: Vec<Name>,
    addresses: Vec<IpAddr>,
}

/// Who publishes a name or an address; nearly always one.
#[derive(Debug)]
enum Owners {
    Many(BTreeSet<ConnectionId>),
    One(ConnectionId),
}

/// Why nothing was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are {} connections with names already, which is the limit",
    Records::OWNERS_MAX
)]
pub struct PublishError;

impl Records {
    /// Most connections that have names.
    pub const OWNERS_MAX: usize = 1 << 20;

    /// What `owner` publishes is exactly this from now on.
    ///
    /// # Errors
    ///
    /// Too many connections have names.
    pub fn publish(
        &self,
        owner: &ConnectionId,
        names: Vec<Name>,
        addresses: Vec<IpAddr>,
    ) -> Result<(), PublishError> {
        let published = Published { names, addresses };
        // What most refreshes say.
        if self.read().owners.get(owner) == Some(&published) {
            return Ok(());
        }
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tables.remove(owner);
        if published.names.is_empty() || published.addresses.is_empty() {
            return Ok(());
        }
        if tables.owners.len() >= Self::OWNERS_MAX {
            return Err(PublishError);
        }
        for name in &published.names {
            add_owner(&mut tables.names, LowerName::new(name), owner);
        }
        for address in &published.addresses {
            add_owner(&mut tables.addresses, *address, owner);
        }
        tables.owners.insert(owner.clone(), published);
        Ok(())
    }

    /// Takes away what `owner` published; namesakes stay.
    pub fn remove(&self, owner: &ConnectionId) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(owner);
    }

    /// The addresses of a name, each once; `None` if nobody has the name.
    #[must_use]
    pub fn addresses(&self, name: &LowerName) -> Option<Vec<IpAddr>> {
        let tables = self.read();
        let published = tables.published(tables.names.get(name)?);
        let mut all: Vec<_> = published
            .flat_map(|one| one.addresses.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// The names of an address, each once; `None` if it has none.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> Option<Vec<Name>> {
        let tables = self.read();
        let published = tables.published(tables.addresses.get(&address)?);
        let mut all: Vec<_> = published
            .flat_map(|one| one.names.iter().cloned())
            .collect();
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().names.len()
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn published(&self, owners: &Owners) -> impl Iterator<Item = &Published> {
        owners.iter().filter_map(|owner| self.owners.get(owner))
    }

    fn remove(&mut self, owner: &ConnectionId) {
        let Some(Published { names, addresses }) = self.owners.remove(owner) else {
            return;
        };
        for name in &names {
            drop_owner(&mut self.names, &LowerName::new(name), owner);
        }
        for address in &addresses {
            drop_owner(&mut self.addresses, address, owner);
        }
    }
}

fn add_owner<K: Hash + Eq>(table: &mut HashMap<K, Owners>, key: K, owner: &ConnectionId) {
    match table.entry(key) {
        Entry::Occupied(mut owners) => owners.get_mut().add(owner),
        Entry::Vacant(vacant) => _ = vacant.insert(Owners::One(owner.clone())),
    }
}

fn drop_owner<K: Hash + Eq>(table: &mut HashMap<K, Owners>, key: &K, owner: &ConnectionId) {
    if let Some(owners) = table.get_mut(key)
        && owners.remove(owner)
    {
        table.remove(key);
    }
}

impl Owners {
    fn iter(&self) -> impl Iterator<Item = &ConnectionId> {
        let (one, many) = match self {
            Self::Many(many) => (None, Some(many)),
            Self::One(one) => (Some(one), None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn add(&mut self, owner: &ConnectionId) {
        match self {
            Self::Many(many) => _ = many.insert(owner.clone()),
            Self::One(one) => *self = Self::Many([one.clone(), owner.clone()].into()),
        }
    }

    /// Says whether none is left.
    fn remove(&mut self, owner: &ConnectionId) -> bool {
        match self {
            Self::Many(many) => {
                many.remove(owner);
                many.is_empty()
            }
            Self::One(one) => one == owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn publish(records: &Records, owner: &str, names: &[&str], at: &str) {
        let names = names.iter().map(|text| name(text)).collect();
        records
            .publish(&id(owner), names, vec![address(at)])
            .unwrap();
    }

    fn found(records: &Records, text: &str) -> Option<Vec<IpAddr>> {
        records.addresses(&LowerName::new(&name(text)))
    }

    #[test]
    fn a_name_is_found_in_whatever_case() {
        let records = Records::default();
        publish(&records, "c", &["pod.vl3."], "10.0.0.1");
        assert_eq!(found(&records, "POD.vl3."), Some(vec![address("10.0.0.1")]));
        assert_eq!(
            records.names(address("10.0.0.1")),
            Some(vec![name("pod.vl3.")])
        );
    }

    #[test]
    fn a_namesake_that_leaves_takes_only_its_own_record() {
        let records = Records::default();
        publish(&records, "c1", &["pod.vl3."], "10.0.0.1");
        publish(&records, "c2", &["pod.vl3."], "10.0.0.2");
        records.remove(&id("c1"));
        assert_eq!(found(&records, "pod.vl3."), Some(vec![address("10.0.0.2")]));
        records.remove(&id("c2"));
        assert_eq!(found(&records, "pod.vl3."), None);
        assert!(records.is_empty());
    }

    #[test]
    fn a_changed_name_replaces_the_old_one() {
        let records = Records::default();
        publish(&records, "c", &["old.vl3."], "10.0.0.1");
        publish(&records, "c", &["new.vl3."], "10.0.0.9");
        assert_eq!(found(&records, "old.vl3."), None);
        assert_eq!(records.names(address("10.0.0.1")), None);
        assert_eq!(found(&records, "new.vl3."), Some(vec![address("10.0.0.9")]));
    }
}
