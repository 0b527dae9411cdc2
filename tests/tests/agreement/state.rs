//! Random tables: services, servers, VIPs and settings as control could write
//! them, small enough that everything meets everything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use carrick_lb::model::Memory;
use carrick_lb::tables::{
    Kind, Rule, SERVER_HAS_KEY, SERVER_IN_USE, SERVER_V6, SETTING_NAT, Server, Service, Settings,
    Sizes, VERSIONS, View, Vip4, Vip6, VipPrefix, mode,
};
use proptest::prelude::*;
use proptest::sample::select;

/// Services, numbered from 1.
pub(crate) const SERVICES: u16 = 4;
/// Servers, numbered from 1; each belongs to service 1 + (number − 1) mod 4.
pub(crate) const SERVERS: u16 = 16;
/// Slots for each table of each version of a service.
const ROOM: u32 = 32;

/// Tables small enough to overflow.
pub(crate) fn sizes(slices: u32, buckets: u32) -> Sizes {
    Sizes {
        cpus: 2,
        slices,
        buckets4: buckets,
        buckets6: buckets,
        nat_buckets4: buckets,
        nat_buckets6: buckets,
        vip_buckets: 8,
        rules: 32,
        services: u32::from(SERVICES) + 1,
        vips: 16,
        servers: u32::from(SERVERS) + 1,
        slots: u32::from(SERVICES + 1) * VERSIONS * 2 * ROOM,
        sources: 16,
        journal: 4,
        fixed_clock: 1,
    }
}

/// Everything that control writes.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) services: Vec<ServiceState>,
    pub(crate) servers: Vec<Server>,
    pub(crate) vips: Vec<VipState>,
    pub(crate) sources: Vec<[u8; 16]>,
}

/// A service with its slot tables, as positions among its own servers.
#[derive(Clone, Debug)]
pub(crate) struct ServiceState {
    pub(crate) service: Service,
    pub(crate) v6: bool,
    pub(crate) slots: Vec<u8>,
    pub(crate) ring: Vec<u8>,
}

/// A prefix with its rules, or an address that is near.
#[derive(Clone, Debug)]
pub(crate) struct VipState {
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
    pub(crate) other: u8,
    pub(crate) flags: u8,
    pub(crate) rules: Vec<Rule>,
}

/// The addresses of clients, VIPs and servers: few, so that they meet.
pub(crate) fn address(v6: bool, host: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, host).into()
    }
}

/// Hosts that VIPs have.
pub(crate) const VIP_HOSTS: [u8; 2] = [1, 2];
/// Hosts that clients have.
pub(crate) const CLIENT_HOSTS: [u8; 3] = [65, 66, 129];
/// Hosts that servers have; the kernel knows the way to the first two.
pub(crate) const SERVER_HOSTS: [u8; 6] = [192, 193, 194, 195, 196, 197];
/// Hosts that packets are translated from.
const SNAT_HOSTS: [u8; 3] = [224, 225, 226];

/// Ports of VIPs, servers and clients.
pub(crate) const PORTS: [u16; 6] = [80, 81, 443, 1024, 1025, 8080];

fn idle() -> impl Strategy<Value = [u16; 32]> {
    let limit =
        prop_oneof![3 => Just(3_u16), 1 => Just(0), 1 => Just(1), 1 => Just(40), 1 => Just(4_000)];
    proptest::array::uniform32(limit)
}

