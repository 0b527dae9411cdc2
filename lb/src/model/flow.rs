//! Entries of the flow and NAT tables: where they stand, how they are found,
//! and how they are written.

use std::net::IpAddr;

use super::Memory;
use crate::tables::{Key, Kind, Meta, NatInfo, State, Table, WAYS, scale};

/// Which of the four tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) nat: bool,
    pub(super) v6: bool,
}

impl Which {
    /// The table that has a key's entry.
    pub(super) fn of(key: &Key, nat: bool) -> Self {
        let v6 = key.source.is_ipv6();
        Self { nat, v6 }
    }

    fn table(self) -> Table {
        match (self.nat, self.v6) {
            (false, false) => Table::Flows4,
            (false, true) => Table::Flows6,
            (true, false) => Table::Nats4,
            (true, true) => Table::Nats6,
        }
    }

    /// Bytes of source, destination and ports.
    fn words(self) -> usize {
        if self.v6 { 36 } else { 12 }
    }

    fn meta(self) -> usize {
        if self.nat {
            2 * self.words()
        } else {
            self.words()
        }
    }

    fn size(self) -> usize {
        if self.nat {
            self.meta() + 8
        } else {
            self.meta() + 4
        }
    }

    fn buckets(self, memory: &Memory) -> u32 {
        let sizes = memory.sizes();
        match (self.nat, self.v6) {
            (false, false) => sizes.buckets4,
            (false, true) => sizes.buckets6,
            (true, false) => sizes.nat_buckets4,
            (true, true) => sizes.nat_buckets6,
        }
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) which: Which,
    at: usize,
}

/// What an entry holds besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) meta: Meta,
    /// NAT: what packets become.
    pub(super) becomes: Option<Key>,
    /// NAT: whose it is.
    pub(super) info: NatInfo,
}

impl Memory {
    /// The eight places of a key in a slice, in the order they are looked at.
    pub(super) fn places(&self, key: &Key, which: Which, slice: u32) -> Vec<Place> {
        let h = key.hash(self.settings().table_seed);
        let buckets = which.buckets(self);
        let places = |h| {
            let bucket = slice * buckets + scale(h, buckets);
            (0..WAYS).map(move |way| Place {
                which,
                at: (bucket as usize * WAYS + way) * which.size(),
            })
        };
        places(h).chain(places(h >> 32)).collect()
    }

    /// The meta of an entry; `None` where the place is free.
    pub(super) fn meta(&self, place: Place) -> Option<Meta> {
        let at = place.at + place.which.meta();
        let bytes = self
            .take(place.which.table(), at)
            .expect("the place is there");
        Meta::decode(u32::from_le_bytes(bytes))
    }

    pub(super) fn set_meta(&mut self, place: Place, meta: Meta) {
        let at = place.at + place.which.meta();
        self.put(place.which.table(), at, &meta.encode().to_le_bytes());
    }

    /// The entry of a key: first in the own slice, then in the others.
    pub(super) fn find(&self, key: &Key, nat: bool, own: u32) -> Option<Entry> {
        let which = Which::of(key, nat);
        let others = (0..self.sizes().slices).filter(|slice| *slice != own);
        std::iter::once(own)
            .chain(others)
            .flat_map(|slice| self.places(key, which, slice))
            .find(|place| self.holds(*place, key))
            .map(|place| self.entry(place, key.kind))
    }

    fn holds(&self, place: Place, key: &Key) -> bool {
        let words = self
            .bytes(place.which.table())
            .get(place.at..place.at + place.which.words());
        words == Some(&key.encode()[..])
            && self
                .meta(place)
                .is_some_and(|meta| meta.kind == key.kind && meta.state != State::Claimed)
    }

    /// The entry at a place that is not free.
    pub(super) fn entry(&self, place: Place, kind: Kind) -> Entry {
        let Which { nat, v6 } = place.which;
        let meta = self.meta(place).expect("an entry is there");
        let (becomes, info) = if nat {
            let at = place.at + place.which.words();
            let info = place.at + place.which.meta() + 4;
            let info = self
                .take(place.which.table(), info)
                .expect("the place is there");
            let info = NatInfo::decode(u32::from_le_bytes(info));
            (Some(self.key(place.which.table(), at, v6, kind)), info)
        } else {
            (None, NatInfo::default())
        };
        Entry {
            place,
            meta,
            becomes,
            info,
        }
    }

    fn key(&self, table: Table, at: usize, v6: bool, kind: Kind) -> Key {
        let address = |at| -> IpAddr {
            if v6 {
                self.take::<16>(table, at)
                    .expect("the place is there")
                    .into()
            } else {
                self.take::<4>(table, at)
                    .expect("the place is there")
                    .into()
            }
        };
        let length = if v6 { 16 } else { 4 };
        let ports = self
            .take(table, at + 2 * length)
            .expect("the place is there");
        Key {
            source: address(at),
            destination: address(at + length),
            ports: u32::from_le_bytes(ports),
            kind,
        }
    }

    /// Writes an entry; `becomes` and `info` for NAT.
    pub(super) fn write(
        &mut self,
        place: Place,
        key: &Key,
        meta: Meta,
        nat: Option<(Key, NatInfo)>,
    ) {
        let mut bytes = key.encode();
        if let Some((becomes, _)) = &nat {
            bytes.extend(becomes.encode());
        }
        bytes.extend(meta.encode().to_le_bytes());
        if let Some((_, info)) = &nat {
            bytes.extend(info.encode().to_le_bytes());
        }
        self.put(place.which.table(), place.at, &bytes);
    }

    /// Where a new entry of a key can stand: the first place of its own slice
    /// that is free or idle by the settings' limits.
    pub(super) fn room(&self, key: &Key, nat: bool, own: u32, now: u16) -> Option<Place> {
        let idle = self.settings().idle;
        self.places(key, Which::of(key, nat), own)
            .into_iter()
            .find(|place| match self.meta(*place) {
                None => true,
                Some(meta) => meta.state != State::Claimed && is_idle(meta, &idle, now),
            })
    }

    /// Gives back the load of an entry that is about to be overwritten.
    pub(super) fn unload(&mut self, place: Place) {
        let Some(meta) = self.meta(place) else { return };
        let forward = !self.entry(place, meta.kind).info.reply;
        if counts(meta) && forward {
            self.give_back(meta.server);
        }
    }

    /// One live flow less for a server and its service.
    pub(super) fn give_back(&mut self, server: u16) {
        if let Some(row) = self.server(server.into()) {
            self.add_load(server, row.service, -1);
        }
    }
}

/// Whether an entry has not been seen for longer than its limit.
pub(super) fn is_idle(meta: Meta, limits: &[u16; 32], now: u16) -> bool {
    let limit = limits[meta.kind as usize * 4 + meta.state as usize];
    meta.age(now) > limit
}

/// Whether an entry is a live flow.
pub(super) fn counts(meta: Meta) -> bool {
    is_flow(meta.kind) && matches!(meta.state, State::Opening | State::Established)
}

/// Whether a kind is of flows, not of what helps to keep them together.
pub(super) fn is_flow(kind: Kind) -> bool {
    kind as u8 <= Kind::Other as u8
}
