//! The flow tables from control's side: with the same compare-and-swap as the
//! packet program.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::plane::{Book, address_of, is_live};
use super::{Region, Tables};
use crate::dataplane::{FlowKey, FlowRecord, FlowState, ServerNumber, VipNumber};
use crate::tables::{Key, Kind, Meta, NatInfo, Server, Sizes, State, Table, Turn, mode};

/// One of the four tables: where its entries and their words are.
#[derive(Debug, Clone, Copy)]
struct Shape {
    table: Table,
    v6: bool,
    nat: bool,
    entry: usize,
    meta: usize,
}

const SHAPES: [Shape; 4] = [
    Shape {
        table: Table::Flows4,
        v6: false,
        nat: false,
        entry: 16,
        meta: 12,
    },
    Shape {
        table: Table::Flows6,
        v6: true,
        nat: false,
        entry: 40,
        meta: 36,
    },
    Shape {
        table: Table::Nats4,
        v6: false,
        nat: true,
        entry: 32,
        meta: 24,
    },
    Shape {
        table: Table::Nats6,
        v6: true,
        nat: true,
        entry: 80,
        meta: 72,
    },
];

impl Shape {
    fn of(v6: bool, nat: bool) -> Self {
        SHAPES[usize::from(nat) * 2 + usize::from(v6)]
    }

    fn address(self, words: &[u8], at: usize) -> IpAddr {
        if self.v6 {
            let bytes: [u8; 16] = words[at..at + 16].try_into().expect("sixteen of them");
            IpAddr::from(bytes)
        } else {
            let bytes: [u8; 4] = words[at..at + 4].try_into().expect("four of them");
            IpAddr::from(bytes)
        }
    }

    /// Addresses and ports word of a key or translation.
    fn triple(self, words: &[u8]) -> (IpAddr, IpAddr, u32) {
        let size = if self.v6 { 16 } else { 4 };
        let ports = words[2 * size..2 * size + 4]
            .try_into()
            .expect("four of them");
        (
            self.address(words, 0),
            self.address(words, size),
            u32::from_le_bytes(ports),
        )
    }

    fn key_size(self) -> usize {
        if self.v6 { 36 } else { 12 }
    }

    fn buckets(self, sizes: &Sizes) -> u32 {
        match self.table {
            Table::Flows4 => sizes.buckets4,
            Table::Flows6 => sizes.buckets6,
            Table::Nats4 => sizes.nat_buckets4,
            _ => sizes.nat_buckets6,
        }
    }
}

