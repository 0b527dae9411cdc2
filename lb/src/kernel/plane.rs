use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::arena::Arena;
use super::clock::Clock;
use super::hops::Hop;
use super::vips::{VipEntry, VipTables};
use super::{Program, Tables};
use crate::dataplane::{
    Applied, Error, Local, Plan, PutServer, PutService, ServerNumber, ServiceNumber, VipNumber,
};
use crate::service::{Mode, OnEmpty, Policy, Snat};
use crate::tables::{
    self, Kind, Meta, SERVER_HAS_KEY, SERVER_IN_USE, SERVER_V6, SETTING_NAT, Server, Service,
    Settings, Sizes, State, Table, VERSIONS, mode, policy, refusal, snat,
};

/// What this process knows of the tables, and writes them by.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) sizes: Sizes,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) local: Local,
    /// Largest packet to a server, where it is not left to the routes.
    pub(super) mtu: Option<u16>,
    pub(super) vips: BTreeMap<VipNumber, VipEntry>,
    pub(super) services: BTreeMap<ServiceNumber, Held>,
    pub(super) servers: BTreeMap<ServerNumber, Server>,
    /// Servers that are gone and whose flows are still in the tables.
    pub(super) unclean: BTreeSet<ServerNumber>,
    pub(super) slots: Arena,
    pub(super) sources: Arena,
    pub(super) written: Option<VipTables>,
}

/// A service as it stands in the tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) value: Service,
    pub(super) dscp: Vec<(ipnet::IpNet, u8)>,
    /// Its tables, to be seen again if they do not change.
    pub(super) hash: Option<crate::dataplane::Slots>,
    pub(super) ring: Option<crate::dataplane::Slots>,
}

impl Held {
    pub(super) fn slots(&self) -> Range<u32> {
        rows(self.value.slots_base, self.value.slots_count)
    }

    pub(super) fn ring(&self) -> Range<u32> {
        rows(self.value.ring_base, self.value.ring_count)
    }

    pub(super) fn sources(&self) -> Range<u32> {
        let count = self.value.sources4 + self.value.sources6;
        self.value.sources_base..self.value.sources_base + count
    }
}

/// The rows of 32 slots that a table of slots takes.
fn rows(base: u32, count: u32) -> Range<u32> {
    base / 32..base / 32 + count.div_ceil(32)
}

impl Book {
    /// Of empty tables.
    pub(super) fn new(sizes: Sizes) -> Self {
        let clock = Clock::of_this_kernel();
        Self {
            sizes,
            clock,
            settings: Settings {
                table_seed: fastrand::u64(..),
                tick_shift: clock.shift,
                port_low: 1_024,
                port_high: 65_535,
                idle: clock.limits(&crate::service::IdleTimeouts::default()),
                mac: [0x02, 0, 0, 0, 0, 0x01],
                ..Settings::default()
            },
            local: Local::default(),
            mtu: None,
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            servers: BTreeMap::new(),
            unclean: BTreeSet::new(),
            slots: Arena::new(sizes.slots / 32),
            sources: Arena::new(sizes.sources),
            written: None,
        }
    }

    /// Checks that the plan has room and names what is there, before anything is written.
    fn check(&self, plan: &Plan) -> Result<(), Error> {
        let limit = |table, limit: u32, wanted: u16| {
            if u32::from(wanted) < limit {
                return Ok(());
            }
            Err(Error::Full {
                table,
                limit: limit as usize - 1,
                wanted: usize::from(wanted),
            })
        };
        for server in &plan.put_servers {
            limit("servers", self.sizes.servers, server.number.get())?;
        }
        for service in &plan.put_services {
            limit("services", self.sizes.services, service.number.get())?;
        }
        for vip in &plan.put_vips {
            limit("VIPs", self.sizes.vips, vip.number.get())?;
            let known = self.services.contains_key(&vip.service)
                || plan
                    .put_services
                    .iter()
                    .any(|service| service.number == vip.service);
            if !known {
                return Err(Error::Missing {
                    what: format!("service {}", vip.service),
                });
            }
        }
        Ok(())
    }

