//! A packet's way, from the frame to the server.

use super::choose::{Choice, Numbered};
use super::flow::{Entry, counts, is_flow, is_idle};
use super::forward::Way;
use super::parse::{Body, Datagram, Meaning, Segment};
use super::run::Run;
use super::vip::{Vip, port};
use super::{Memory, Outcome};
use crate::packet::{Ethernet, ethertype};
use crate::tables::{
    JournalRecord, Key, Kind, Meta, Reason, Rule, SETTING_JOURNAL, SETTING_NAT, State, mode,
};

/// A packet of a flow for which there is a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'a> {
    pub(super) datagram: &'a Datagram,
    pub(super) body: &'a Body,
    pub(super) segment: Segment,
    pub(super) key: Key,
    pub(super) rule: Rule,
    pub(super) of: Numbered,
}

impl Flow<'_> {
    /// Whether the packet may begin a flow, so that its server is chosen by
    /// policy: without a handshake any packet may.
    fn begins(&self) -> bool {
        self.segment.first || !has_handshake(self.key.kind)
    }

    /// The state of a flow that begins with this packet.
    pub(super) fn state(&self) -> State {
        match (self.segment.last, self.begins()) {
            (true, _) => State::Closing,
            (false, true) => State::Opening,
            (false, false) => State::Established,
        }
    }
}

fn has_handshake(kind: Kind) -> bool {
    matches!(kind, Kind::Tcp | Kind::Sctp)
}

/// What a flow's entry becomes by a packet.
pub(super) fn touched(meta: Meta, segment: Segment, now: u16) -> Meta {
    let state = match meta.state {
        _ if segment.last => State::Closing,
        State::Opening if !segment.first => State::Established,
        state => state,
    };
    Meta {
        state,
        stamp: now,
        ..meta
    }
}

