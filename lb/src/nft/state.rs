//! What a plan makes of the tables: pure, so that nothing is sent before all
//! of it is known to be possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nlink::netlink::nftables::{SetElement, SetElementData, Verdict};

use super::contents::{Contents, address_and_port, goto, number, value};
use super::layout::{Ip, address, name};
use super::rules::{self, ChainRules, ServiceRules};
use crate::dataplane::{
    Error, Plan, PutServer, PutService, PutVip, ServerNumber, ServiceNumber, Slots, VipNumber,
};
use crate::service::{Identity, Mode, Policy, Protocol, Vip};

/// Everything that is installed, as far as this process was told.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) services: BTreeMap<ServiceNumber, PutService>,
    pub(super) vips: BTreeMap<VipNumber, PutVip>,
    pub(super) servers: BTreeMap<ServerNumber, PutServer>,
    pub(super) tables: BTreeMap<Ip, Contents>,
}

/// What changes besides sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Chains {
    /// Chains that are made or filled anew.
    pub(super) fill: BTreeMap<Ip, Vec<ChainRules>>,
    /// Chains that go.
    pub(super) delete: BTreeMap<Ip, BTreeSet<String>>,
}

impl State {
    /// Nothing but what always is.
    pub(super) fn empty() -> Self {
        let tables = Ip::BOTH.map(|ip| (ip, Contents::fixed()));
        Self {
            tables: tables.into(),
            ..Self::default()
        }
    }

    fn table(&mut self, ip: Ip) -> &mut Contents {
        self.tables.entry(ip).or_default()
    }

