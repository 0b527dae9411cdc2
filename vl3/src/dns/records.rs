use std::collections::{BTreeMap, HashMap};
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
    names: HashMap<LowerName, BTreeMap<ConnectionId, Vec<IpAddr>>>,
    addresses: HashMap<IpAddr, BTreeMap<ConnectionId, Vec<Name>>>,
    owners: HashMap<ConnectionId, (Vec<Name>, Vec<IpAddr>)>,
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
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tables.remove(owner);
        if names.is_empty() || addresses.is_empty() {
            return Ok(());
        }
        if tables.owners.len() >= Self::OWNERS_MAX {
            return Err(PublishError);
        }
        for name in &names {
            let at = tables.names.entry(LowerName::new(name)).or_default();
            at.insert(owner.clone(), addresses.clone());
        }
        for address in &addresses {
            let at = tables.addresses.entry(*address).or_default();
            at.insert(owner.clone(), names.clone());
        }
        tables.owners.insert(owner.clone(), (names, addresses));
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
        let mut all: Vec<_> = tables
            .names
            .get(name)?
            .values()
            .flatten()
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// The names of an address, each once; `None` if it has none.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> Option<Vec<Name>> {
        let tables = self.read();
        let mut all: Vec<_> = tables
            .addresses
            .get(&address)?
            .values()
            .flatten()
            .cloned()
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
    fn remove(&mut self, owner: &ConnectionId) {
        let Some((names, addresses)) = self.owners.remove(owner) else {
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

fn drop_owner<K, V>(
    table: &mut HashMap<K, BTreeMap<ConnectionId, V>>,
    key: &K,
    owner: &ConnectionId,
) where
    K: std::hash::Hash + Eq,
{
    if let Some(owners) = table.get_mut(key) {
        owners.remove(owner);
        if owners.is_empty() {
            table.remove(key);
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
