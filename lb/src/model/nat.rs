//! NAT: two entries for a flow, one per direction, each saying what packets
//! become.

use std::net::IpAddr;

use super::choose::{Choice, Numbered, source_key};
use super::flow::{Entry, is_flow, is_idle};
use super::forward::Way;
use super::forward::ether_type;
use super::icmp::{Quoted, turned};
use super::parse::{Body, Datagram, Meaning, Part, Segment, array};
use super::rewrite::{addresses, adjust, octets, put};
use super::run::Run;
use super::treat::{Flow, touched};
use super::{Outcome, Verdict};
use crate::tables::{Key, Kind, Meta, NatInfo, Reason, Server, Service, State, scale, snat};

const CANDIDATES: u32 = 8;
const CANDIDATE_STEP: u32 = 7_919;

/// How a new flow's packets are translated.
#[derive(Clone, Copy, Debug)]
struct Translation {
    /// What packets to the server become.
    becomes: Key,
    /// The reply's entry that is overwritten.
    reply: Option<Entry>,
}

impl Run<'_> {
    // === to the server ===

    /// A packet of a flow to a NAT service.
    pub(super) fn nat(mut self, flow: Flow<'_>) -> Outcome {
        let entry = self.memory.find(&flow.key, true, self.slice());
        let known = entry.filter(|entry| self.is_known(entry, &flow));
        let (server, becomes) = match known {
            Some(entry) => {
                self.touch_both(&entry, flow.segment);
                (entry.meta.server, entry.becomes.unwrap_or(flow.key))
            }
            None if flow.of.service.slots_count == 0 => {
                return self.no_server(flow.datagram, flow.body, flow.key.kind, &flow.of.service);
            }
            None => match self.begin_nat(&flow, entry) {
                Ok(begun) => begun,
                Err(reason) => return self.drop(reason),
            },
        };
        self.note_fragment(&flow, server);
        let bytes = flow.datagram.translated(flow.body, &becomes);
        self.deliver(flow.datagram, server, &bytes, becomes.destination)
    }

    /// Sends what a datagram became to a server.
    fn deliver(mut self, datagram: &Datagram, number: u16, bytes: &[u8], to: IpAddr) -> Outcome {
        let Some(server) = self.memory.server_in_use(number) else {
            return self.drop(Reason::Internal);
        };
        self.count_server(number, datagram.length());
        self.replace(datagram, bytes, ether_type(datagram));
        self.out(&server, to)
    }

    /// Notes a packet in the entry of its direction, and in the other's too, so
    /// that neither idles alone.
    fn touch_both(&mut self, entry: &Entry, segment: Segment) {
        if !self.touch(entry, segment) {
            return;
        }
        let meta = touched(entry.meta, segment, self.now);
        let other = entry.becomes.map(|becomes| turned(&becomes));
        let other = other.and_then(|key| self.memory.find(&key, true, self.slice()));
        if let Some(other) = other {
            let meta = Meta {
                state: meta.state,
                stamp: meta.stamp,
                ..other.meta
            };
            self.memory.set_meta(other.place, meta);
        }
    }

    /// A new flow: its server and what its packets become, or why not.
    fn begin_nat(&mut self, flow: &Flow<'_>, entry: Option<Entry>) -> Result<(u16, Key), Reason> {
        let memo = self.memo_of(flow);
        if !self.within_budget() {
            self.count(Reason::Flood);
            return Err(Reason::NatNoRoom);
        }
        let Choice { server: number, .. } = self.choice(flow, memo);
        let server = self.memory.server_in_use(number).ok_or(Reason::Internal)?;
        let translation = self.translation(flow, &server).ok_or(Reason::NatNoPort)?;
        let meta = self.new_meta(flow, number);
        self.store_both(flow, entry, &translation, meta)?;
        self.stored(flow, meta);
        Ok((number, translation.becomes))
    }

    /// Stores the reply's entry, then the flow's own.
    fn store_both(
        &mut self,
        flow: &Flow<'_>,
        entry: Option<Entry>,
        translation: &Translation,
        meta: Meta,
    ) -> Result<(), Reason> {
        let (service, vip) = (flow.of.number, flow.rule.vip);
        let forward = NatInfo {
            service,
            vip,
            reply: false,
        };
        let reply = NatInfo {
            reply: true,
            ..forward
        };
        let back = turned(&translation.becomes);
        self.store_nat(&back, translation.reply, meta, (turned(&flow.key), reply))?;
        self.store_nat(&flow.key, entry, meta, (translation.becomes, forward))
    }

    fn store_nat(
        &mut self,
        key: &Key,
        entry: Option<Entry>,
        meta: Meta,
        nat: (Key, NatInfo),
    ) -> Result<(), Reason> {
        let room = || self.memory.room(key, true, self.slice(), self.now);
        let place = entry.map(|entry| entry.place).or_else(room);
        let place = place.ok_or(Reason::NatNoRoom)?;
        self.memory.unload(place);
        self.memory.write(place, key, meta, Some(nat));
        Ok(())
    }

    /// What the packets of a new flow become; `None` if no address or port is
    /// free.
    fn translation(&self, flow: &Flow<'_>, server: &Server) -> Option<Translation> {
        let service = &flow.of.service;
        let mut becomes = Key {
            destination: server.ip(),
            ..flow.key
        };
        if server.port != 0 && matches!(flow.key.kind, Kind::Tcp | Kind::Udp) {
            becomes.ports = flow.key.ports & 0xffff | u32::from(server.port.to_be()) << 16;
        }
        if !self.needs_snat(service, &flow.key) {
            let reply = self.reply(&becomes);
            let same = |entry: &Entry| entry.becomes == Some(turned(&flow.key));
            let free = reply.is_none_or(|reply| self.is_stale(&reply) || same(&reply));
            return free.then_some(Translation { becomes, reply });
        }
        becomes.source = self.snat_address(service, &flow.key)?;
        let h = flow.key.hash(self.settings.slot_seed);
        (0..CANDIDATES)
            .filter_map(|candidate| self.candidate(candidate, &becomes, h))
            .map(|becomes| Translation {
                becomes,
                reply: self.reply(&becomes),
            })
            .find(|translation| translation.reply.is_none_or(|reply| self.is_stale(&reply)))
    }

    fn needs_snat(&self, service: &Service, key: &Key) -> bool {
        match service.snat {
            snat::NEVER => false,
            snat::ALWAYS => true,
            _ => self.memory.is_near(key.source),
        }
    }

    /// The entry that answers to such packets would find.
    fn reply(&self, becomes: &Key) -> Option<Entry> {
        self.memory.find(&turned(becomes), true, self.slice())
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        is_idle(entry.meta, &self.settings.idle, self.now)
    }

    /// The address a client is translated to.
    fn snat_address(&self, service: &Service, key: &Key) -> Option<IpAddr> {
        let (first, count) = if key.source.is_ipv4() {
            (service.sources_base, service.sources4)
        } else {
            (service.sources_base + service.sources4, service.sources6)
        };
        let h = source_key(key).hash(self.settings.slot_seed);
        let address = (count != 0).then(|| first + scale(h, count));
        let bytes = self.memory.source(address? as usize)?;
        Some(if key.source.is_ipv4() {
            array::<4>(&bytes, 0)?.into()
        } else {
            bytes.into()
        })
    }

    /// What packets become with another source port; the first candidate is the
    /// client's own.
    fn candidate(&self, candidate: u32, becomes: &Key, h: u64) -> Option<Key> {
        let (low, high) = (self.settings.port_low, self.settings.port_high);
        let own = Key::split(becomes.ports).0;
        let port = match (candidate, becomes.kind) {
            (0, Kind::Echo | Kind::Sctp) => own,
            (0, _) if (low..=high).contains(&own) => own,
            (0, _) | (_, Kind::Sctp) => return None,
            _ if high < low => return None,
            _ => {
                let turn = u32::try_from(h >> 16 & 0xffff_ffff).expect("32 bits");
                let turn = turn.wrapping_add(candidate * CANDIDATE_STEP);
                let ports = u32::from(high) - u32::from(low) + 1;
                low + u16::try_from(turn % ports).expect("fewer ports than 65537")
            }
        };
        let ports = becomes.ports & 0xffff_0000 | u32::from(port.to_be());
        Some(Key { ports, ..*becomes })
    }

    /// A fragment that is not the first, to a server of a NAT service.
    pub(super) fn nat_rest(self, way: Way<'_>, of: &Numbered) -> Outcome {
        let Some(server) = self.memory.server_in_use(way.server) else {
            return self.drop(Reason::Internal);
        };
        let key = way.datagram.key(Kind::Hint, 0);
        let mut becomes = Key {
            destination: server.ip(),
            ..key
        };
        if self.needs_snat(&of.service, &key) {
            match self.snat_address(&of.service, &key) {
                Some(source) => becomes.source = source,
                None => return self.drop(Reason::NatNoPort),
            }
        }
        let bytes = way.datagram.translated(way.body, &becomes);
        self.deliver(way.datagram, way.server, &bytes, becomes.destination)
    }

    // === from the server ===

    /// A packet to no VIP: perhaps the answer of a server.
    pub(super) fn answer(self, datagram: &Datagram) -> Outcome {
        let Some(body) = datagram.body() else {
            return self.pass(Reason::NotVip);
        };
        match datagram.meaning(&body) {
            Meaning::EchoReply(ports) => {
                let kind = Kind::Echo;
                let segment = Segment {
                    kind,
                    ports,
                    first: false,
                    last: false,
                };
                self.answer_of(datagram, &body, segment)
            }
            Meaning::Error => self.answer_error(datagram, &body),
            Meaning::Flow(segment) if is_flow(segment.kind) && segment.kind != Kind::Other => {
                self.answer_of(datagram, &body, segment)
            }
            Meaning::Rest(kind) if kind != Kind::Other => self.answer_rest(datagram, &body),
            _ => self.pass(Reason::NotVip),
        }
    }

    fn answer_of(mut self, datagram: &Datagram, body: &Body, segment: Segment) -> Outcome {
        let key = datagram.key(segment.kind, segment.ports);
        let entry = self.memory.find(&key, true, self.slice());
        let Some(entry) = entry.filter(|entry| entry.info.reply && !self.is_stale(entry)) else {
            return self.pass(Reason::NotVip);
        };
        self.touch_both(&entry, segment);
        let becomes = entry.becomes.unwrap_or(key);
        if let Some(part) = body.part {
            self.remember_translation(datagram.memo(body, part), &entry, becomes);
            self.remember_translation(datagram.hint(body), &entry, becomes);
        }
        self.send_on(datagram, body, &becomes)
    }

    /// Notes what the other fragments of an answer become.
    fn remember_translation(&mut self, key: Key, entry: &Entry, becomes: Key) {
        let meta = Meta {
            server: entry.meta.server,
            kind: key.kind,
            state: State::Established,
            stamp: self.now,
        };
        let becomes = Key {
            ports: 0,
            kind: key.kind,
            ..becomes
        };
        let there = self.memory.find(&key, true, self.slice());
        let _full = self.store_nat(&key, there, meta, (becomes, entry.info));
    }

    fn answer_rest(self, datagram: &Datagram, body: &Body) -> Outcome {
        let fresh = |key: Key| {
            let entry = self.memory.find(&key, true, self.slice());
            entry.filter(|entry| !self.is_stale(entry))
        };
        let memo = body.part.map(|part: Part| datagram.memo(body, part));
        let entry = memo.and_then(fresh).or_else(|| fresh(datagram.hint(body)));
        match entry.and_then(|entry| entry.becomes) {
            Some(becomes) => self.send_on(datagram, body, &becomes),
            None => self.pass(Reason::NotVip),
        }
    }

    fn send_on(self, datagram: &Datagram, body: &Body, becomes: &Key) -> Outcome {
        let bytes = datagram.translated(body, becomes);
        self.send_back_to(datagram, &bytes, becomes.destination)
    }

    /// Sends an answer to wherever the kernel knows its receiver; else up.
    fn send_back_to(mut self, datagram: &Datagram, bytes: &[u8], to: IpAddr) -> Outcome {
        self.count(Reason::NatReply);
        self.replace(datagram, bytes, ether_type(datagram));
        match self.fib(to) {
            None => self.end(Verdict::Pass),
            hop => self.send(hop),
        }
    }

    // === errors ===

    /// An ICMP error to a NAT service.
    pub(super) fn nat_error(
        mut self,
        datagram: &Datagram,
        body: &Body,
        quoted: &Quoted,
        of: &Numbered,
    ) -> Outcome {
        let entry = self.memory.find(&turned(&quoted.key), true, self.slice());
        let known = entry.filter(|entry| {
            !is_idle(entry.meta, &of.service.idle, self.now)
                && self.belongs(entry.meta.server, of.number)
        });
        let Some(entry) = known else {
            return self.drop(Reason::IcmpUnknown);
        };
        self.count(Reason::IcmpError);
        let becomes = entry.becomes.unwrap_or(quoted.key);
        let (bytes, to) = datagram.error_translated(body, quoted, &becomes);
        self.deliver(datagram, entry.meta.server, &bytes, to)
    }

    /// An ICMP error to no VIP: about a packet that NAT translated.
    fn answer_error(self, datagram: &Datagram, body: &Body) -> Outcome {
        let quoted = datagram.quoted(body);
        let told = quoted.filter(|quoted| quoted.key.source == datagram.destination);
        let entry = told.and_then(|told| self.memory.find(&turned(&told.key), true, self.slice()));
        let entry = entry.filter(|entry| !self.is_stale(entry));
        let (Some(quoted), Some(becomes)) = (told, entry.and_then(|entry| entry.becomes)) else {
            return self.pass(Reason::NotVip);
        };
        let (bytes, to) = datagram.error_translated(body, &quoted, &becomes);
        self.send_back_to(datagram, &bytes, to)
    }
}