/// Addresses that the kernel takes for a source of ours.
fn own6() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_map(|mut octets| {
        octets[0] = 0xfd;
        octets
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let ports = select(vec![
        (1024_u16, 1025_u16),
        (1024, 65_535),
        (1, 65_535),
        (8080, 8080),
        (9, 8),
    ]);
    let budget = select(vec![0_u32, 0, 0, 1, 3, 20]);
    let idle = prop_oneof![2 => idle(), 1 => Just([40; 32])];
    let part = (
        select(vec![0_u32, 1, 1, 2, 3, 3]),
        any::<u64>(),
        any::<u64>(),
        0..0x2000_u32,
        budget,
        ports,
        idle,
    );
    let views = (
        0..2_u32,
        any::<[u64; 2]>(),
        any::<[u8; 4]>(),
        own6(),
        any::<[u8; 6]>(),
    );
    (part, views).prop_map(
        |((flags, table_seed, slot_seed, clock, budget, ports, idle), rest)| {
            let (active, seeds, source4, source6, mac) = rest;
            let view = |seed| View {
                seed,
                ..View::default()
            };
            Settings {
                active,
                flags,
                table_seed,
                slot_seed,
                clock,
                tick_shift: 9,
                budget,
                port_low: ports.0,
                port_high: ports.1,
                source4,
                source6,
                idle,
                views: seeds.map(view),
                mac,
            }
        },
    )
}

fn slots() -> impl Strategy<Value = Vec<u8>> {
    let length =
        prop_oneof![1 => Just(0_usize), 1 => Just(1), 6 => 2..usize::try_from(ROOM).unwrap()];
    length.prop_flat_map(|length| proptest::collection::vec(0..4_u8, length))
}

/// A service without its tables and SNAT addresses.
fn bare_service() -> impl Strategy<Value = Service> {
    let modes = prop_oneof![2 => 0..6_u8, 1 => Just(mode::NAT)];
    let choices = (
        modes,
        0..5_u8,
        0..3_u8,
        0..3_u8,
        select(vec![6080_u16, 4789]),
    );
    let spill = (
        0..12_u32,
        0..3_u16,
        select(vec![256_u16, 300, 1]),
        select(vec![0_u16, 0, 1, 6]),
    );
    let idle = prop_oneof![2 => idle(), 1 => Just([40; 32])];
    (choices, spill, idle, 0..4_u32, 0..4_u32).prop_map(
        |(choices, spill, idle, sources4, sources6)| {
            let (mode, policy, on_empty, snat, port) = choices;
            let (total_weight, spill_above, spill_factor, affinity) = spill;
            Service {
                mode,
                policy,
                on_empty,
                snat,
                port,
                used: 1,
                total_weight,
                spill_above,
                spill_factor,
                affinity,
                sources4,
                sources6,
                idle,
                ..Service::default()
            }
        },
    )
}

pub(crate) fn service() -> impl Strategy<Value = ServiceState> {
    (bare_service(), any::<bool>(), slots(), slots()).prop_map(|(service, v6, slots, ring)| {
        ServiceState {
            service,
            v6,
            slots,
            ring,
        }
    })
}

pub(crate) fn server() -> impl Strategy<Value = Server> {
    let flags = (prop::bool::weighted(0.98), any::<bool>(), any::<bool>());
    let names = (
        select(SERVER_HOSTS.to_vec()),
        select(vec![0_u16, 0, 8080, 81]),
        0..4_u16,
    );
    let hop = (
        any::<[u8; 6]>(),
        any::<[u8; 6]>(),
        select(vec![0_u32, 1, 7, 7]),
    );
    let mtu = select(vec![0_u16, 0, 0, 600, 1280]);
    (flags, names, hop, any::<u32>(), any::<[u8; 6]>(), mtu).prop_map(
        |(flags, names, hop, key, mac, mtu)| {
            let (in_use, v6, has_key) = flags;
            let (host, port, weight) = names;
            let (hop_mac, hop_source, ifindex) = hop;
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            Server {
                flags: bit(in_use, SERVER_IN_USE)
                    | bit(v6, SERVER_V6)
                    | bit(has_key, SERVER_HAS_KEY),
                port,
                weight,
                address: padded(address(v6, host)),
                hop_mac,
                hop_source,
                ifindex,
                key,
                mac,
                mtu,
                ..Server::default()
            }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = select(vec![
        (0_u16, 65_535_u16),
        (0, 65_535),
        (80, 81),
        (443, 443),
        (1024, 2000),
    ]);
    let kinds = prop_oneof![4 => Just(31_u8), 1 => 0..32_u8];
    (kinds, 1..64_u8, ports, 1..=SERVICES, 1..16_u16).prop_map(
        |(kinds, dscp, (low, high), service, vip)| Rule {
            kinds,
            dscp,
            low,
            high,
            service,
            vip,
            identity: 0,
        },
    )
}

fn vip() -> impl Strategy<Value = VipState> {
    let lengths =
        prop_oneof![4 => Just(0_u8), 1 => Just(1), 1 => Just(2), 1 => Just(8), 1 => Just(255)];
    let rules = prop_oneof![1 => Just(vec![]), 9 => proptest::collection::vec(rule(), 1..4)];
    let host = prop_oneof![6 => select(VIP_HOSTS.to_vec()), 1 => select(CLIENT_HOSTS.to_vec())];
    (any::<bool>(), host, lengths, 0..3_u8, 0..4_u8, rules).prop_map(
        |(v6, host, shorter, other, flags, rules)| {
            let full: u8 = if v6 { 128 } else { 32 };
            VipState {
                address: address(v6, host),
                length: full.saturating_sub(shorter),
                other,
                flags,
                rules,
            }
        },
    )
}

/// Any state; some have nothing but NAT.
pub(crate) fn state() -> impl Strategy<Value = State> {
    let services = proptest::collection::vec(service(), usize::from(SERVICES));
    let servers = proptest::collection::vec(server(), usize::from(SERVERS));
    let vips = proptest::collection::vec(vip(), 1..12);
    let nat = prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)];
    (settings(), services, servers, vips, nat).prop_map(
        |(settings, services, servers, vips, nat)| {
            let hosts = SNAT_HOSTS.into_iter().cycle().take(8);
            let sources = hosts.enumerate();
            let sources = sources.map(|(at, host)| padded(address(at % 6 >= 3, host)));
            let mut state = State {
                settings,
                services,
                servers,
                vips,
                sources: sources.collect(),
            };
            if let Some(v6) = nat {
                state.make_nat(v6);
            }
            state
        },
    )
}

impl State {
    /// Makes all services NAT, and all VIPs of one family.
    fn make_nat(&mut self, v6: bool) {
        self.settings.flags |= SETTING_NAT;
        for service in &mut self.services {
            service.v6 = v6;
            service.service.mode = mode::NAT;
        }
        for vip in &mut self.vips {
            let full: u8 = if vip.address.is_ipv6() { 128 } else { 32 };
            let shorter = full - vip.length;
            vip.address = address(v6, last(vip.address));
            vip.length = if v6 {
                128 - shorter
            } else {
                32_u8.saturating_sub(shorter)
            };
        }
    }
}

/// The last byte of an address, which tells hosts apart.
pub(crate) fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

impl State {
    /// Writes it as control would.
    pub(crate) fn write(&self, memory: &mut Memory) {
        let mut settings = self.settings;
        for active in 0..2 {
            self.write_vips(memory, &mut settings, active);
        }
        memory.set_settings(&settings);
        for (at, source) in self.sources.iter().enumerate() {
            memory.set_source(at, *source);
        }
        for (at, server) in self.servers.iter().enumerate() {
            self.write_server(memory, at, server);
        }
        for (at, service) in self.services.iter().enumerate() {
            write_service(memory, u16::try_from(at).unwrap() + 1, service);
        }
    }

    /// Writes a server; modes that keep the IP header get one of their family.
    pub(crate) fn write_server(&self, memory: &mut Memory, at: usize, server: &Server) {
        let of = at % usize::from(SERVICES);
        let service = &self.services[of];
        let mut server = Server {
            service: u16::try_from(of).unwrap() + 1,
            ..*server
        };
        if keeps_ip(&service.service) && (server.flags & SERVER_V6 != 0) != service.v6 {
            server.flags ^= SERVER_V6;
            server.address = padded(address(service.v6, server_host(at)));
        }
        memory.set_server(at + 1, &server);
    }

    fn write_vips(&self, memory: &mut Memory, settings: &mut Settings, copy: usize) {
        let sizes = *memory.sizes();
        let offset = u32::try_from(copy).unwrap();
        let mut next = 0;
        let mut lengths = [Vec::new(), Vec::new()];
        // The copy that is not in force lacks the first VIP.
        let skipped = usize::from(settings.active != offset);
        for vip in self.vips.iter().skip(skipped) {
            let prefix = ipnet::IpNet::new(vip.address, vip.length)
                .unwrap()
                .network();
            let prefix = VipPrefix {
                address: prefix,
                length: vip.length,
            };
            let bucket = prefix.bucket(settings.views[copy].seed, sizes.vip_buckets);
            let bucket = (offset * sizes.vip_buckets + bucket) as usize;
            let rules = self.rules(vip);
            if !put_vip(memory, vip, &prefix, bucket, next, rules.len()) {
                continue;
            }
            for rule in rules {
                memory.set_rule((offset * sizes.rules + next) as usize, &rule);
                next += 1;
            }
            lengths[usize::from(vip.address.is_ipv6())].push(vip.length);
        }
        let view = &mut settings.views[copy];
        let [v4, v6] = lengths.map(longest_first);
        (view.count4, view.lengths4) = v4;
        (view.count6, view.lengths6) = v6;
    }

    /// The rules of a VIP whose service can take its family.
    fn rules(&self, vip: &VipState) -> Vec<Rule> {
        let fits = |rule: &&Rule| {
            let service = &self.services[usize::from(rule.service) - 1];
            !keeps_ip(&service.service) || service.v6 == vip.address.is_ipv6()
        };
        vip.rules.iter().filter(fits).copied().collect()
    }
}

fn put_vip(
    memory: &mut Memory,
    vip: &VipState,
    prefix: &VipPrefix,
    bucket: usize,
    first: u32,
    count: usize,
) -> bool {
    let count = u32::try_from(count).unwrap();
    let (length, other, flags) = (vip.length, vip.other, vip.flags);
    match prefix.address {
        IpAddr::V4(address) => {
            let address = address.octets();
            let value = Vip4 {
                address,
                length,
                used: 1,
                other,
                flags,
                first,
                count,
            };
            let free = |at: &usize| {
                let there = memory.vip4(*at).unwrap();
                there.used == 0 || (there.address == address && there.length == length)
            };
            let place = (bucket * 4..bucket * 4 + 4).find(free);
            place.map(|at| memory.set_vip4(at, &value)).is_some()
        }
        IpAddr::V6(address) => {
            let address = address.octets();
            let value = Vip6 {
                address,
                length,
                used: 1,
                other,
                flags,
                first,
                count,
            };
            let free = |at: &usize| {
                let there = memory.vip6(*at).unwrap();
                there.used == 0 || (there.address == address && there.length == length)
            };
            let place = (bucket * 2..bucket * 2 + 2).find(free);
            place.map(|at| memory.set_vip6(at, &value)).is_some()
        }
    }
}

/// Writes the next version of a service, then puts it in force.
pub(crate) fn write_service(memory: &mut Memory, number: u16, state: &ServiceState) {
    let generation = memory.generation(number).unwrap() + 1;
    let version =
        u32::from(number) * VERSIONS + u32::try_from(generation % u64::from(VERSIONS)).unwrap();
    let base = version * 2 * ROOM;
    let own = |position: &u8| u16::from(*position % 4) * SERVICES + number;
    for (at, position) in (base..).zip(&state.slots) {
        memory.set_slot(at, own(position));
    }
    for (at, position) in (base + ROOM..).zip(&state.ring) {
        memory.set_slot(at, own(position));
    }
    let service = Service {
        slots_base: base,
        slots_count: u32::try_from(state.slots.len()).unwrap(),
        ring_base: base + ROOM,
        ring_count: u32::try_from(state.ring.len()).unwrap(),
        ..state.service
    };
    memory.set_service_version(version as usize, &service);
    memory.set_generation(number, generation);
}

fn keeps_ip(service: &Service) -> bool {
    matches!(service.mode, mode::NAT | mode::L3DSR)
}

fn server_host(at: usize) -> u8 {
    SERVER_HOSTS[at % SERVER_HOSTS.len()]
}

fn longest_first(mut lengths: Vec<u8>) -> (u8, [u8; 8]) {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    let mut array = [0; 8];
    array[..lengths.len()].copy_from_slice(&lengths);
    (u8::try_from(lengths.len()).unwrap(), array)
}

/// An address as tables hold both families.
pub(crate) fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// A kind that packets can have.
pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    select(vec![
        Kind::Tcp,
        Kind::Tcp,
        Kind::Udp,
        Kind::Udp,
        Kind::Sctp,
        Kind::Echo,
        Kind::Other,
    ])
}
