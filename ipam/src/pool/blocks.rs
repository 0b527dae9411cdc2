use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use carrick_types::{IpFamily, Prefix};

/// Free space of one network as its largest aligned free blocks: a buddy
/// system, so that a block of any size is found aligned, and two free halves
/// are one free whole again.
///
/// Every operation probes at most two entries per length, that is at most 66
/// (IPv4) or 258 (IPv6) searches in ordered sets, however much is leased.
#[derive(Clone, Debug)]
pub(crate) struct FreeBlocks {
    root: Block,
    family: IpFamily,
    /// Starts of the free blocks, by length less the root's length.
    by_length: Vec<BTreeSet<u128>>,
    /// Number of free addresses.
    free: u128,
    #[cfg(test)]
    pub(crate) probes: std::cell::Cell<u64>,
}

/// An aligned block of `1 << host_bits` addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    start: u128,
    host_bits: u8,
}

impl Block {
    fn of(prefix: Prefix) -> Self {
        Self {
            start: bits(prefix.network()),
            host_bits: prefix.width() - prefix.length(),
        }
    }

    /// The block of `host_bits` that holds `address`.
    fn around(address: u128, host_bits: u8) -> Self {
        Self {
            start: address & !mask(host_bits),
            host_bits,
        }
    }

    fn last(self) -> u128 {
        self.start | mask(self.host_bits)
    }

    fn size(self) -> u128 {
        1 << self.host_bits
    }

    fn buddy(self) -> Self {
        Self {
            start: self.start ^ self.size(),
            ..self
        }
    }

    fn parent(self) -> Self {
        Self::around(self.start, self.host_bits + 1)
    }

    fn prefix(self, family: IpFamily) -> Prefix {
        Prefix::of(address(family, self.start), family.width() - self.host_bits)
            .expect("a block is no longer than its family")
    }
}

impl FreeBlocks {
    /// All of `network` is free. Its length is at least 1.
    pub(crate) fn new(network: Prefix) -> Self {
        let root = Block::of(network);
        let mut blocks = Self {
            root,
            family: network.family(),
            by_length: vec![BTreeSet::new(); usize::from(root.host_bits) + 1],
            free: 0,
            #[cfg(test)]
            probes: std::cell::Cell::default(),
        };
        blocks.insert(root);
        blocks
    }

    /// Number of free addresses.
    pub(crate) fn free(&self) -> u128 {
        self.free
    }

