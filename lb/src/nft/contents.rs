//! What the sets and maps hold, and how a plan changes it.

use std::collections::{BTreeMap, BTreeSet};

use nlink::netlink::nftables::{
    Set, SetDataType, SetElement, SetElementData, SetKeyType, Transaction, Verdict,
};

use super::TABLE;
use super::code::chain_name;
use super::layout::{Ip, address, name};

/// What a plan may hold of flows per family; more are balanced by hash.
const FLOWS_MAX: u32 = 1 << 20;
/// Slots of the largest table.
const SLOTS_MAX: u32 = 1 << 20;

/// First and, for a range, last key.
pub(super) type Key = (Vec<u8>, Option<Vec<u8>>);

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) data: Option<SetElementData>,
    pub(super) comment: Option<String>,
}

/// The sets and maps of one family's table that control writes, by name.
/// Those that packets write are there, too, but without what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) sets: BTreeMap<String, BTreeMap<Key, Entry>>,
}

/// A number as a key or as data.
pub(super) fn number(number: impl Into<u32>) -> SetElement {
    SetElement::mark(number.into())
}

/// The number in four bytes of a key or of data.
pub(super) fn read_number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A verdict as data.
pub(super) fn goto(chain: &str) -> SetElementData {
    SetElementData::Verdict(Verdict::GotoTo(chain_name(chain)))
}

/// Data of the bytes an element has as key.
pub(super) fn value(element: &SetElement) -> SetElementData {
    SetElementData::Value(element.key().to_vec())
}

impl Contents {
    /// The sets and maps that exist once, empty, and the few constants.
    pub(super) fn fixed() -> Self {
        let mut contents = Self::default();
        for set in [
            name::ALIVE,
            name::CLOSING,
            name::DISPATCH,
            name::FLOWS,
            name::NAT_DISPATCH,
            name::OPEN,
            name::PORTED,
            name::REASONS,
            name::SERVERS,
            name::SERVER_FLOWS,
            name::SERVER_PACKETS,
            name::SERVICES,
            name::SNAT_DISPATCH,
            name::TARGET,
            name::TARGET_PORT,
            name::VIPS,
            name::VIP_FLOWS,
            name::VIP_PACKETS,
            name::WAY,
        ] {
            contents.set(set);
        }
        for protocol in [super::code::TCP, super::code::UDP, super::code::SCTP] {
            contents.put(name::PORTED, &SetElement::inet_proto(protocol), None);
        }
        for reason in super::reasons::Reason::ALL {
            contents.put(name::REASONS, &number(reason.number()), None);
        }
        contents
    }

    /// The set, made if it is not there.
    pub(super) fn set(&mut self, set: &str) -> &mut BTreeMap<Key, Entry> {
        self.sets.entry(set.to_owned()).or_default()
    }

    pub(super) fn put(&mut self, set: &str, key: &SetElement, data: Option<SetElementData>) {
        let entry = Entry {
            data,
            comment: None,
        };
        self.set(set).insert(key_of(key), entry);
    }

    pub(super) fn put_named(&mut self, set: &str, key: &SetElement, comment: String) {
        let entry = Entry {
            data: None,
            comment: Some(comment),
        };
        self.set(set).insert(key_of(key), entry);
    }

    pub(super) fn remove(&mut self, set: &str, key: &SetElement) {
        self.set(set).remove(&key_of(key));
    }

    pub(super) fn contains(&self, set: &str, key: &SetElement) -> bool {
        self.sets
            .get(set)
            .is_some_and(|set| set.contains_key(&key_of(key)))
    }

    /// Elements of a set with their comments, for what the set's key is a number.
    pub(super) fn named(&self, set: &str) -> impl Iterator<Item = (u32, &str)> {
        let entries = self.sets.get(set).into_iter().flatten();
        entries.filter_map(|((key, _), entry)| Some((read_number(key)?, entry.comment.as_deref()?)))
    }

    /// Prefix lengths for which there is a set of VIPs that is not empty.
    pub(super) fn lengths(&self) -> BTreeSet<u8> {
        let sets = self.sets.iter().filter(|(_, set)| !set.is_empty());
        sets.filter_map(|(name, _)| prefix_length(name)).collect()
    }
}

fn key_of(element: &SetElement) -> Key {
    (
        element.key().to_vec(),
        element.key_end().map(<[u8]>::to_vec),
    )
}

fn prefix_length(set: &str) -> Option<u8> {
    set.strip_prefix("prefixes_")?.parse().ok()
}

/// Whether packets write the set, so that control neither reads nor compares it.
pub(super) fn is_dynamic(set: &str) -> bool {
    set == name::FLOWS || set == name::CLOSING || set.starts_with("affinity_")
}