    /// Does what the plan says.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<Chains, Error> {
        let mut chains = Chains::default();
        for put in &plan.put_servers {
            self.put_server(put);
        }
        let mut changed = BTreeSet::new();
        for put in &plan.put_services {
            self.put_service(put, &mut chains);
            changed.insert(put.number);
        }
        let again = self
            .vips
            .values()
            .filter(|put| changed.contains(&put.service));
        for put in again.cloned().collect::<Vec<_>>() {
            self.point_vip(&put, &mut chains)?;
        }
        for vip in &plan.remove_vips {
            self.remove_vip(*vip, &mut chains);
        }
        for put in &plan.put_vips {
            self.put_vip(put, &mut chains)?;
        }
        for service in &plan.remove_services {
            self.remove_service(*service, &mut chains);
        }
        for server in &plan.remove_servers {
            self.remove_server(*server);
        }
        Ok(chains)
    }

    // === servers ===

    fn put_server(&mut self, put: &PutServer) {
        self.unreach(put.number);
        let PutServer {
            number: it,
            service,
            identity,
            server,
            mode,
        } = put;
        let key = number(it.get());
        let ip = Ip::of(server.address);
        for family in Ip::BOTH {
            let table = self.table(family);
            for set in [name::SERVER_PACKETS, name::SERVER_FLOWS] {
                table.put(set, &key, None);
            }
        }
        let names = registered(*identity, Some(*service));
        self.table(Ip::V4).put_named(name::SERVERS, &key, names);
        let table = self.table(ip);
        table.put(name::ALIVE, &key, None);
        if server.weight > 0 {
            table.put(name::OPEN, &key, None);
        }
        let to = address(server.address);
        table.put(name::TARGET, &key, Some(value(&to)));
        if let Some(port) = server.port {
            let to = address_and_port(server.address, port);
            table.put(name::TARGET_PORT, &key, Some(value(&to)));
        }
        let way = match mode {
            Mode::L2 => Some("l2"),
            Mode::L3Dsr { .. } => Some("l3dsr"),
            _ => None,
        };
        if let Some(way) = way {
            table.put(name::WAY, &key, Some(goto(way)));
        }
        if let Mode::Nat { .. } = mode {
            let chain = rules::snat_chain(*service);
            table.put(name::SNAT_DISPATCH, &key, Some(goto(&chain)));
            table.put(&rules::near_set(*service), &to, None);
        }
        self.servers.insert(*it, put.clone());
    }

    /// Takes a server out of everything but its counters.
    fn unreach(&mut self, server: ServerNumber) {
        let before = self.servers.remove(&server);
        for ip in Ip::BOTH {
            for set in [
                name::ALIVE,
                name::OPEN,
                name::SNAT_DISPATCH,
                name::TARGET,
                name::TARGET_PORT,
                name::WAY,
            ] {
                self.table(ip).remove(set, &number(server.get()));
            }
        }
        let Some(before) = before else { return };
        let (service, gone) = (before.service, before.server.address);
        let shared = self
            .servers
            .values()
            .any(|other| other.service == service && other.server.address == gone);
        let near = rules::near_set(service);
        let table = self.table(Ip::of(gone));
        if !shared && table.sets.contains_key(&near) {
            table.remove(&near, &address(gone));
        }
    }

    fn remove_server(&mut self, server: ServerNumber) {
        self.unreach(server);
        let key = number(server.get());
        for ip in Ip::BOTH {
            for set in [name::SERVER_PACKETS, name::SERVER_FLOWS, name::SERVERS] {
                self.table(ip).remove(set, &key);
            }
        }
    }

    // === services ===

    fn put_service(&mut self, put: &PutService, chains: &mut Chains) {
        let key = number(put.number.get());
        let names = registered(put.identity, None);
        self.table(Ip::V4).put_named(name::SERVICES, &key, names);
        for ip in Ip::BOTH {
            let table = self.table(ip);
            let hash = match put.policy {
                Policy::Maglev { .. } | Policy::SourceHash { .. } => put.hash.clone(),
                _ => Slots::default(),
            };
            let ring = fill_slots(table, &rules::ring_map(put.number), &put.ring);
            let hash = fill_slots(table, &rules::hash_map(put.number), &hash);
            let sources = fill_sources(table, ip, put);
            table.set(&rules::affinity_map(put.number));
            table.set(&rules::near_set(put.number));
            let made = ServiceRules {
                ip,
                put,
                ring,
                hash,
                sources,
            };
            chains.fill.entry(ip).or_default().extend(made.chains());
        }
        self.services.insert(put.number, put.clone());
    }

    fn remove_service(&mut self, service: ServiceNumber, chains: &mut Chains) {
        self.services.remove(&service);
        for ip in Ip::BOTH {
            let table = self.table(ip);
            table.remove(name::SERVICES, &number(service.get()));
            for set in [
                rules::ring_map(service),
                rules::hash_map(service),
                rules::snat_map(service),
                rules::affinity_map(service),
                rules::near_set(service),
            ] {
                table.sets.remove(&set);
            }
            let delete = chains.delete.entry(ip).or_default();
            delete.extend(rules::chains_of_service(service));
        }
    }

    // === VIPs ===

    fn put_vip(&mut self, put: &PutVip, chains: &mut Chains) -> Result<(), Error> {
        self.remove_vip_keys(put.number);
        let key = number(put.number.get());
        let names = registered(put.identity, Some(put.service));
        self.table(Ip::V4).put_named(name::VIPS, &key, names);
        let ip = Ip::of_net(put.vip.prefix);
        let table = self.table(ip);
        for set in [name::VIP_PACKETS, name::VIP_FLOWS] {
            table.put(set, &key, None);
        }
        let set = name::prefixes(put.vip.prefix.prefix_len());
        for element in vip_keys(ip, &put.vip) {
            table.put(&set, &element, Some(value(&key)));
        }
        self.vips.insert(put.number, put.clone());
        self.point_vip(put, chains)
    }

    /// Points a VIP to the chains of its service.
    fn point_vip(&mut self, put: &PutVip, chains: &mut Chains) -> Result<(), Error> {
        let missing = || Error::Missing {
            what: format!("service {}", put.service),
        };
        let mode = self.services.get(&put.service).ok_or_else(missing)?;
        let mode = mode.mode.clone();
        let ip = Ip::of_net(put.vip.prefix);
        let key = number(put.number.get());
        let chain = rules::vip(ip, put, &mode);
        let accept = SetElementData::Verdict(Verdict::Accept);
        let (filter, nat) = match mode {
            Mode::Nat { .. } => (accept, goto(&rules::nat_chain(put.service))),
            _ => (goto(&chain.name), accept),
        };
        let table = self.table(ip);
        table.put(name::DISPATCH, &key, Some(filter));
        table.put(name::NAT_DISPATCH, &key, Some(nat));
        let delete = chains.delete.entry(ip).or_default();
        delete.remove(&chain.name);
        chains.fill.entry(ip).or_default().push(chain);
        Ok(())
    }

    fn remove_vip(&mut self, vip: VipNumber, chains: &mut Chains) {
        self.vips.remove(&vip);
        self.remove_vip_keys(vip);
        for ip in Ip::BOTH {
            let table = self.table(ip);
            for set in [name::VIP_PACKETS, name::VIP_FLOWS, name::VIPS] {
                table.remove(set, &number(vip.get()));
            }
            let was = table.sets[name::DISPATCH].len();
            for set in [name::DISPATCH, name::NAT_DISPATCH] {
                table.remove(set, &number(vip.get()));
            }
            if table.sets[name::DISPATCH].len() < was {
                let delete = chains.delete.entry(ip).or_default();
                delete.insert(rules::vip_chain(vip));
            }
        }
    }

    fn remove_vip_keys(&mut self, vip: VipNumber) {
        let data = value(&number(vip.get()));
        for ip in Ip::BOTH {
            let sets = self.table(ip).sets.iter_mut();
            for (_, set) in sets.filter(|(set, _)| set.starts_with("prefixes_")) {
                set.retain(|_, entry| entry.data.as_ref() != Some(&data));
            }
        }
    }
}