    /// Makes the difference; see [`Dataplane::apply`](crate::dataplane::Dataplane::apply).
    pub(super) fn apply(&mut self, program: &Program, plan: &Plan) -> Result<Applied, Error> {
        self.check(plan)?;
        let tables = program.tables();
        let mut applied = Applied::default();
        if let Some(local) = plan.local {
            self.local = local;
        }
        for put in &plan.put_servers {
            applied.writes += self.put_server(program, put);
        }
        // Room for all tables is taken before the first of them is in force.
        let mut taken = Vec::new();
        for put in &plan.put_services {
            match self.reserve(put) {
                Ok(ranges) => taken.push(ranges),
                Err(error) => {
                    let now = Instant::now();
                    for (slots, ring, sources) in taken.into_iter().flatten() {
                        self.slots.retire(slots, now);
                        self.slots.retire(ring, now);
                        self.sources.retire(sources, now);
                    }
                    return Err(error);
                }
            }
        }
        let mut vips = self.vips.clone();
        for number in &plan.remove_vips {
            vips.remove(number);
        }
        for (put, ranges) in plan.put_services.iter().zip(taken) {
            applied.writes += self.put_service(tables, put, ranges.as_ref());
        }
        for put in &plan.put_vips {
            vips.insert(
                put.number,
                VipEntry {
                    identity: put.identity,
                    vip: put.vip.clone(),
                    service: put.service,
                    dscp: 0,
                },
            );
        }
        self.name_code_points(&mut vips);
        self.write_settings(tables);
        applied.writes += self.put_vips(tables, vips)?;
        for number in &plan.remove_services {
            applied.writes += self.remove_service(tables, *number);
        }
        for number in &plan.remove_servers {
            applied.flows_forgotten += self.remove_server(tables, *number);
            applied.writes += 1;
        }
        Ok(applied)
    }

    fn put_server(&mut self, program: &Program, put: &PutServer) -> usize {
        let tables = program.tables();
        if self.unclean.contains(&put.number) {
            let gone = std::mem::take(&mut self.unclean);
            super::flows::purge(tables, &self.sizes, &gone);
        }
        let value = server_value(put, self.servers.get(&put.number));
        let value = match super::hops::resolve(program, address_of(&value)) {
            Some(hop) => with_hop(value, hop, self.mtu),
            None => value,
        };
        if self.servers.get(&put.number) == Some(&value) {
            return 0;
        }
        let region = tables.of(Table::Servers);
        region.write(put.number.index() * Server::SIZE, &value.encode());
        self.servers.insert(put.number, value);
        1
    }

    /// Room for what of a service's tables changes.
    #[expect(clippy::type_complexity, reason = "three ranges, or none to change")]
    fn reserve(
        &mut self,
        put: &PutService,
    ) -> Result<Option<(Range<u32>, Range<u32>, Range<u32>)>, Error> {
        if let Some(held) = self.services.get(&put.number)
            && held.hash.as_ref() == Some(&put.hash)
            && held.ring.as_ref() == Some(&put.ring)
            && snat_addresses(&put.mode).is_empty()
            && held.sources().is_empty()
        {
            return Ok(None);
        }
        let length = |slots: &crate::dataplane::Slots| {
            u32::try_from(slots.len().div_ceil(32)).unwrap_or(u32::MAX)
        };
        let sources = u32::try_from(snat_addresses(&put.mode).len()).unwrap_or(u32::MAX);
        let room = |arena: &mut Arena, length: u32, table, limit: u32| {
            arena.take_waiting(length).ok_or(Error::Full {
                table,
                limit: limit as usize,
                wanted: length as usize,
            })
        };
        let hash = room(
            &mut self.slots,
            length(&put.hash),
            "slots/32",
            self.sizes.slots / 32,
        )?;
        let ring = room(
            &mut self.slots,
            length(&put.ring),
            "slots/32",
            self.sizes.slots / 32,
        )?;
        let sources = room(
            &mut self.sources,
            sources,
            "SNAT addresses",
            self.sizes.sources,
        )?;
        Ok(Some((hash, ring, sources)))
    }

