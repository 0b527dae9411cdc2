//! Which VIPs a packet is for, and which of their rules takes it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Memory;
use crate::tables::{
    ADDRESS_ANSWER_ECHO, ADDRESS_NEAR, Key, Kind, MAX_RULES, Rule, View, VipPrefix,
};

/// An entry of the VIP tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    pub(super) other: u8,
    flags: u8,
    first: u32,
    count: u32,
}

impl Vip {
    pub(super) fn answers_echo(self) -> bool {
        self.flags & ADDRESS_ANSWER_ECHO != 0
    }
}

impl Memory {
    /// The VIPs of an address, longest prefix first.
    pub(super) fn vips(&self, address: IpAddr) -> Vec<Vip> {
        let settings = self.settings();
        let view = settings.views[usize::from(settings.active == 1)];
        let (lengths, count) = match address {
            IpAddr::V4(_) => (view.lengths4, view.count4),
            IpAddr::V6(_) => (view.lengths6, view.count6),
        };
        let lengths = lengths.into_iter().take(count.into());
        lengths
            .filter_map(|length| self.vip(&view, address, length))
            .filter(|vip| vip.count != 0)
            .collect()
    }

    /// Whether a client needs SNAT where it is needed at all.
    pub(super) fn is_near(&self, client: IpAddr) -> bool {
        let settings = self.settings();
        let view = settings.views[usize::from(settings.active == 1)];
        let full = if client.is_ipv4() { 32 } else { 128 };
        self.vip(&view, client, full)
            .is_some_and(|vip| vip.flags & ADDRESS_NEAR != 0)
    }

    fn vip(&self, view: &View, address: IpAddr, length: u8) -> Option<Vip> {
        let address = IpNet::new(address, length).ok()?.network();
        let buckets = self.sizes().vip_buckets;
        let bucket = VipPrefix { address, length }.bucket(view.seed, buckets);
        let copy = if self.settings().active == 1 {
            buckets
        } else {
            0
        };
        let bucket = (copy + bucket) as usize;
        match address {
            IpAddr::V4(address) => (0..4)
                .filter_map(|way| self.vip4(bucket * 4 + way))
                .find(|vip| {
                    vip.used != 0 && vip.address == address.octets() && vip.length == length
                })
                .map(|vip| Vip {
                    other: vip.other,
                    flags: vip.flags,
                    first: vip.first,
                    count: vip.count,
                }),
            IpAddr::V6(address) => (0..2)
                .filter_map(|way| self.vip6(bucket * 2 + way))
                .find(|vip| {
                    vip.used != 0 && vip.address == address.octets() && vip.length == length
                })
                .map(|vip| Vip {
                    other: vip.other,
                    flags: vip.flags,
                    first: vip.first,
                    count: vip.count,
                }),
        }
    }

    /// The first rule of these VIPs that takes a kind and a port; without a
    /// port (a fragment) any port will do.
    pub(super) fn matching(&self, vips: &[Vip], kind: Kind, port: Option<u16>) -> Option<Rule> {
        let takes = |rule: &Rule| {
            let fits = port.is_none_or(|port| (rule.low..=rule.high).contains(&port));
            rule.kinds & kind.bit() != 0 && (fits || !has_ports(kind))
        };
        vips.iter().flat_map(|vip| self.rules(*vip)).find(takes)
    }

    fn rules(&self, vip: Vip) -> impl Iterator<Item = Rule> + '_ {
        let copy = if self.settings().active == 1 {
            self.sizes().rules
        } else {
            0
        };
        (0..vip.count as usize)
            .take(MAX_RULES)
            .filter_map(move |rule| self.rule((copy + vip.first) as usize + rule))
    }
}

/// Whether packets of a kind have ports that rules look at.
fn has_ports(kind: Kind) -> bool {
    matches!(kind, Kind::Tcp | Kind::Udp | Kind::Sctp)
}

/// The destination port of a key.
pub(super) fn port(key: &Key) -> u16 {
    Key::split(key.ports).1
}
