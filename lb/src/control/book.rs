use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::{Refused, Wanted};
use crate::dataplane::{
    Installed, Local, Plan, PutServer, PutService, PutVip, ServerNumber, ServiceNumber, Slots,
    VipNumber,
};
use crate::policy::{Weighted, maglev, ring};
use crate::service::{Identity, Server, Service, TableSize, Vip};

/// What the data plane holds: the numbers of everything, and what was last put
/// under each. After an adoption numbers are known, but not what is under
/// them, so the first plan puts everything anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    local: Option<Local>,
    services: Numbers<ServiceNumber, PutService>,
    tables: HashMap<Identity, Tables>,
    vips: Numbers<VipNumber, PutVip>,
    servers: Numbers<ServerNumber, PutServer>,
}

/// The tables of a service, with what they were made of.
#[derive(Debug, Clone, PartialEq)]
struct Tables {
    of: Vec<Weighted>,
    size: TableSize,
    ring: Slots,
    hash: Slots,
}

impl Book {
    /// Knows what is installed by number.
    pub(super) fn adopt(installed: &Installed) -> Self {
        let mut book = Self::default();
        for (number, identity) in &installed.services {
            book.services.adopt(*number, *identity);
        }
        for (number, (identity, _)) in &installed.vips {
            book.vips.adopt(*number, *identity);
        }
        for (number, (identity, _)) in &installed.servers {
            book.servers.adopt(*number, *identity);
        }
        book
    }

    /// The number of a server.
    pub(super) fn server(&self, identity: Identity) -> Option<ServerNumber> {
        self.servers.number(identity)
    }

    /// The identity behind a number.
    pub(super) fn identity(&self, number: ServerNumber) -> Option<Identity> {
        self.servers.identity(number)
    }

    /// The number of a VIP.
    pub(super) fn vip(&self, vip: &Vip) -> Option<VipNumber> {
        self.vips.number(vip_identity(vip))
    }

    /// How many slots of the hash table each server of a service has.
    pub(super) fn slots(&self, service: Identity) -> HashMap<ServerNumber, usize> {
        let mut slots = HashMap::new();
        for number in self
            .tables
            .get(&service)
            .iter()
            .flat_map(|of| of.hash.iter())
        {
            *slots.entry(number).or_default() += 1;
        }
        slots
    }

    /// The difference to what is wanted, and the book as it is once that is made.
    pub(super) fn plan(&self, wanted: &Wanted) -> Result<(Plan, Self), Refused> {
        let mut next = self.clone();
        let mut plan = Plan::default();
        if next.local != Some(wanted.local) {
            next.local = Some(wanted.local);
            plan.local = Some(wanted.local);
        }
        for service in wanted.services() {
            next.put(service, &mut plan)?;
        }
        next.leave(wanted, &mut plan);
        Ok((plan, next))
    }

    /// Takes out what is not wanted any more. Last, so that no number means
    /// two things within one plan.
    fn leave(&mut self, wanted: &Wanted, plan: &mut Plan) {
        let services: BTreeSet<_> = wanted.services().map(Service::identity).collect();
        let vips = wanted.services().flat_map(|service| &service.vips);
        let vips: BTreeSet<_> = vips.map(vip_identity).collect();
        let servers = wanted.services().flat_map(|service| {
            let of = |server: &Server| service.server_identity(&server.id);
            service.servers.iter().map(of)
        });
        let servers: BTreeSet<_> = servers.collect();
        plan.remove_vips = self.vips.retain(&vips);
        plan.remove_services = self.services.retain(&services);
        plan.remove_servers = self.servers.retain(&servers);
        self.tables
            .retain(|identity, _| services.contains(identity));
    }

