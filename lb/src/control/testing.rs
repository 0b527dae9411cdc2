//! A data plane in memory, for tests of control and journal: it holds what it
//! is told, and refuses plans that name what is not there.

use std::collections::{BTreeMap, HashMap};

use crate::dataplane::{
    Applied, Counters, Dataplane, Error, FlowKey, FlowRecord, FlowState, Installed, Plan,
    PutServer, PutService, PutVip, ServerCounters, ServerNumber, ServiceNumber, Statistics,
    VipNumber,
};
use crate::policy::{Loads, choose};
use crate::service::{Identity, Service};

/// Chooses by [`choose`], remembers every flow, journals every new one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) services: BTreeMap<ServiceNumber, PutService>,
    pub(crate) vips: BTreeMap<VipNumber, PutVip>,
    pub(crate) servers: BTreeMap<ServerNumber, PutServer>,
    pub(crate) flows: HashMap<FlowKey, ServerNumber>,
    pub(crate) plans: usize,
    pub(crate) last: Plan,
    /// The next plan fails.
    pub(crate) fail: bool,
    journal: Vec<FlowRecord>,
    cursors: HashMap<ServiceNumber, u64>,
}

impl Dataplane for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn supports(&self, _: &Service) -> Result<(), Error> {
        Ok(())
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        if std::mem::take(&mut self.fail) {
            return Err(Error::io("write", std::io::ErrorKind::OutOfMemory.into()));
        }
        let mut next = self.clone();
        next.make(plan);
        next.check();
        next.plans += 1;
        next.last = plan.clone();
        *self = next;
        Ok(Applied::default())
    }

    fn installed(&self) -> Result<Installed, Error> {
        let services = self.services.iter();
        let vips = self.vips.iter();
        let servers = self.servers.iter();
        Ok(Installed {
            services: services.map(|(n, one)| (*n, one.identity)).collect(),
            vips: vips
                .map(|(n, one)| (*n, (one.identity, one.service)))
                .collect(),
            servers: servers
                .map(|(n, one)| (*n, (one.identity, one.service)))
                .collect(),
        })
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        let mut statistics = Statistics::default();
        for server in self.flows.values() {
            let one: &mut ServerCounters = statistics.servers.entry(*server).or_default();
            one.live += 1;
            one.total.flows += 1;
        }
        for number in self.vips.keys() {
            statistics.vips.insert(*number, Counters::default());
        }
        Ok(statistics)
    }

    fn take_new_flows(&mut self, into: &mut Vec<FlowRecord>, limit: usize) -> Result<u64, Error> {
        into.extend(self.journal.drain(..limit.min(self.journal.len())));
        Ok(0)
    }

    fn insert_flows(&mut self, flows: &[FlowRecord]) -> Result<usize, Error> {
        let before = self.flows.len();
        for flow in flows {
            assert!(self.servers.contains_key(&flow.server));
            self.flows.entry(flow.key).or_insert(flow.server);
        }
        Ok(self.flows.len() - before)
    }

    fn each_flow(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        for (key, server) in &self.flows {
            show(record(*key, *server));
        }
        Ok(())
    }
}

fn record(key: FlowKey, server: ServerNumber) -> FlowRecord {
    FlowRecord {
        key,
        vip: None,
        server,
        state: FlowState::Established,
        idle: std::time::Duration::ZERO,
        translated: None,
    }
}

impl Memory {
    fn make(&mut self, plan: &Plan) {
        for server in &plan.put_servers {
            self.servers.insert(server.number, server.clone());
        }
        for service in &plan.put_services {
            self.services.insert(service.number, service.clone());
        }
        for vip in &plan.remove_vips {
            self.vips
                .remove(vip)
                .expect("only what is there is removed");
        }
        for vip in &plan.put_vips {
            self.vips.insert(vip.number, vip.clone());
        }
        for number in &plan.remove_services {
            self.services
                .remove(number)
                .expect("only what is there is removed");
        }
        for number in &plan.remove_servers {
            self.servers
                .remove(number)
                .expect("only what is there is removed");
            self.flows.retain(|_, server| server != number);
        }
    }

    fn check(&self) {
        for service in self.services.values() {
            for number in service.ring.iter().chain(service.hash.iter()) {
                assert!(self.servers[&number].server.weight > 0);
            }
            assert_eq!(service.ring.is_empty(), service.hash.is_empty());
        }
        for vip in self.vips.values() {
            assert!(self.services.contains_key(&vip.service));
        }
        for server in self.servers.values() {
            assert!(self.services.contains_key(&server.service));
        }
    }

    /// Treats a packet; gives the server it goes to.
    pub(crate) fn packet(&mut self, key: FlowKey, opening: bool) -> Option<Identity> {
        let number = match self.flows.get(&key) {
            Some(number) => *number,
            None => self.new_flow(key, opening)?,
        };
        Some(self.servers[&number].identity)
    }

    fn new_flow(&mut self, key: FlowKey, opening: bool) -> Option<ServerNumber> {
        let vips = self.vips.values();
        let vip = vips
            .filter(|put| put.vip.prefix.contains(&key.destination))
            .max_by_key(|put| put.vip.prefix.prefix_len())?;
        let service = &self.services[&vip.service];
        let hash = Identity::of(&["flow", &format!("{key:?}")]).bits();
        let cursor = self.cursors.entry(service.number).or_default();
        let policy = if opening {
            service.policy
        } else {
            crate::service::Policy::Maglev {
                size: service.policy.table_size(),
            }
        };
        let chosen = choose(policy, &service.ring, &service.hash, hash, cursor, &Even)?;
        self.flows.insert(key, chosen.server);
        self.journal.push(record(key, chosen.server));
        Some(chosen.server)
    }
}

/// All servers equally loaded.
struct Even;

impl Loads for Even {
    fn live(&self, _: ServerNumber) -> u64 {
        0
    }
    fn weight(&self, _: ServerNumber) -> u64 {
        1
    }
    fn total_live(&self) -> u64 {
        0
    }
    fn total_weight(&self) -> u64 {
        1
    }
}

/// The flow of the n-th client to a VIP.
pub(crate) fn flow(vip: &str, client: u32) -> FlowKey {
    FlowKey {
        source: std::net::Ipv4Addr::from_bits(0x1400_0000 + client).into(),
        destination: vip.parse().unwrap(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 5001,
    }
}