    /// Writes a service's next version and puts it in force.
    fn put_service(
        &mut self,
        tables: &Tables,
        put: &PutService,
        ranges: Option<&(Range<u32>, Range<u32>, Range<u32>)>,
    ) -> usize {
        let old = self.services.remove(&put.number);
        let mut value = service_value(put, self.clock);
        value.total_weight = self
            .servers
            .values()
            .filter(|server| server.service == put.number.get())
            .map(|server| u32::from(server.weight))
            .sum();
        let mut writes = 1;
        if let Some((hash, ring, sources)) = ranges {
            write_slots(tables, hash, &put.hash);
            write_slots(tables, ring, &put.ring);
            let (v4, v6) = write_sources(tables, sources, &put.mode);
            value.slots_base = hash.start * 32;
            value.ring_base = ring.start * 32;
            value.sources_base = sources.start;
            (value.sources4, value.sources6) = (v4, v6);
            writes += put.hash.len() + put.ring.len();
        } else if let Some(old) = &old {
            value.slots_base = old.value.slots_base;
            value.ring_base = old.value.ring_base;
        }
        value.slots_count = u32::try_from(put.hash.len()).expect("room was found for them");
        value.ring_count = u32::try_from(put.ring.len()).expect("room was found for them");
        write_service(tables, put.number, &value);
        if let Some(old) = old.filter(|_| ranges.is_some()) {
            self.retire(&old);
        }
        self.services.insert(
            put.number,
            Held {
                value,
                dscp: code_points(&put.mode),
                hash: Some(put.hash.clone()),
                ring: Some(put.ring.clone()),
            },
        );
        writes
    }

    fn retire(&mut self, old: &Held) {
        let now = Instant::now();
        self.slots.retire(old.slots(), now);
        self.slots.retire(old.ring(), now);
        self.sources.retire(old.sources(), now);
    }

    /// Gives each VIP of an L3DSR service its code point.
    fn name_code_points(&self, vips: &mut BTreeMap<VipNumber, VipEntry>) {
        for entry in vips.values_mut() {
            let Some(held) = self.services.get(&entry.service) else {
                continue;
            };
            let point = held
                .dscp
                .iter()
                .find(|(prefix, _)| *prefix == entry.vip.prefix);
            entry.dscp = point.map_or(0, |(_, dscp)| *dscp);
        }
    }

    /// Writes the VIP tables' other copy, if they change, and puts it in force.
    fn put_vips(
        &mut self,
        tables: &Tables,
        vips: BTreeMap<VipNumber, VipEntry>,
    ) -> Result<usize, Error> {
        let built = VipTables::build(&vips, &self.near(), &self.sizes)?;
        self.vips = vips;
        if self.written.as_ref() == Some(&built) {
            return Ok(0);
        }
        let copy = 1 - (self.settings.active & 1);
        let at = |table: Table| self.sizes.bytes(table) / 2 * copy as usize;
        tables
            .of(Table::Vips4)
            .write(at(Table::Vips4), &built.vips4);
        tables
            .of(Table::Vips6)
            .write(at(Table::Vips6), &built.vips6);
        tables
            .of(Table::Rules)
            .write(at(Table::Rules), &built.rules);
        self.settings.views[copy as usize] = built.view;
        self.settings.active = copy;
        self.write_settings(tables);
        let writes = built.rules.len() / tables::Rule::SIZE;
        self.written = Some(built);
        Ok(writes)
    }

    /// Clients whose source NAT translates when it must.
    fn near(&self) -> BTreeSet<IpAddr> {
        let needed: BTreeSet<u16> = self
            .services
            .iter()
            .filter(|(_, held)| held.value.mode == mode::NAT && held.value.snat == snat::NEEDED)
            .map(|(number, _)| number.get())
            .collect();
        if needed.is_empty() {
            return BTreeSet::new();
        }
        let servers = self
            .servers
            .values()
            .filter(|server| needed.contains(&server.service))
            .map(address_of);
        let own = [
            self.local.v4.map(IpAddr::from),
            self.local.v6.map(IpAddr::from),
        ];
        servers.chain(own.into_iter().flatten()).collect()
    }