impl Datagram {
    /// An ICMP error as it becomes when packets like the quoted one's answers
    /// become `becomes`; and its new destination.
    fn error_translated(&self, body: &Body, quoted: &Quoted, becomes: &Key) -> (Vec<u8>, IpAddr) {
        let mut bytes = self.bytes.clone();
        let inner = turned(becomes);
        translate_quoted(&mut bytes, quoted, &inner);
        // Whoever the quoted packet went to is translated outside, too; a router
        // between is not.
        let source = if self.source == quoted.key.destination {
            becomes.source
        } else {
            self.source
        };
        let destination = becomes.destination;
        let (at, to) = addresses(self.is_v6());
        let header = (!self.is_v6()).then_some(10);
        put(&mut bytes, header, at, &octets(source));
        put(&mut bytes, header, to, &octets(destination));
        let sum = body.at + 2;
        let message = body.at + 4;
        let (old, new) = (self.bytes[message..].to_vec(), bytes[message..].to_vec());
        adjust(&mut bytes, sum, &old, &new);
        if self.is_v6() {
            let old = [octets(self.source), octets(self.destination)].concat();
            adjust(
                &mut bytes,
                sum,
                &old,
                &[octets(source), octets(destination)].concat(),
            );
        }
        (bytes, destination)
    }
}