    /// The free blocks, longest first.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Prefix> {
        self.by_length
            .iter()
            .enumerate()
            .flat_map(move |(bits, starts)| {
                let host_bits = u8::try_from(bits).unwrap();
                starts
                    .iter()
                    .map(move |&start| Block { start, host_bits }.prefix(self.family))
            })
    }

    /// Whether all of `prefix` is free.
    pub(crate) fn contains(&self, prefix: Prefix) -> bool {
        prefix.family() == self.family && self.holder(Block::of(prefix)).is_some()
    }

    /// Takes the lowest free block of `length` that does not meet `excluded`.
    pub(crate) fn take_lowest(&mut self, length: u8, excluded: &Excluded) -> Option<Prefix> {
        let host_bits = self.family.width().checked_sub(length)?;
        let mut from = self.root.start;
        loop {
            let block = self.lowest(host_bits, from)?;
            let Some(end) = excluded.meets(self.family, block.start, block.last()) else {
                let prefix = block.prefix(self.family);
                return self.take(prefix).then_some(prefix);
            };
            from = align_up(end.checked_add(1)?, host_bits)?;
        }
    }

    /// Takes exactly `prefix`; `false` unless all of it is free.
    pub(crate) fn take(&mut self, prefix: Prefix) -> bool {
        let block = Block::of(prefix);
        let holder = if prefix.family() == self.family {
            self.holder(block)
        } else {
            None
        };
        let Some(mut holder) = holder else {
            return false;
        };
        self.remove(holder);
        while holder != block {
            holder = Block::around(block.start, holder.host_bits - 1);
            self.insert(holder.buddy());
        }
        true
    }

    /// Takes what is free of `prefix` and says what that was.
    pub(crate) fn take_all(&mut self, prefix: Prefix) -> Vec<Prefix> {
        if self.take(prefix) {
            return vec![prefix];
        }
        let inside = self.inside(prefix);
        for block in &inside {
            self.remove(*block);
        }
        inside
            .into_iter()
            .map(|block| block.prefix(self.family))
            .collect()
    }

    /// Gives `prefix` back; `false` if it is outside or any of it is free.
    pub(crate) fn give(&mut self, prefix: Prefix) -> bool {
        let mut block = Block::of(prefix);
        let within = prefix.family() == self.family
            && block.host_bits <= self.root.host_bits
            && Block::around(block.start, self.root.host_bits) == self.root;
        if !within || self.holder(block).is_some() || !self.inside(prefix).is_empty() {
            return false;
        }
        while block != self.root && self.has(block.buddy()) {
            self.remove(block.buddy());
            block = block.parent();
        }
        self.insert(block);
        true
    }

    /// The free block that holds `block`.
    fn holder(&self, block: Block) -> Option<Block> {
        (block.host_bits..=self.root.host_bits)
            .map(|host_bits| Block::around(block.start, host_bits))
            .find(|around| self.has(*around))
    }

    /// The free blocks inside of `prefix` and smaller than it.
    fn inside(&self, prefix: Prefix) -> Vec<Block> {
        if prefix.family() != self.family {
            return Vec::new();
        }
        let outer = Block::of(prefix);
        let smaller = outer.host_bits.min(self.root.host_bits + 1);
        (0..smaller)
            .flat_map(|host_bits| {
                self.probe();
                self.by_length[usize::from(host_bits)]
                    .range(outer.start..=outer.last())
                    .map(move |&start| Block { start, host_bits })
            })
            .collect()
    }

    /// The lowest free block of that size at or behind `from`, which is aligned to it.
    fn lowest(&self, host_bits: u8, from: u128) -> Option<Block> {
        (host_bits..=self.root.host_bits)
            .filter_map(|larger| {
                let around = Block::around(from, larger);
                if self.has(around) {
                    return Some(from);
                }
                self.probe();
                self.by_length[usize::from(larger)]
                    .range(from..)
                    .next()
                    .copied()
            })
            .min()
            .map(|start| Block { start, host_bits })
    }

    fn has(&self, block: Block) -> bool {
        self.probe();
        self.by_length
            .get(usize::from(block.host_bits))
            .is_some_and(|starts| starts.contains(&block.start))
    }

    fn insert(&mut self, block: Block) {
        if self.by_length[usize::from(block.host_bits)].insert(block.start) {
            self.free += block.size();
        }
    }

    fn remove(&mut self, block: Block) {
        if self.by_length[usize::from(block.host_bits)].remove(&block.start) {
            self.free -= block.size();
        }
    }

    #[cfg(test)]
    fn probe(&self) {
        self.probes.set(self.probes.get() + 1);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "counts in tests only")]
    fn probe(&self) {}
}

/// Prefixes that shall not be handed out, merged for searching.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excluded {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Excluded {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut excluded = Self::default();
        for prefix in prefixes {
            let range = (bits(prefix.network()), bits(prefix.last()));
            match prefix.family() {
                IpFamily::V4 => excluded.v4.push(range),
                IpFamily::V6 => excluded.v6.push(range),
            }
        }
        merge(&mut excluded.v4);
        merge(&mut excluded.v6);
        excluded
    }

    /// Whether any of them shares an address with `prefix`.
    pub(crate) fn overlaps(&self, prefix: Prefix) -> bool {
        let (start, last) = (bits(prefix.network()), bits(prefix.last()));
        self.meets(prefix.family(), start, last).is_some()
    }

    /// The last address of the first that shares one with `start..=last`.
    fn meets(&self, family: IpFamily, start: u128, last: u128) -> Option<u128> {
        let ranges = match family {
            IpFamily::V4 => &self.v4,
            IpFamily::V6 => &self.v6,
        };
        let candidate = ranges.get(ranges.partition_point(|range| range.1 < start))?;
        (candidate.0 <= last).then_some(candidate.1)
    }
}

/// Sorts ranges and joins those that overlap, so that their ends ascend too.
fn merge(ranges: &mut Vec<(u128, u128)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let joined = next.0 <= before.1;
        if joined {
            before.1 = before.1.max(next.1);
        }
        joined
    });
}

fn mask(host_bits: u8) -> u128 {
    1u128
        .checked_shl(u32::from(host_bits))
        .map_or(u128::MAX, |size| size - 1)
}

fn align_up(address: u128, host_bits: u8) -> Option<u128> {
    let mask = mask(host_bits);
    Some(address.checked_add(mask)? & !mask)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(family: IpFamily, bits: u128) -> IpAddr {
    match family {
        IpFamily::V4 => {
            let bits = u32::try_from(bits).expect("a block of an IPv4 network has 32 bits");
            Ipv4Addr::from(bits).into()
        }
        IpFamily::V6 => Ipv6Addr::from(bits).into(),
    }
}