impl Run<'_> {
    /// Treats the packet.
    pub(super) fn treat(mut self) -> Outcome {
        let v6 = match self.frame.get(12..14) {
            Some(kind) if kind == ethertype::IPV4.to_be_bytes() => false,
            Some(kind) if kind == ethertype::IPV6.to_be_bytes() => true,
            _ => return self.pass(Reason::NotIp),
        };
        let Some(datagram) = Datagram::read(v6, &self.frame[Ethernet::LENGTH..]) else {
            return self.pass(Reason::Unparsed);
        };
        let vips = self.memory.vips(datagram.destination);
        if vips.is_empty() {
            return self.no_vip(&datagram);
        }
        let Some(body) = datagram.body() else {
            return self.drop(Reason::Malformed);
        };
        let meaning = datagram.meaning(&body);
        if meaning == Meaning::Malformed {
            return self.drop(Reason::Malformed);
        }
        if body.part.is_some() {
            self.count(Reason::Fragment);
        }
        match meaning {
            Meaning::Error => self.error(&datagram, &body, &vips),
            Meaning::Flow(segment) => self.flow(&datagram, &body, &vips, segment),
            Meaning::Rest(kind) => self.rest(&datagram, &body, &vips, kind),
            _ => self.pass(Reason::IcmpOther),
        }
    }

    /// A packet to no VIP: an answer that NAT translates back, or nothing of ours.
    fn no_vip(self, datagram: &Datagram) -> Outcome {
        if self.settings.flags & SETTING_NAT == 0 {
            return self.pass(Reason::NotVip);
        }
        self.answer(datagram)
    }

    /// A packet of a flow, with its ports.
    fn flow(mut self, datagram: &Datagram, body: &Body, vips: &[Vip], segment: Segment) -> Outcome {
        let key = datagram.key(segment.kind, segment.ports);
        let Some(rule) = self.memory.matching(vips, key.kind, Some(port(&key))) else {
            return self.no_rule(datagram, body, vips, key.kind);
        };
        self.count_vip(rule.vip, datagram.length());
        let Some(service) = self.memory.service(rule.service) else {
            return self.drop(Reason::Internal);
        };
        let of = Numbered {
            number: rule.service,
            service,
        };
        let flow = Flow {
            datagram,
            body,
            segment,
            key,
            rule,
            of,
        };
        if service.mode == mode::NAT {
            return self.nat(flow);
        }
        let Some(server) = self.server(&flow) else {
            return self.no_server(datagram, body, key.kind, &service);
        };
        let server = self.note_fragment(&flow, server);
        let hash = key.hash(self.settings.table_seed);
        self.forward(Way {
            datagram,
            body,
            hash,
            dscp: rule.dscp,
            service: &service,
            server,
            error: false,
        })
    }

    /// A packet to a VIP that no rule takes.
    pub(super) fn no_rule(
        mut self,
        datagram: &Datagram,
        body: &Body,
        vips: &[Vip],
        kind: Kind,
    ) -> Outcome {
        let vip = vips[0];
        if kind == Kind::Echo && body.part.is_none() && vip.answers_echo() {
            return self.echo(datagram, body);
        }
        self.count(Reason::OtherPort);
        self.refuse(datagram, body, kind, vip.other)
    }

    /// The server of a flow, known or chosen; `None` if there is none.
    fn server(&mut self, flow: &Flow<'_>) -> Option<u16> {
        let entry = self.memory.find(&flow.key, false, self.slice());
        if let Some(entry) = entry.filter(|entry| self.is_known(entry, flow)) {
            self.touch(&entry, flow.segment);
            return Some(entry.meta.server);
        }
        if flow.of.service.slots_count == 0 {
            return None;
        }
        Some(self.begin(flow, entry))
    }

    /// Whether an entry that was found still says where its flow goes.
    pub(super) fn is_known(&mut self, entry: &Entry, flow: &Flow<'_>) -> bool {
        if !self.belongs(entry.meta.server, flow.of.number) {
            self.count(Reason::Moved);
            return false;
        }
        let over = flow.segment.first && entry.meta.state == State::Closing;
        !over && !is_idle(entry.meta, &flow.of.service.idle, self.now)
    }

    /// Notes that a known flow had a packet. True if its entry changed.
    pub(super) fn touch(&mut self, entry: &Entry, segment: Segment) -> bool {
        let meta = touched(entry.meta, segment, self.now);
        if counts(entry.meta) && meta.state == State::Closing {
            self.memory.give_back(meta.server);
        }
        self.memory.set_meta(entry.place, meta);
        meta != entry.meta
    }

    /// A flow that begins, or that nobody remembers: its server.
    fn begin(&mut self, flow: &Flow<'_>, entry: Option<Entry>) -> u16 {
        let memo = self.memo_of(flow);
        if !self.within_budget() {
            self.count(Reason::Flood);
            return memo.unwrap_or_else(|| self.by_hash(&flow.of.service, &flow.key));
        }
        let choice = self.choice(flow, memo);
        if self.store(flow, entry, choice.server) || choice.decided {
            return choice.server;
        }
        self.by_hash(&flow.of.service, &flow.key)
    }

    /// The server for a flow that may be stored: where its fragments went
    /// already, else chosen.
    pub(super) fn choice(&mut self, flow: &Flow<'_>, memo: Option<u16>) -> Choice {
        if let Some(server) = memo {
            return Choice {
                server,
                decided: true,
            };
        }
        if !flow.begins() {
            self.count(Reason::Unknown);
            let server = self.by_hash(&flow.of.service, &flow.key);
            return Choice {
                server,
                decided: false,
            };
        }
        self.choose(&flow.of, &flow.key)
    }

    /// Whether this CPU may store one more flow in this tick; counts it.
    pub(super) fn within_budget(&mut self) -> bool {
        let index = self.cpu();
        let Some(mut cpu) = self.memory.cpu(index) else {
            return false;
        };
        if cpu.tick != u32::from(self.now) {
            cpu.tick = self.now.into();
            cpu.stored = 0;
        }
        let within = self.settings.budget == 0 || cpu.stored < self.settings.budget;
        cpu.stored += u32::from(within);
        self.memory.set_cpu(index, &cpu);
        within
    }

    /// Stores a flow, over its old entry or where there is room.
    fn store(&mut self, flow: &Flow<'_>, entry: Option<Entry>, server: u16) -> bool {
        let room = || self.memory.room(&flow.key, false, self.slice(), self.now);
        let Some(place) = entry.map(|entry| entry.place).or_else(room) else {
            self.count(Reason::Full);
            return false;
        };
        let meta = self.new_meta(flow, server);
        self.memory.unload(place);
        self.memory.write(place, &flow.key, meta, None);
        self.stored(flow, meta);
        true
    }

    pub(super) fn new_meta(&self, flow: &Flow<'_>, server: u16) -> Meta {
        Meta {
            server,
            kind: flow.key.kind,
            state: flow.state(),
            stamp: self.now,
        }
    }

    /// Counts a flow that was stored, and tells the journal.
    pub(super) fn stored(&mut self, flow: &Flow<'_>, meta: Meta) {
        self.count(Reason::NewFlow);
        self.count_flow(flow.rule.vip, meta.server);
        if counts(meta) {
            self.memory.add_load(meta.server, flow.of.number, 1);
        }
        if self.settings.flags & SETTING_JOURNAL != 0 && is_flow(meta.kind) {
            self.tell(flow, meta);
        }
    }

    fn tell(&mut self, flow: &Flow<'_>, meta: Meta) {
        let index = self.cpu();
        let Some(mut cpu) = self.memory.cpu(index) else {
            return;
        };
        let length = u64::from(self.memory.sizes().journal);
        let at = index as u64 * length + cpu.journal % length;
        cpu.journal += 1;
        let record = JournalRecord {
            sequence: cpu.journal,
            family: if flow.datagram.is_v6() { 6 } else { 4 },
            kind: meta.kind as u8,
            service: flow.of.number,
            server: meta.server,
            vip: flow.rule.vip,
            source: padded(flow.key.source),
            destination: padded(flow.key.destination),
            ports: flow.key.ports,
            meta: meta.encode(),
        };
        self.memory.set_cpu(index, &cpu);
        let at = usize::try_from(at).expect("a table's index fits memory");
        self.memory.set_record(at, &record);
    }
}

/// An address as tables hold both families.
fn padded(address: std::net::IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let octets = super::rewrite::octets(address);
    bytes[..octets.len()].copy_from_slice(&octets);
    bytes
}

impl Memory {
    /// Number of records a CPU has written to the journal.
    #[must_use]
    pub fn journal_head(&self, cpu: usize) -> u64 {
        self.cpu(cpu).map_or(0, |cpu| cpu.journal)
    }
}
