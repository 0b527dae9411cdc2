use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::{Error, ServiceNumber, VipNumber};
use crate::service::{Identity, Ports, Protocol, Protocols, Vip};
use crate::tables::{
    ADDRESS_ANSWER_ECHO, ADDRESS_NEAR, MAX_LENGTHS, MAX_RULES, Rule, Sizes, View, Vip4, Vip6,
    VipPrefix, refusal,
};

/// A VIP and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VipEntry {
    pub(super) identity: Identity,
    pub(super) vip: Vip,
    pub(super) service: ServiceNumber,
    /// L3DSR's code point, 0 in other modes.
    pub(super) dscp: u8,
}

/// One copy of the VIP tables, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VipTables {
    pub(super) view: View,
    pub(super) vips4: Vec<u8>,
    pub(super) vips6: Vec<u8>,
    pub(super) rules: Vec<u8>,
}

/// What one prefix has in the tables.
#[derive(Debug, Default, Clone)]
struct Prefix {
    rules: Vec<Rule>,
    near: bool,
    echo: bool,
}

impl VipTables {
    /// Builds the tables of these VIPs and near addresses.
    pub(super) fn build(
        vips: &BTreeMap<VipNumber, VipEntry>,
        near: &BTreeSet<IpAddr>,
        sizes: &Sizes,
    ) -> Result<Self, Error> {
        let prefixes = collect(vips, near);
        let rules_wanted: usize = prefixes.values().map(|prefix| prefix.rules.len()).sum();
        if rules_wanted > sizes.rules as usize {
            return Err(full("rules", sizes.rules as usize, rules_wanted));
        }
        if let Some(most) = prefixes.values().map(|prefix| prefix.rules.len()).max()
            && most > MAX_RULES
        {
            return Err(full("rules of one prefix", MAX_RULES, most));
        }
        let mut view = lengths(&prefixes)?;
        // Half-full buckets overflow now and then, with another seed elsewhere.
        for seed in 0..10_000_u64 {
            view.seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if let Some(tables) = place(&prefixes, view, sizes) {
                return Ok(tables);
            }
        }
        Err(full(
            "VIP and near addresses",
            sizes.vip_buckets as usize,
            prefixes.len(),
        ))
    }
}

fn full(table: &'static str, limit: usize, wanted: usize) -> Error {
    Error::Full {
        table,
        limit,
        wanted,
    }
}

fn collect(
    vips: &BTreeMap<VipNumber, VipEntry>,
    near: &BTreeSet<IpAddr>,
) -> BTreeMap<IpNet, Prefix> {
    let mut prefixes: BTreeMap<IpNet, Prefix> = BTreeMap::new();
    for (number, entry) in vips {
        let prefix = prefixes.entry(entry.vip.prefix).or_default();
        prefix.echo |= entry.vip.protocols.contains(Protocol::Icmp);
        prefix.rules.extend(rules(*number, entry));
    }
    for address in near {
        prefixes.entry(IpNet::from(*address)).or_default().near = true;
    }
    prefixes
}

fn rules(number: VipNumber, entry: &VipEntry) -> Vec<Rule> {
    let rule = |low, high| Rule {
        kinds: entry.vip.protocols.bits(),
        dscp: entry.dscp,
        low,
        high,
        service: entry.service.get(),
        vip: number.get(),
        identity: entry.identity.bits(),
    };
    match &entry.vip.ports {
        Ports::All => vec![rule(0, u16::MAX)],
        Ports::Ranges(ranges) => ranges
            .iter()
            .map(|range| rule(range.first(), range.last()))
            .collect(),
    }
}

fn lengths(prefixes: &BTreeMap<IpNet, Prefix>) -> Result<View, Error> {
    let of = |v4: bool| -> Vec<u8> {
        prefixes
            .iter()
            .filter(|(prefix, content)| prefix.addr().is_ipv4() == v4 && !content.rules.is_empty())
            .map(|(prefix, _)| prefix.prefix_len())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .rev()
            .collect()
    };
    let mut view = View::default();
    for (lengths, into, count) in [
        (of(true), &mut view.lengths4, &mut view.count4),
        (of(false), &mut view.lengths6, &mut view.count6),
    ] {
        if lengths.len() > MAX_LENGTHS {
            return Err(full("VIP prefix lengths", MAX_LENGTHS, lengths.len()));
        }
        into[..lengths.len()].copy_from_slice(&lengths);
        *count = u8::try_from(lengths.len()).expect("at most eight");
    }
    Ok(view)
}