    fn put(&mut self, service: &Service, plan: &mut Plan) -> Result<(), Refused> {
        let identity = service.identity();
        let number = self.services.claim(identity, "services")?;
        let mut weighted = Vec::with_capacity(service.servers.len());
        for server in &service.servers {
            let identity = service.server_identity(&server.id);
            let number_of_server = self.servers.claim(identity, "servers")?;
            weighted.push(Weighted {
                number: number_of_server,
                identity,
                weight: server.weight,
            });
            let put = PutServer {
                number: number_of_server,
                service: number,
                identity,
                server: server.clone(),
                mode: service.mode.clone(),
            };
            plan.put_servers
                .extend(self.servers.put(number_of_server, put));
        }
        let (ring, hash) = self.tables(identity, weighted, service.policy.table_size());
        let put = PutService {
            number,
            name: service.name.clone(),
            identity,
            policy: service.policy,
            mode: service.mode.clone(),
            on_empty: service.on_empty,
            affinity: service.affinity,
            idle: service.idle,
            ring,
            hash,
        };
        plan.put_services.extend(self.services.put(number, put));
        for vip in &service.vips {
            let identity = vip_identity(vip);
            let put = PutVip {
                number: self.vips.claim(identity, "VIPs")?,
                identity,
                vip: vip.clone(),
                service: number,
            };
            plan.put_vips.extend(self.vips.put(put.number, put));
        }
        Ok(())
    }

    /// The tables of a service, made anew only where servers or weights differ.
    fn tables(&mut self, service: Identity, of: Vec<Weighted>, size: TableSize) -> (Slots, Slots) {
        let known = self.tables.get(&service);
        let known = known.filter(|tables| tables.of == of && tables.size == size);
        let tables = known.cloned().unwrap_or_else(|| Tables {
            ring: ring(&of),
            hash: maglev(&of, size),
            of,
            size,
        });
        let slots = (tables.ring.clone(), tables.hash.clone());
        self.tables.insert(service, tables);
        slots
    }
}

/// A VIP that moves to another service stays the same VIP.
fn vip_identity(vip: &Vip) -> Identity {
    Identity::of(&["vip", &vip.to_string()])
}

/// Numbers of one kind, and what stands under each.
#[derive(Debug, Clone)]
struct Numbers<N, T> {
    by_identity: HashMap<Identity, N>,
    by_number: BTreeMap<N, (Identity, Option<T>)>,
}

impl<N, T> Default for Numbers<N, T> {
    fn default() -> Self {
        Self {
            by_identity: HashMap::new(),
            by_number: BTreeMap::new(),
        }
    }
}

impl<N: Number, T: Clone + PartialEq> Numbers<N, T> {
    fn adopt(&mut self, number: N, identity: Identity) {
        self.by_identity.insert(identity, number);
        self.by_number.insert(number, (identity, None));
    }

    fn number(&self, identity: Identity) -> Option<N> {
        self.by_identity.get(&identity).copied()
    }

    fn identity(&self, number: N) -> Option<Identity> {
        self.by_number.get(&number).map(|(identity, _)| *identity)
    }

    /// The number of an identity, an old or a new one.
    fn claim(&mut self, identity: Identity, what: &'static str) -> Result<N, Refused> {
        if let Some(number) = self.number(identity) {
            return Ok(number);
        }
        let free = |number: &N| !self.by_number.contains_key(number);
        let number = (1..=u16::MAX).filter_map(N::new).find(free);
        let number = number.ok_or(Refused::TooMany {
            what,
            wanted: self.by_number.len() + 1,
            limit: usize::from(u16::MAX),
        })?;
        self.adopt(number, identity);
        Ok(number)
    }

    /// Remembers what stands under a number; gives it back if that is new.
    fn put(&mut self, number: N, value: T) -> Option<T> {
        let (_, known) = self.by_number.get_mut(&number)?;
        if known.as_ref() == Some(&value) {
            return None;
        }
        *known = Some(value.clone());
        Some(value)
    }

    /// Forgets all but these; gives the numbers that became free.
    fn retain(&mut self, wanted: &BTreeSet<Identity>) -> Vec<N> {
        let gone = self.by_identity.iter();
        let gone = gone.filter(|(identity, _)| !wanted.contains(identity));
        let mut gone: Vec<_> = gone.map(|(_, number)| *number).collect();
        gone.sort_unstable();
        for number in &gone {
            self.by_number.remove(number);
        }
        self.by_identity
            .retain(|identity, _| wanted.contains(identity));
        gone
    }
}

trait Number: Copy + Ord + Hash {
    fn new(number: u16) -> Option<Self>;
}

impl Number for ServiceNumber {
    fn new(number: u16) -> Option<Self> {
        Self::new(number)
    }
}

impl Number for VipNumber {
    fn new(number: u16) -> Option<Self> {
        Self::new(number)
    }
}

impl Number for ServerNumber {
    fn new(number: u16) -> Option<Self> {
        Self::new(number)
    }
}