/// A set read back.
pub(super) fn read(elements: Vec<SetElement>) -> BTreeMap<Key, Entry> {
    let entries = elements.into_iter().map(|element| {
        let entry = Entry {
            data: element.data().cloned(),
            comment: element.comment().map(str::to_owned),
        };
        (key_of(&element), entry)
    });
    entries.collect()
}

/// What a set of that name is like.
pub(super) fn definition(ip: Ip, set: &str) -> Set {
    let new = Set::new(TABLE, set).family(ip.family());
    let numbers = new.clone().key_type(SetKeyType::Mark);
    let to = |data: SetKeyType| SetDataType::Value(data);
    if prefix_length(set).is_some() {
        let key = vec![
            SetKeyType::InetProto,
            ip.address_type(),
            SetKeyType::InetService,
        ];
        let key = SetKeyType::Concat(key);
        return new.key_type(key).interval().map(to(SetKeyType::Mark));
    }
    if set.starts_with("affinity_") {
        let key = new.key_type(ip.address_type());
        return dynamic(key.map(to(SetKeyType::Mark)));
    }
    if set.starts_with("near_") {
        return new.key_type(ip.address_type());
    }
    if set.starts_with("sources_") {
        return numbers.map(to(ip.address_type()));
    }
    if set.starts_with("ring_") || set.starts_with("hash_") {
        return numbers.size(SLOTS_MAX).map(to(SetKeyType::Mark));
    }
    match set {
        name::FLOWS | name::CLOSING => {
            dynamic(new.key_type(ip.key_type()).map(to(SetKeyType::Mark)))
        }
        name::DISPATCH | name::NAT_DISPATCH | name::SNAT_DISPATCH | name::WAY => numbers.vmap(),
        name::TARGET => numbers.map(to(ip.address_type())),
        name::TARGET_PORT => {
            let data = vec![ip.address_type(), SetKeyType::InetService];
            numbers.map(to(SetKeyType::Concat(data)))
        }
        name::PORTED => new.key_type(SetKeyType::InetProto),
        name::REASONS
        | name::SERVER_FLOWS
        | name::SERVER_PACKETS
        | name::VIP_FLOWS
        | name::VIP_PACKETS => numbers.counter(),
        _ => numbers,
    }
}

fn dynamic(set: Set) -> Set {
    set.dynamic().per_element_timeouts().size(FLOWS_MAX)
}

/// Turns `before` into `after`: new sets, then what goes, then what comes.
/// Sets that are no longer wanted are left for after their rules.
pub(super) fn difference(
    mut transaction: Transaction,
    ip: Ip,
    before: &Contents,
    after: &Contents,
) -> (Transaction, usize) {
    let mut writes = 0;
    let none = BTreeMap::new();
    for (name, wanted) in &after.sets {
        let set = definition(ip, name);
        let there = before.sets.get(name);
        if there.is_none() {
            transaction = transaction.add_set(set.clone());
        }
        let there = there.unwrap_or(&none);
        let gone = there
            .iter()
            .filter(|(key, is)| wanted.get(*key) != Some(is));
        let gone: Vec<_> = gone.map(|(key, _)| element(key, None)).collect();
        let new = wanted
            .iter()
            .filter(|(key, wanted)| there.get(*key) != Some(wanted));
        let new: Vec<_> = new.map(|(key, entry)| element(key, Some(entry))).collect();
        writes += gone.len() + new.len();
        for some in gone.chunks(CHUNK) {
            transaction = transaction.del_set_elements(&set, some);
        }
        for some in new.chunks(CHUNK) {
            transaction = transaction.add_set_elements(&set, some);
        }
    }
    (transaction, writes)
}

/// Elements per message: a netlink attribute holds 64 KiB at most.
const CHUNK: usize = 128;

fn element((key, end): &Key, entry: Option<&Entry>) -> SetElement {
    let mut element = match end {
        Some(end) => SetElement::range(key.clone(), end.clone()),
        None => SetElement::new(key.clone()),
    };
    let Some(entry) = entry else {
        return element;
    };
    element = match entry.data.clone() {
        Some(SetElementData::Value(bytes)) => element.value(SetElement::new(bytes)),
        Some(SetElementData::Verdict(verdict)) => element.verdict(verdict),
        Some(_) | None => element,
    };
    match &entry.comment {
        Some(comment) => element.with_comment(comment.clone()),
        None => element,
    }
}

/// The address and port that NAT translates to.
pub(super) fn address_and_port(to: std::net::IpAddr, port: u16) -> SetElement {
    SetElement::concat([address(to), SetElement::port(port)])
}
