use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::Ordering;

use aya::maps::MapData;
use ipnet::IpNet;

use super::clock::Clock;
use super::plane::{Book, Held};
use super::vips;
use super::{Region, Tables};
use crate::dataplane::{
    Counters, Error, Installed, Local, ServerCounters, ServerNumber, ServiceNumber, Statistics,
};
use crate::service::Identity;
use crate::tables::{
    Reason, Row, Rule, SERVER_IN_USE, Server, Service, Settings, Sizes, Table, VERSIONS, Vip4, Vip6,
};

/// Where the number of slices stands in the settings' value: it cannot be told
/// from the size of a table.
pub(super) const SLICES_AT: usize = 264;

pub(super) fn write_slices(tables: &Tables, slices: u32) {
    tables
        .of(Table::Settings)
        .word(SLICES_AT)
        .store(slices, Ordering::Release);
}

/// The sizes of pinned tables; `None` if there are none, or only some because
/// a process died while it made them.
pub(super) fn pinned_sizes(pins: &Path) -> Result<Option<Sizes>, Error> {
    if !Table::ALL
        .iter()
        .all(|table| pins.join(table.name()).exists())
    {
        super::attach::remove(pins)?;
        return Ok(None);
    }
    let failed = |table: Table, error: Box<dyn std::error::Error + Send + Sync>| {
        Error::access(format!("read the pinned table {}", table.name()), error)
    };
    let open = |table: Table| {
        MapData::from_pin(pins.join(table.name())).map_err(|error| failed(table, error.into()))
    };
    let entries = |table: Table| -> Result<u32, Error> {
        let info = open(table)?.info();
        let info = info.map_err(|error| failed(table, error.into()))?;
        if info.value_size() as usize != table.value_size() {
            return Err(Error::Unsupported {
                what: format!("taking over {}", pins.display()),
                why: "another release made these tables; remove them with `carrick lb clean`"
                    .into(),
            });
        }
        Ok(info.max_entries())
    };
    let settings = Region::map(open(Table::Settings)?.fd(), Settings::SIZE)
        .map_err(|error| failed(Table::Settings, error.into()))?;
    let slices = settings.word(SLICES_AT).load(Ordering::Acquire).max(1);
    let cpus = entries(Table::Cpus)?.max(1);
    Ok(Some(Sizes {
        cpus,
        slices,
        buckets4: entries(Table::Flows4)? / slices,
        buckets6: entries(Table::Flows6)? / slices,
        nat_buckets4: entries(Table::Nats4)? / slices,
        nat_buckets6: entries(Table::Nats6)? / slices,
        vip_buckets: entries(Table::Vips4)? / 2,
        rules: entries(Table::Rules)? / 2,
        services: entries(Table::Generations)?,
        vips: entries(Table::VipCounters)? / cpus,
        servers: entries(Table::Servers)?,
        slots: entries(Table::Slots)? * 32,
        sources: entries(Table::Sources)?,
        journal: entries(Table::Journal)? / cpus,
        fixed_clock: 0,
    }))
}

/// What another process left in the tables.
pub(super) fn adopt(tables: &Tables, sizes: Sizes) -> Book {
    let settings = Settings::decode(&tables.of(Table::Settings).read(0));
    let mut book = Book::new(sizes);
    book.settings = settings;
    book.clock = Clock::of_this_kernel();
    book.local = local(&settings);
    book.vips = adopt_vips(tables, &sizes, &settings);
    book.services = adopt_services(tables, &sizes);
    for held in book.services.values() {
        book.slots.adopt(&held.slots());
        book.slots.adopt(&held.ring());
        book.sources.adopt(&held.sources());
    }
    let points: Vec<(ServiceNumber, IpNet, u8)> = book
        .vips
        .values()
        .filter(|entry| entry.dscp != 0)
        .map(|entry| (entry.service, entry.vip.prefix, entry.dscp))
        .collect();
    for (service, prefix, dscp) in points {
        if let Some(held) = book.services.get_mut(&service) {
            held.dscp.push((prefix, dscp));
        }
    }
    for number in 1..sizes.servers {
        let at = number as usize * Server::SIZE;
        let server = Server::decode(&tables.of(Table::Servers).read(at));
        let Some(number) = u16::try_from(number).ok().and_then(ServerNumber::new) else {
            continue;
        };
        if server.flags & SERVER_IN_USE != 0 {
            book.servers.insert(number, server);
        } else if server.service != 0 {
            book.unclean.insert(number);
        }
    }
    book
}

