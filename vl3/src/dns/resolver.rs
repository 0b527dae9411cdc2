use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use tokio::sync::Semaphore;

use super::arpa::address_of;
use super::fanout::Asked;
use super::{Fanout, Records};
use crate::handle::now;
use crate::{Metrics, Vl3};

/// What a [`Resolver`] is told by its configuration.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Zones in which names are answered, see [`Template::zone`](super::Template::zone).
    /// A name outside is refused, so that the client asks its next server.
    pub zones: Vec<Name>,
    /// How long a client may keep an answer, in whole seconds (default 1): a
    /// name is gone that much later than its workload.
    pub ttl: u32,
    /// How long we keep that nobody has a name (default 500 ms).
    pub negative: Duration,
    /// Most questions that are put to peers at once (default 256).
    pub max_fanouts: usize,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            ttl: 1,
            negative: Duration::from_millis(500),
            max_fanouts: 256,
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Some peer could not be asked, so nothing is certain (SERVFAIL).
    Failed,
    /// The name is there, with no record of this type; beside it the zone's SOA.
    NoData(Box<Record>),
    /// Nobody has the name (NXDOMAIN); beside it the zone's SOA.
    NoName(Box<Record>),
    /// These.
    Records(Vec<Record>),
    /// None of our business.
    Refused,
}

impl Answer {
    /// What an answer is in metrics.
    pub(crate) const WORDS: [&'static str; 5] =
        ["failed", "no_data", "no_name", "records", "refused"];

    fn as_str(&self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NoData(_) => "no_data",
            Self::NoName(_) => "no_name",
            Self::Records(_) => "records",
            Self::Refused => "refused",
        }
    }
}

/// Answers questions from own records, else from those of the peers.
///
/// Peers are asked for our own clients only, those whose address lies in one
/// of our prefixes, and only if the question desires recursion (RFC 1035
/// §4.1.1). A question of a peer, or of anybody behind it, is answered from own
/// records: so a question never travels further than one step. NSM's own
/// endpoints put what they cannot answer to all their peers, without
/// the wish for recursion (NSM `norecursion`).
#[derive(Debug)]
pub struct Resolver {
    vl3: Vl3,
    records: Records,
    fanout: Fanout,
    options: ResolverOptions,
    /// Until when nobody has a name.
    negative: Mutex<HashMap<(LowerName, RecordType), Instant>>,
    permits: Semaphore,
}

impl Resolver {
    /// Most names that are remembered as nobody's.
    const NEGATIVES_MAX: usize = 4096;

    /// A resolver over `records` that asks peers by way of `fanout`.
    #[must_use]
    pub fn new(vl3: Vl3, records: Records, fanout: Fanout, options: ResolverOptions) -> Self {
        let permits = Semaphore::new(options.max_fanouts);
        Self {
            vl3,
            records,
            fanout,
            options,
            negative: Mutex::default(),
            permits,
        }
    }

    /// The network it is in.
    pub(crate) fn vl3(&self) -> &Vl3 {
        &self.vl3
    }

    /// Answers one question that came from `source`; `recursion` is whether
    /// peers may be asked for it.
    pub async fn resolve(
        &self,
        name: &Name,
        class: DNSClass,
        kind: RecordType,
        source: IpAddr,
        recursion: bool,
    ) -> Answer {
        let further = recursion && self.is_client(source);
        let answer = match self.zone_of(name) {
            Some(zone) if class == DNSClass::IN => {
                self.resolve_in(&zone, name, kind, further).await
            }
            _ => Answer::Refused,
        };
        Metrics::count(&self.vl3.metrics().dns_queries, answer.as_str());
        answer
    }

    async fn resolve_in(
        &self,
        zone: &Name,
        name: &Name,
        kind: RecordType,
        further: bool,
    ) -> Answer {
        if name.to_lowercase() == *zone {
            let apex = kind == RecordType::SOA || kind == RecordType::ANY;
            let soa = self.soa(zone);
            return if apex {
                Answer::Records(vec![soa])
            } else {
                Answer::NoData(soa.into())
            };
        }
        if let Some(records) = self.own(name, kind) {
            return if records.is_empty() {
                Answer::NoData(self.soa(zone).into())
            } else {
                Answer::Records(records)
            };
        }
        if !further || !is_published(kind) || self.is_negative(name, kind) {
            return Answer::NoName(self.soa(zone).into());
        }
        match self.ask_peers(name, kind).await {
            Asked::Failed => Answer::Failed,
            Asked::Nobody => {
                self.keep_negative(name, kind);
                Answer::NoName(self.soa(zone).into())
            }
            Asked::NoData => Answer::NoData(self.soa(zone).into()),
            Asked::Records(records) => Answer::Records(records),
        }
    }

