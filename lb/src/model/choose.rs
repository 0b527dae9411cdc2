//! Which server a new flow goes to.

use super::flow::is_idle;
use super::run::Run;
use crate::tables::{Key, Kind, Meta, Reason, Service, State, policy, scale};

/// A service and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    pub(super) number: u16,
    pub(super) service: Service,
}

/// A server that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) server: u16,
    /// It stands also when the flow cannot be stored.
    pub(super) decided: bool,
}

const SPILL_TRIES: u32 = 8;

impl Run<'_> {
    /// The server in the hash table's slot of a flow.
    pub(super) fn by_hash(&self, service: &Service, key: &Key) -> u16 {
        let h = key.hash(self.settings.slot_seed);
        self.slot(service.slots_base, scale(h, service.slots_count))
    }

    fn slot(&self, base: u32, slot: u32) -> u16 {
        self.memory.slot(base + slot).unwrap_or(0)
    }

    /// The server of the next turn of the ring; without a ring that of the hash.
    fn by_turn(&mut self, of: &Numbered, key: &Key) -> u16 {
        if of.service.ring_count == 0 {
            return self.by_hash(&of.service, key);
        }
        let Some(mut turn) = self.memory.turn(of.number.into()) else {
            return 0;
        };
        let slot = turn.cursor % u64::from(of.service.ring_count);
        turn.cursor = turn.cursor.wrapping_add(1);
        self.memory.set_turn(of.number.into(), &turn);
        self.slot(
            of.service.ring_base,
            u32::try_from(slot).expect("a remainder of 32 bits"),
        )
    }

    /// Chooses for a flow that begins: the client's last server, else by policy.
    pub(super) fn choose(&mut self, of: &Numbered, key: &Key) -> Choice {
        if of.service.affinity == 0 {
            let server = self.by_policy(of, key);
            return Choice {
                server,
                decided: false,
            };
        }
        let client = affinity_key(key, of.number);
        if let Some(server) = self.last_server(of, &client) {
            self.count(Reason::Affinity);
            self.remember(&client, server);
            return Choice {
                server,
                decided: true,
            };
        }
        let server = self.by_policy(of, key);
        self.remember(&client, server);
        Choice {
            server,
            decided: false,
        }
    }

    fn last_server(&self, of: &Numbered, client: &Key) -> Option<u16> {
        let entry = self.memory.find(client, false, self.slice())?;
        let server = self.memory.server(entry.meta.server.into())?;
        let fits = entry.meta.age(self.now) <= of.service.affinity
            && self.belongs(entry.meta.server, of.number)
            && server.weight > 0;
        fits.then_some(entry.meta.server)
    }

    /// Whether a server is in use and of a service.
    pub(super) fn belongs(&self, server: u16, service: u16) -> bool {
        self.memory
            .server_in_use(server)
            .is_some_and(|server| server.service == service)
    }

    /// Writes an entry that is no flow, over the one that is there.
    pub(super) fn remember(&mut self, key: &Key, server: u16) {
        let meta = Meta {
            server,
            kind: key.kind,
            state: State::Established,
            stamp: self.now,
        };
        if let Some(entry) = self.memory.find(key, false, self.slice()) {
            self.memory.set_meta(entry.place, meta);
        } else if let Some(place) = self.memory.room(key, false, self.slice(), self.now) {
            self.memory.unload(place);
            self.memory.write(place, key, meta, None);
        }
    }

    /// The server of an entry that is no flow, if it is not idle.
    pub(super) fn remembered(&self, key: &Key) -> Option<u16> {
        let entry = self.memory.find(key, false, self.slice())?;
        (!is_idle(entry.meta, &self.settings.idle, self.now)).then_some(entry.meta.server)
    }

    fn by_policy(&mut self, of: &Numbered, key: &Key) -> u16 {
        match of.service.policy {
            policy::ROUND_ROBIN => self.by_turn(of, key),
            policy::LEAST => self.by_load(of, key),
            policy::SOURCE => self.by_source(&of.service, key),
            policy::SPILL => self.by_spill(of, key),
            _ => self.by_hash(&of.service, key),
        }
    }

    /// The less loaded of the next turn's server and one by hash.
    fn by_load(&mut self, of: &Numbered, key: &Key) -> u16 {
        if of.service.ring_count == 0 {
            return self.by_hash(&of.service, key);
        }
        let h = key.hash(self.settings.slot_seed);
        let a = self.by_turn(of, key);
        let b = self.slot(of.service.ring_base, scale(h >> 32, of.service.ring_count));
        let (load_a, weight_a) = self.load(a);
        let (load_b, weight_b) = self.load(b);
        if load_b.wrapping_mul(weight_a) < load_a.wrapping_mul(weight_b) {
            b
        } else {
            a
        }
    }

    /// Live flows and weight of a server.
    fn load(&self, server: u16) -> (u64, u64) {
        let weight = self
            .memory
            .server(server.into())
            .map_or(0, |server| server.weight.into());
        (self.memory.load(server).unwrap_or(0), weight)
    }

    fn by_source(&self, service: &Service, key: &Key) -> u16 {
        self.by_hash(service, &source_key(key))
    }

    /// The hash's server unless it is over its share; then the next of the
    /// ring that is not.
    fn by_spill(&mut self, of: &Numbered, key: &Key) -> u16 {
        let hash = self.by_hash(&of.service, key);
        if of.service.ring_count == 0 || !self.is_over(of, hash) {
            return hash;
        }
        self.count(Reason::Spilled);
        for _ in 0..SPILL_TRIES {
            let server = self.by_turn(of, key);
            if !self.is_over(of, server) {
                return server;
            }
        }
        hash
    }

    /// Whether a server has more than its share of the live flows.
    fn is_over(&self, of: &Numbered, server: u16) -> bool {
        let flows = self
            .memory
            .turn(of.number.into())
            .map_or(0, |turn| turn.flows);
        let (load, weight) = self.load(server);
        let total = u64::from(of.service.total_weight) * 256;
        let share = flows
            .wrapping_mul(weight)
            .wrapping_mul(of.service.spill_factor.into());
        let more = u64::from(of.service.spill_above).wrapping_mul(total);
        flows > 0 && load.wrapping_mul(total) >= share.wrapping_add(more)
    }
}

/// The key of a source alone.
pub(super) fn source_key(key: &Key) -> Key {
    affinity_key(key, 0)
}

/// The key of a client's last server of a service, whose number stands in the
/// first word of the destination.
fn affinity_key(key: &Key, service: u16) -> Key {
    let [low, high] = service.to_le_bytes();
    let destination = if key.source.is_ipv4() {
        [low, high, 0, 0].into()
    } else {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[low, high]);
        octets.into()
    };
    Key {
        source: key.source,
        destination,
        ports: 0,
        kind: Kind::Affinity,
    }
}