/// The tables with the view's seed, unless a bucket overflows.
fn place(prefixes: &BTreeMap<IpNet, Prefix>, view: View, sizes: &Sizes) -> Option<VipTables> {
    let bytes = sizes.vip_buckets as usize * 64;
    let mut tables = VipTables {
        view,
        vips4: vec![0; bytes],
        vips6: vec![0; bytes],
        rules: Vec::new(),
    };
    for (prefix, content) in prefixes {
        let first = u32::try_from(tables.rules.len() / Rule::SIZE).expect("checked above");
        let count = u32::try_from(content.rules.len()).expect("checked above");
        for rule in &content.rules {
            tables.rules.extend(rule.encode());
        }
        let mut flags = if content.near { ADDRESS_NEAR } else { 0 };
        if !content.echo && count > 0 {
            flags |= ADDRESS_ANSWER_ECHO;
        }
        let name = VipPrefix {
            address: prefix.network(),
            length: prefix.prefix_len(),
        };
        let bucket = name.bucket(view.seed, sizes.vip_buckets) as usize * 64;
        match prefix.network() {
            IpAddr::V4(address) => {
                let vip = Vip4 {
                    address: address.octets(),
                    length: name.length,
                    used: 1,
                    other: refusal::REJECT,
                    flags,
                    first,
                    count,
                };
                put(&mut tables.vips4[bucket..bucket + 64], &vip.encode(), 5)?;
            }
            IpAddr::V6(address) => {
                let vip = Vip6 {
                    address: address.octets(),
                    length: name.length,
                    used: 1,
                    other: refusal::REJECT,
                    flags,
                    first,
                    count,
                };
                put(&mut tables.vips6[bucket..bucket + 64], &vip.encode(), 17)?;
            }
        }
    }
    Some(tables)
}

/// Puts an entry at the first empty place of its bucket.
fn put(bucket: &mut [u8], entry: &[u8], used: usize) -> Option<()> {
    let place = bucket
        .chunks_exact_mut(entry.len())
        .find(|place| place[used] == 0)?;
    place.copy_from_slice(entry);
    Some(())
}

/// The VIPs that tables hold, for a process that adopts them.
pub(super) fn decode(
    prefixes: impl IntoIterator<Item = (IpNet, u32, u32)>,
    rule: impl Fn(u32) -> Rule,
) -> BTreeMap<VipNumber, VipEntry> {
    let mut vips: BTreeMap<VipNumber, VipEntry> = BTreeMap::new();
    for (prefix, first, count) in prefixes {
        for index in first..first + count {
            let rule = rule(index);
            let (Some(number), Some(service), Some(identity)) = (
                VipNumber::new(rule.vip),
                ServiceNumber::new(rule.service),
                Identity::from_bits(rule.identity),
            ) else {
                continue;
            };
            let ranges = match vips.get(&number).map(|entry| &entry.vip.ports) {
                Some(Ports::Ranges(ranges)) => ranges.clone(),
                _ => Vec::new(),
            };
            vips.insert(
                number,
                VipEntry {
                    identity,
                    vip: Vip {
                        prefix,
                        protocols: protocols(rule.kinds),
                        ports: ports(&rule, ranges),
                    },
                    service,
                    dscp: rule.dscp,
                },
            );
        }
    }
    vips
}

fn ports(rule: &Rule, mut ranges: Vec<crate::service::PortRange>) -> Ports {
    if rule.low == 0 {
        return Ports::All;
    }
    ranges.extend(crate::service::PortRange::new(rule.low, rule.high));
    Ports::of(ranges)
}

fn protocols(kinds: u8) -> Protocols {
    let of: Vec<Protocol> = Protocol::ALL
        .into_iter()
        .filter(|protocol| Protocols::of(&[*protocol]).bits() & kinds != 0)
        .collect();
    Protocols::of(&of)
}