/// How a number's owner is written down: whom it stands for and, for VIPs and
/// servers, the number of the service.
fn registered(identity: Identity, service: Option<ServiceNumber>) -> String {
    let service = service.map_or(0, ServiceNumber::get);
    format!("{identity} {service}")
}

/// The reverse of [`registered`].
pub(super) fn owner(comment: &str) -> Option<(Identity, Option<ServiceNumber>)> {
    let (identity, service) = comment.split_once(' ')?;
    let identity = Identity::from_bits(u64::from_str_radix(identity, 16).ok()?)?;
    Some((identity, ServiceNumber::new(service.parse().ok()?)))
}

/// Fills a table of slots with those servers that the family reaches; gives
/// their number.
fn fill_slots(table: &mut Contents, map: &str, slots: &Slots) -> u32 {
    let reached = slots
        .iter()
        .filter(|server| table.contains(name::ALIVE, &number(server.get())));
    let reached: Vec<_> = reached.collect();
    let set = table.set(map);
    set.clear();
    for (slot, server) in (0_u32..).zip(&reached) {
        let data = Some(value(&number(server.get())));
        table.put(map, &number(slot), data);
    }
    u32::try_from(reached.len()).expect("a table has at most a million slots")
}

fn fill_sources(table: &mut Contents, ip: Ip, put: &PutService) -> u32 {
    let map = rules::snat_map(put.number);
    table.set(&map).clear();
    let Mode::Nat { snat } = &put.mode else {
        return 0;
    };
    let of_family = |address: &&IpAddr| Ip::of(**address) == ip;
    let mut count = 0;
    for source in snat.addresses().iter().filter(of_family) {
        table.put(&map, &number(count), Some(value(&address(*source))));
        count += 1;
    }
    count
}

/// The keys of a VIP: protocol, address, port.
fn vip_keys(ip: Ip, vip: &Vip) -> Vec<SetElement> {
    use crate::service::Ports;
    let every = [(0, u16::MAX)];
    let ports: Vec<_> = match &vip.ports {
        Ports::All => every.to_vec(),
        Ports::Ranges(ranges) => ranges.iter().map(|r| (r.first(), r.last())).collect(),
    };
    let mut keys = Vec::new();
    for protocol in vip.protocols.iter() {
        let (protocols, ports) = match protocol {
            Protocol::Icmp => (vec![(ip.icmp(), ip.icmp())], &[(0, 0)][..]),
            Protocol::Other => (other_protocols(ip), &[(0, 0)][..]),
            Protocol::Sctp => (vec![(132, 132)], &ports[..]),
            Protocol::Tcp => (vec![(6, 6)], &ports[..]),
            Protocol::Udp => (vec![(17, 17)], &ports[..]),
        };
        for (first, last) in protocols {
            for (low, high) in ports {
                keys.push(SetElement::concat([
                    SetElement::range(vec![first], vec![last]),
                    address(vip.prefix.network()),
                    SetElement::port_range(*low, *high),
                ]));
            }
        }
    }
    keys
}

/// All protocols but TCP, UDP, SCTP and ICMP.
fn other_protocols(ip: Ip) -> Vec<(u8, u8)> {
    let mut others = Vec::new();
    let mut first = 0;
    let mut known = [6, 17, 132, ip.icmp()];
    known.sort_unstable();
    for protocol in known {
        if first < protocol {
            others.push((first, protocol - 1));
        }
        first = protocol + 1;
    }
    others.push((first, u8::MAX));
    others
}