fn local(settings: &Settings) -> Local {
    let v4 = std::net::Ipv4Addr::from(settings.source4);
    let v6 = std::net::Ipv6Addr::from(settings.source6);
    Local {
        v4: (!v4.is_unspecified()).then_some(v4),
        v6: (!v6.is_unspecified()).then_some(v6),
    }
}

fn adopt_vips(
    tables: &Tables,
    sizes: &Sizes,
    settings: &Settings,
) -> BTreeMap<crate::dataplane::VipNumber, vips::VipEntry> {
    let copy = settings.active as usize & 1;
    let half = sizes.vip_buckets as usize * 64;
    let mut prefixes = Vec::new();
    for at in (half * copy..half * (copy + 1)).step_by(Vip4::SIZE) {
        let vip = Vip4::decode(&tables.of(Table::Vips4).read(at));
        if let (1, Ok(prefix)) = (vip.used, IpNet::new(IpAddr::from(vip.address), vip.length)) {
            prefixes.push((prefix, vip.first, vip.count));
        }
    }
    for at in (half * copy..half * (copy + 1)).step_by(Vip6::SIZE) {
        let vip = Vip6::decode(&tables.of(Table::Vips6).read(at));
        if let (1, Ok(prefix)) = (vip.used, IpNet::new(IpAddr::from(vip.address), vip.length)) {
            prefixes.push((prefix, vip.first, vip.count));
        }
    }
    let rules = tables.of(Table::Rules);
    vips::decode(prefixes, |index| {
        let at = (sizes.rules as usize * copy + index as usize) * Rule::SIZE;
        Rule::decode(&rules.read(at))
    })
}

fn adopt_services(tables: &Tables, sizes: &Sizes) -> BTreeMap<ServiceNumber, Held> {
    let mut services = BTreeMap::new();
    for number in 1..sizes.services {
        let generation = tables
            .of(Table::Generations)
            .long(number as usize * 8)
            .load(Ordering::Acquire);
        let version = u64::from(number * VERSIONS) + generation % u64::from(VERSIONS);
        let at = usize::try_from(version).unwrap_or(0) * Service::SIZE;
        let value = Service::decode(&tables.of(Table::Services).read(at));
        let number = u16::try_from(number).ok().and_then(ServiceNumber::new);
        if let (1, Some(number)) = (value.used, number) {
            let held = Held {
                value,
                ..Held::default()
            };
            services.insert(number, held);
        }
    }
    services
}

/// Numbers and identities, for a control that goes on where another stopped.
pub(super) fn installed(book: &Book) -> Installed {
    let mut installed = Installed::default();
    for (number, held) in &book.services {
        if let Some(identity) = Identity::from_bits(held.value.identity) {
            installed.services.insert(*number, identity);
        }
    }
    for (number, entry) in &book.vips {
        let vip = (entry.identity, entry.service);
        installed.vips.insert(*number, vip);
    }
    for (number, server) in &book.servers {
        if let (Some(identity), Some(service)) = (
            Identity::from_bits(server.identity),
            ServiceNumber::new(server.service),
        ) {
            installed.servers.insert(*number, (identity, service));
        }
    }
    installed
}

/// All counters, summed over the CPUs.
pub(super) fn statistics(tables: &Tables, book: &Book) -> Statistics {
    let sum = |table: Table, number: usize, all: u32| {
        let region = tables.of(table);
        let mut counters = Counters::default();
        for cpu in 0..book.sizes.cpus as usize {
            let at = (cpu * all as usize + number) * Row::SIZE;
            let row = Row::decode(&region.read(at));
            counters.packets += row.packets;
            counters.bytes += row.bytes;
            counters.flows += row.flows;
        }
        counters
    };
    let mut statistics = Statistics::default();
    for number in book.vips.keys() {
        let counters = sum(Table::VipCounters, number.index(), book.sizes.vips);
        statistics.vips.insert(*number, counters);
    }
    for number in book.servers.keys() {
        let counters = ServerCounters {
            total: sum(Table::ServerCounters, number.index(), book.sizes.servers),
            live: tables
                .of(Table::Loads)
                .long(number.index() * 8)
                .load(Ordering::Relaxed),
        };
        statistics.servers.insert(*number, counters);
    }
    let region = tables.of(Table::Counters);
    for (index, reason) in Reason::ALL.iter().enumerate() {
        let count = (0..book.sizes.cpus as usize)
            .map(|cpu| region.long(cpu * 512 + index * 8).load(Ordering::Relaxed))
            .sum();
        statistics.reasons.insert(reason.name(), count);
    }
    statistics
}