    /// Writes the settings; the word that puts a copy of the VIP tables in force is last.
    pub(super) fn write_settings(&mut self, tables: &Tables) {
        let nat = self
            .services
            .values()
            .any(|held| held.value.mode == mode::NAT);
        self.settings.flags &= !SETTING_NAT;
        if nat {
            self.settings.flags |= SETTING_NAT;
        }
        self.settings.source4 = self.local.v4.map_or([0; 4], |v4| v4.octets());
        self.settings.source6 = self.local.v6.map_or([0; 16], |v6| v6.octets());
        for held in self.services.values() {
            for (longest, limit) in self.settings.idle.iter_mut().zip(held.value.idle) {
                *longest = (*longest).max(limit);
            }
            let affinity = Kind::Affinity as usize * 4 + State::Established as usize;
            self.settings.idle[affinity] = self.settings.idle[affinity].max(held.value.affinity);
        }
        let bytes = self.settings.encode();
        let region = tables.of(Table::Settings);
        // What stands behind says how the flow tables are cut; see `write_slices`.
        region.write(8, &bytes[8..super::read::SLICES_AT]);
        let first = u64::from_le_bytes(bytes[..8].try_into().expect("eight of them"));
        region.long(0).store(first, Ordering::Release);
    }

    fn remove_service(&mut self, tables: &Tables, number: ServiceNumber) -> usize {
        let Some(old) = self.services.remove(&number) else {
            return 0;
        };
        write_service(tables, number, &Service::default());
        self.retire(&old);
        1
    }

    /// Takes a server out of use. Its entries in the flow tables mean nothing
    /// from then on; they are freed before its number is used again.
    fn remove_server(&mut self, tables: &Tables, number: ServerNumber) -> u64 {
        let region = tables.of(Table::Servers);
        let Some(old) = self.servers.remove(&number) else {
            return 0;
        };
        let gone = Server {
            flags: 0,
            identity: 0,
            ..old
        };
        region.write(number.index() * Server::SIZE, &gone.encode());
        self.unclean.insert(number);
        tables
            .of(Table::Loads)
            .long(number.index() * 8)
            .load(Ordering::Relaxed)
    }
}

pub(super) fn address_of(server: &Server) -> IpAddr {
    if server.flags & SERVER_V6 != 0 {
        IpAddr::from(server.address)
    } else {
        let [a, b, c, d, ..] = server.address;
        IpAddr::from([a, b, c, d])
    }
}