/// Frees all entries of servers that are gone.
pub(super) fn purge(tables: &Tables, sizes: &Sizes, gone: &BTreeSet<ServerNumber>) {
    if gone.is_empty() {
        return;
    }
    let is_gone = |meta: Meta| {
        meta.state != State::Claimed
            && ServerNumber::new(meta.server).is_some_and(|server| gone.contains(&server))
    };
    for shape in SHAPES {
        let region = tables.of(shape.table);
        for at in (0..sizes.bytes(shape.table)).step_by(shape.entry) {
            let word = region.word(at + shape.meta);
            let meta = word.load(Ordering::Relaxed);
            if Meta::decode(meta).is_some_and(is_gone) {
                let _ = word.compare_exchange(meta, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
    for server in gone {
        let load = tables.of(Table::Loads).long(server.index() * 8);
        let left = load.swap(0, Ordering::AcqRel);
        let at = server.index() * Server::SIZE;
        let service = Server::decode(&tables.of(Table::Servers).read(at)).service;
        give_back(tables, service, left);
    }
}

fn give_back(tables: &Tables, service: u16, flows: u64) {
    let turn = tables
        .of(Table::Turns)
        .long(usize::from(service) * Turn::SIZE + 8);
    let _ = turn.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |held| {
        Some(held.saturating_sub(flows))
    });
}

/// Frees what is idle, so that loads count the living alone.
pub(super) fn sweep(tables: &Tables, book: &Book, now: u16) {
    for shape in SHAPES {
        let region = tables.of(shape.table);
        for at in (0..book.sizes.bytes(shape.table)).step_by(shape.entry) {
            let word = region.word(at + shape.meta);
            let bits = word.load(Ordering::Relaxed);
            let Some(meta) = Meta::decode(bits) else {
                continue;
            };
            if meta.state == State::Claimed || !is_idle(book, meta, now) {
                continue;
            }
            let freed = word
                .compare_exchange(bits, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
            let reply = shape.nat
                && NatInfo::decode(region.word(at + shape.entry - 4).load(Ordering::Relaxed)).reply;
            if freed && !reply && is_live(meta) {
                let load = tables.of(Table::Loads).long(usize::from(meta.server) * 8);
                let _ = load.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |held| {
                    held.checked_sub(1)
                });
                if let Some(server) = server(book, meta.server) {
                    give_back(tables, server.service, 1);
                }
            }
        }
    }
}

fn server(book: &Book, number: u16) -> Option<&Server> {
    book.servers.get(&ServerNumber::new(number)?)
}

fn is_idle(book: &Book, meta: Meta, now: u16) -> bool {
    let service = server(book, meta.server)
        .and_then(|server| crate::dataplane::ServiceNumber::new(server.service))
        .and_then(|number| book.services.get(&number));
    let limit = match service {
        Some(held) if (meta.kind as u8) <= Kind::Other as u8 => {
            held.value.limit(meta.kind, meta.state)
        }
        _ => book.settings.idle[meta.kind as usize * 4 + meta.state as usize],
    };
    meta.age(now) > limit
}

/// Shows every live flow once.
pub(super) fn each(tables: &Tables, book: &Book, now: u16, show: &mut dyn FnMut(FlowRecord)) {
    for shape in SHAPES {
        let region = tables.of(shape.table);
        for at in (0..book.sizes.bytes(shape.table)).step_by(shape.entry) {
            if region.word(at + shape.meta).load(Ordering::Acquire) == 0 {
                continue;
            }
            if let Some(record) = read(region, shape, at, book, now) {
                show(record);
            }
        }
    }
}

fn read(region: &Region, shape: Shape, at: usize, book: &Book, now: u16) -> Option<FlowRecord> {
    let mut bytes = [0; 80];
    let bytes = &mut bytes[..shape.entry];
    region.read_into(at, bytes);
    let word = bytes[shape.meta..shape.meta + 4].try_into().ok()?;
    let meta = Meta::decode(u32::from_le_bytes(word))?;
    if meta.kind as u8 > Kind::Other as u8
        || meta.state == State::Claimed
        || is_idle(book, meta, now)
    {
        return None;
    }
    server(book, meta.server)?;
    let (source, destination, ports) = shape.triple(bytes);
    let mut record = record(book, meta, source, destination, ports, now)?;
    if shape.nat {
        let info = bytes[shape.entry - 4..].try_into().ok()?;
        let info = NatInfo::decode(u32::from_le_bytes(info));
        if info.reply {
            return None;
        }
        record.vip = VipNumber::new(info.vip);
        let (to_source, _, to_ports) = shape.triple(&bytes[shape.key_size()..]);
        let port = Key::split(to_ports).0;
        if to_source != source || port != record.key.source_port {
            record.translated = Some(SocketAddr::new(to_source, port));
        }
    }
    Some(record)
}

/// The record of an entry of kind TCP to OTHER.
pub(super) fn record(
    book: &Book,
    meta: Meta,
    source: IpAddr,
    destination: IpAddr,
    ports: u32,
    now: u16,
) -> Option<FlowRecord> {
    let (source_port, destination_port) = match meta.kind {
        Kind::Other => (0, 0),
        _ => Key::split(ports),
    };
    let protocol = match meta.kind {
        Kind::Tcp => 6,
        Kind::Udp => 17,
        Kind::Sctp => 132,
        Kind::Echo if source.is_ipv4() => 1,
        Kind::Echo => 58,
        _ => u8::try_from(ports).ok()?,
    };
    Some(FlowRecord {
        key: FlowKey {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
        },
        vip: None,
        server: ServerNumber::new(meta.server)?,
        state: match meta.state {
            State::Opening => FlowState::Opening,
            State::Closing => FlowState::Closing,
            _ => FlowState::Established,
        },
        idle: book.clock.tick * u32::from(meta.age(now)),
        translated: None,
    })
}

/// What of a record goes into the table of its service.
struct Entry {
    key: Key,
    translation: Option<(IpAddr, IpAddr, u32)>,
    meta: Meta,
    info: NatInfo,
}

/// Remembers one flow of another balancer; `true` if it was not known.
pub(super) fn insert(tables: &Tables, book: &Book, flow: &FlowRecord, now: u16) -> bool {
    let Some(entry) = entry(book, flow, now) else {
        return false;
    };
    let v6 = entry.key.source.is_ipv6();
    let shape = Shape::of(v6, entry.translation.is_some());
    if let Some((source, destination, ports)) = entry.translation {
        let reply = Entry {
            key: Key {
                source: destination,
                destination: source,
                ports: ports.rotate_left(16),
                kind: entry.key.kind,
            },
            translation: Some((
                entry.key.destination,
                entry.key.source,
                entry.key.ports.rotate_left(16),
            )),
            meta: entry.meta,
            info: NatInfo {
                reply: true,
                ..entry.info
            },
        };
        put(tables, book, shape, &reply, now);
    }
    let new = put(tables, book, shape, &entry, now);
    if new && is_live(entry.meta) {
        tables
            .of(Table::Loads)
            .long(usize::from(entry.meta.server) * 8)
            .fetch_add(1, Ordering::AcqRel);
        tables
            .of(Table::Turns)
            .long(usize::from(entry.info.service) * Turn::SIZE + 8)
            .fetch_add(1, Ordering::AcqRel);
    }
    new
}

fn entry(book: &Book, flow: &FlowRecord, now: u16) -> Option<Entry> {
    let server = book.servers.get(&flow.server)?;
    let number = crate::dataplane::ServiceNumber::new(server.service)?;
    let service = &book.services.get(&number)?.value;
    let kind = match flow.key.protocol {
        6 => Kind::Tcp,
        17 => Kind::Udp,
        132 => Kind::Sctp,
        1 | 58 => Kind::Echo,
        _ => Kind::Other,
    };
    let ports = match kind {
        Kind::Other => u32::from(flow.key.protocol),
        Kind::Echo => Key::ports(flow.key.source_port, 0),
        _ => Key::ports(flow.key.source_port, flow.key.destination_port),
    };
    let age = book
        .clock
        .ticks(flow.idle.saturating_sub(Duration::from_millis(1)));
    let translation = (service.mode == mode::NAT).then(|| {
        let source = flow.translated.map_or(flow.key.source, |to| to.ip());
        let mut to = ports;
        if let Some(translated) = flow.translated {
            to = to & 0xffff_0000 | u32::from(translated.port().to_be());
        }
        if server.port != 0 && matches!(kind, Kind::Tcp | Kind::Udp) {
            to = to & 0xffff | u32::from(server.port.to_be()) << 16;
        }
        (source, address_of(server), to)
    });
    Some(Entry {
        key: Key {
            source: flow.key.source,
            destination: flow.key.destination,
            ports,
            kind,
        },
        translation,
        meta: Meta {
            server: flow.server.get(),
            kind,
            state: match flow.state {
                FlowState::Opening => State::Opening,
                FlowState::Established => State::Established,
                FlowState::Closing => State::Closing,
            },
            stamp: now.wrapping_sub(age) & 0xfff,
        },
        info: NatInfo {
            service: server.service,
            vip: flow.vip.map_or(0, VipNumber::get),
            reply: false,
        },
    })
}

/// Puts an entry where the program would look for it; `true` if it was not there.
fn put(tables: &Tables, book: &Book, shape: Shape, entry: &Entry, now: u16) -> bool {
    let region = tables.of(shape.table);
    let buckets = shape.buckets(&book.sizes);
    let h = entry.key.hash(book.settings.table_seed);
    let key = entry.key.encode();
    let places = |slice: u32| {
        [h, h >> 32].into_iter().flat_map(move |h| {
            let bucket = slice * buckets + crate::tables::scale(h, buckets);
            (0..4).map(move |way| (bucket as usize * 4 + way) * shape.entry)
        })
    };
    for at in (0..book.sizes.slices).flat_map(places) {
        let mut there = [0; 36];
        let there = &mut there[..shape.key_size()];
        region.read_into(at, there);
        let bits = region.word(at + shape.meta).load(Ordering::Acquire);
        let Some(meta) = Meta::decode(bits) else {
            continue;
        };
        if there == key && meta.kind == entry.key.kind && meta.state != State::Claimed {
            if entry.meta.age(now) < meta.age(now) && meta.server == entry.meta.server {
                let _ = region.word(at + shape.meta).compare_exchange(
                    bits,
                    entry.meta.encode(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
            }
            return false;
        }
    }
    for at in places(0) {
        let word = region.word(at + shape.meta);
        let bits = word.load(Ordering::Acquire);
        let free = Meta::decode(bits).is_none_or(|meta| {
            meta.state != State::Claimed && is_idle(book, meta, now) && !is_live(meta)
        });
        let claim = Meta {
            server: 1,
            kind: Kind::Tcp,
            state: State::Claimed,
            stamp: 0,
        };
        if free
            && word
                .compare_exchange(bits, claim.encode(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            region.write(at, &key);
            if let Some((source, destination, ports)) = entry.translation {
                let to = Key {
                    source,
                    destination,
                    ports,
                    kind: entry.key.kind,
                };
                region.write(at + shape.key_size(), &to.encode());
                region
                    .word(at + shape.entry - 4)
                    .store(entry.info.encode(), Ordering::Release);
            }
            word.store(entry.meta.encode(), Ordering::Release);
            return true;
        }
    }
    false
}

/// What the forward entry of a flow says its source becomes, if that differs.
pub(super) fn translated(tables: &Tables, book: &Book, key: &Key) -> Option<SocketAddr> {
    let shape = Shape::of(key.source.is_ipv6(), true);
    let region = tables.of(shape.table);
    let buckets = shape.buckets(&book.sizes);
    let h = key.hash(book.settings.table_seed);
    let words = key.encode();
    for slice in 0..book.sizes.slices {
        for h in [h, h >> 32] {
            let bucket = slice * buckets + crate::tables::scale(h, buckets);
            for way in 0..4 {
                let mut bytes = [0; 80];
                let bytes = &mut bytes[..shape.entry];
                region.read_into((bucket as usize * 4 + way) * shape.entry, bytes);
                if bytes[..words.len()] != words {
                    continue;
                }
                let (source, _, ports) = shape.triple(&bytes[words.len()..]);
                let to = SocketAddr::new(source, Key::split(ports).0);
                let from = SocketAddr::new(key.source, Key::split(key.ports).0);
                return (to != from).then_some(to);
            }
        }
    }
    None
}