    async fn ask_peers(&self, name: &Name, kind: RecordType) -> Asked {
        let Ok(_permit) = self.permits.try_acquire() else {
            return Asked::Failed;
        };
        let ground = self.vl3.ground();
        let acceptable = |record: &Record| match &record.data {
            RData::A(A(ip)) => ground.networks.iter().any(|net| net.contains((*ip).into())),
            RData::AAAA(AAAA(ip)) => ground.networks.iter().any(|net| net.contains((*ip).into())),
            RData::PTR(PTR(name)) => self.zone_of(name).is_some(),
            _ => false,
        };
        let links = self.vl3.links();
        let links = links.iter().filter(|(_, _, alive)| *alive);
        let servers: Vec<_> = links
            .flat_map(|(_, link, _)| link.name_servers().iter().copied().take(2))
            .collect();
        let asked = self
            .fanout
            .ask(&self.vl3.addresses(), &servers, name, kind, &acceptable)
            .await;
        match asked {
            Asked::Records(mut records) => {
                for record in &mut records {
                    record.ttl = record.ttl.min(self.options.ttl);
                }
                Asked::Records(records)
            }
            other => other,
        }
    }

    /// Records of our own; `None` if the name is not ours.
    fn own(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let data: Vec<RData> = if let Some(address) = address_of(name) {
            let names = self.records.names(address)?.into_iter();
            names.map(|name| RData::PTR(PTR(name))).collect()
        } else {
            let addresses = self.records.addresses(&LowerName::new(name))?;
            addresses.into_iter().map(data_of).collect()
        };
        let wanted = data
            .into_iter()
            .filter(|data| kind == RecordType::ANY || data.record_type() == kind);
        Some(
            wanted
                .map(|data| Record::from_rdata(name.clone(), self.options.ttl, data))
                .collect(),
        )
    }

    /// The zone that a name is in: a configured one, or the reverse name's own parent.
    fn zone_of(&self, name: &Name) -> Option<Name> {
        if let Some(address) = address_of(name) {
            let inside = self
                .vl3
                .ground()
                .networks
                .iter()
                .any(|net| net.contains(address));
            return inside.then(|| name.base_name().to_lowercase());
        }
        let zones = self.options.zones.iter().filter(|zone| zone.zone_of(name));
        zones.max_by_key(|zone| zone.num_labels()).cloned()
    }

    /// RFC 2308 §2: its minimum says how long a negative answer may be kept.
    fn soa(&self, zone: &Name) -> Record {
        let server = Name::from_ascii("ns")
            .and_then(|ns| ns.append_domain(zone))
            .unwrap_or_else(|_| zone.clone());
        let ttl = self.options.ttl;
        let soa = SOA::new(server, zone.clone(), 1, 60, 60, 60, ttl);
        Record::from_rdata(zone.clone(), ttl, RData::SOA(soa))
    }

    fn is_client(&self, source: IpAddr) -> bool {
        self.vl3
            .ground()
            .own
            .iter()
            .any(|prefix| prefix.contains(source))
    }

    fn is_negative(&self, name: &Name, kind: RecordType) -> bool {
        let negative = self.negative.lock().unwrap_or_else(PoisonError::into_inner);
        negative
            .get(&(LowerName::new(name), kind))
            .is_some_and(|until| *until > now())
    }

    fn keep_negative(&self, name: &Name, kind: RecordType) {
        let mut negative = self.negative.lock().unwrap_or_else(PoisonError::into_inner);
        if negative.len() >= Self::NEGATIVES_MAX {
            negative.retain(|_, until| *until > now());
        }
        if negative.len() < Self::NEGATIVES_MAX {
            negative.insert((LowerName::new(name), kind), now() + self.options.negative);
        }
    }
}

fn data_of(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// Whether any endpoint has records of this type.
fn is_published(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::A | RecordType::AAAA | RecordType::PTR | RecordType::ANY
    )
}