fn server_value(put: &PutServer, old: Option<&Server>) -> Server {
    let server = &put.server;
    let mut value = Server {
        flags: SERVER_IN_USE,
        service: put.service.get(),
        port: server.port.unwrap_or(0),
        weight: server.weight,
        identity: put.identity.bits(),
        ..old.copied().unwrap_or_default()
    };
    match server.address {
        IpAddr::V4(v4) => value.address[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => {
            value.address = v6.octets();
            value.flags |= SERVER_V6;
        }
    }
    match &put.mode {
        Mode::Gre => {
            if let Some(key) = server.key {
                value.flags |= SERVER_HAS_KEY;
                value.key = key;
            }
        }
        Mode::Vxlan { vni, .. } => value.key = server.vni.unwrap_or(*vni).value(),
        _ => {}
    }
    if let Some(mac) = server.mac {
        value.mac = mac.octets();
    }
    value
}

/// The server with its next hop. In L2 mode its own Ethernet address is the hop's, if it is told.
pub(super) fn with_hop(mut server: Server, hop: Hop, mtu: Option<u16>) -> Server {
    server.ifindex = hop.ifindex;
    server.hop_source = hop.source;
    server.hop_mac = hop.destination;
    server.mtu = mtu.unwrap_or(hop.mtu);
    server
}

fn service_value(put: &PutService, clock: Clock) -> Service {
    let mut value = Service {
        used: 1,
        on_empty: match put.on_empty {
            OnEmpty::Drop => refusal::DROP,
            OnEmpty::Reject => refusal::REJECT,
        },
        affinity: put.affinity.map_or(0, |time| clock.ticks(time).max(1)),
        idle: clock.limits(&put.idle),
        identity: put.identity.bits(),
        ..Service::default()
    };
    (value.mode, value.port) = match &put.mode {
        Mode::L2 => (mode::L2, 0),
        Mode::Gre => (mode::GRE, 0),
        Mode::Ipip => (mode::IPIP, 0),
        Mode::Gue { port } => (mode::GUE, *port),
        Mode::Vxlan { port, .. } => (mode::VXLAN, *port),
        Mode::L3Dsr { .. } => (mode::L3DSR, 0),
        Mode::Nat { .. } => (mode::NAT, 0),
    };
    if let Mode::Nat { snat } = &put.mode {
        value.snat = match snat {
            Snat::Never => snat::NEVER,
            Snat::WhenNeeded(_) => snat::NEEDED,
            Snat::Always(_) => snat::ALWAYS,
        };
    }
    value.policy = match put.policy {
        Policy::WeightedRoundRobin => policy::ROUND_ROBIN,
        Policy::LeastConnections => policy::LEAST,
        Policy::Maglev { .. } => policy::HASH,
        Policy::SourceHash { .. } => policy::SOURCE,
        Policy::BoundedLoad { percent, .. } => {
            value.spill_factor = u16::try_from(u32::from(percent) * 256 / 100).unwrap_or(u16::MAX);
            policy::SPILL
        }
        Policy::Spill { above, .. } => {
            (value.spill_factor, value.spill_above) = (256, above);
            policy::SPILL
        }
    };
    value
}

fn snat_addresses(mode: &Mode) -> &[IpAddr] {
    match mode {
        Mode::Nat { snat } => snat.addresses(),
        _ => &[],
    }
}

fn code_points(mode: &Mode) -> Vec<(ipnet::IpNet, u8)> {
    match mode {
        Mode::L3Dsr { dscp } => dscp.iter().map(|(vip, dscp)| (*vip, dscp.get())).collect(),
        _ => Vec::new(),
    }
}

fn write_slots(tables: &Tables, rows: &Range<u32>, slots: &crate::dataplane::Slots) {
    let bytes: Vec<u8> = slots
        .iter()
        .flat_map(|server| server.get().to_le_bytes())
        .collect();
    tables
        .of(Table::Slots)
        .write(rows.start as usize * 64, &bytes);
}

/// Writes SNAT addresses, IPv4 first; gives how many of each family there are.
fn write_sources(tables: &Tables, rows: &Range<u32>, mode: &Mode) -> (u32, u32) {
    let mut counts = (0, 0);
    let mut bytes = Vec::new();
    let addresses = snat_addresses(mode);
    for address in addresses.iter().filter(|a| a.is_ipv4()) {
        if let IpAddr::V4(v4) = address {
            bytes.extend(v4.octets());
            bytes.extend([0; 12]);
            counts.0 += 1;
        }
    }
    for address in addresses {
        if let IpAddr::V6(v6) = address {
            bytes.extend(v6.octets());
            counts.1 += 1;
        }
    }
    tables
        .of(Table::Sources)
        .write(rows.start as usize * 16, &bytes);
    counts
}

/// Writes the next version of a service, then the word that names it.
fn write_service(tables: &Tables, number: ServiceNumber, value: &Service) {
    let generation = tables.of(Table::Generations).long(number.index() * 8);
    let next = generation.load(Ordering::Relaxed) + 1;
    let version = number.index() * VERSIONS as usize
        + usize::try_from(next % u64::from(VERSIONS)).expect("below four");
    tables
        .of(Table::Services)
        .write(version * Service::SIZE, &value.encode());
    generation.store(next, Ordering::Release);
}

/// What an entry's word says of a flow that counts as live.
pub(super) fn is_live(meta: Meta) -> bool {
    (meta.kind as u8) <= Kind::Other as u8
        && matches!(meta.state, State::Opening | State::Established)
}