/// Translates the packet that an ICMP error quotes.
fn translate_quoted(bytes: &mut [u8], quoted: &Quoted, inner: &Key) {
    let v6 = inner.source.is_ipv6();
    let (from, to) = addresses(v6);
    let header = (!v6).then_some(quoted.ip + 10);
    put(bytes, header, quoted.ip + from, &octets(inner.source));
    put(bytes, header, quoted.ip + to, &octets(inner.destination));
    let old = [octets(quoted.key.source), octets(quoted.key.destination)].concat();
    let new = [octets(inner.source), octets(inner.destination)].concat();
    let ports = inner.ports.to_le_bytes();
    match quoted.key.kind {
        Kind::Echo => {
            let id = [ports[0] | ports[2], ports[1] | ports[3]];
            put(bytes, Some(quoted.at + 2), quoted.at + 4, &id);
            if v6 {
                adjust(bytes, quoted.at + 2, &old, &new);
            }
        }
        Kind::Udp if bytes[quoted.at + 6..quoted.at + 8] != [0, 0] => {
            put(bytes, Some(quoted.at + 6), quoted.at, &ports);
            adjust(bytes, quoted.at + 6, &old, &new);
            if bytes[quoted.at + 6..quoted.at + 8] == [0, 0] {
                bytes[quoted.at + 6..quoted.at + 8].fill(0xff);
            }
        }
        _ => put(bytes, None, quoted.at, &ports),
    }
}
