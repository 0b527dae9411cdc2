use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use carrick_tests::{Lab, ip};

use crate::site::{NSES, STAYING, Site, VISITORS};

/// How long it may take until nothing is left of clients that were killed:
/// their tokens expire, and what was restarted finds its peers again.
const SETTLING: Duration = Duration::from_secs(60);

/// Connections that differ by who dialled whom: nothing that grows.
const SLACK: i64 = 12;

/// The programs whose descriptors and tasks are counted.
const PROGRAMS: [&str; 8] = [
    "agent",
    "ipam",
    "nsc-ant",
    "nsc-bee",
    "nse-one",
    "nse-three",
    "nse-two",
    "registry-east",
];

/// What there was at the beginning.
pub(crate) struct Books {
    opening: Account,
    routes: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Books {
    /// Waits for a network at rest and writes down what there is.
    pub(crate) async fn open(site: &Site) -> Self {
        at_rest(site).await;
        let routes = NSES.iter().map(|(nse, _)| (*nse, routes(&site.lab, nse)));
        Self {
            routes: routes.collect(),
            opening: Account::of(&site.lab).await,
        }
    }

    pub(crate) fn opening(&self) -> &Account {
        &self.opening
    }

    /// Waits until leases, prefixes, registrations, links, interfaces and
    /// routes are those of the beginning; what the programs hold then.
    pub(crate) async fn are_balanced(&self, site: &Site) -> Account {
        at_rest(site).await;
        for (pod, address) in site.addresses() {
            assert_eq!(
                site.lab.address(pod).await,
                address,
                "{pod} keeps its address"
            );
        }
        for (nse, before) in &self.routes {
            assert_eq!(routes(&site.lab, nse), *before, "routes of {nse}");
        }
        Account::of(&site.lab).await
    }
}

/// Waits until there is nothing but what belongs to the clients that stay.
async fn at_rest(site: &Site) {
    let lab = &site.lab;
    let (peers, prefixes) = (NSES.len() - 1, NSES.len());
    for (nse, _) in NSES {
        let clients = STAYING.iter().filter(|(.., its)| *its == nse).count();
        lab.wait_within(SETTLING, &format!("{nse} is at rest"), async || {
            let status = lab.status(nse).await?;
            let count = |key: &str| Some(status[key].as_array()?.len());
            let linked = status["peers"].as_array()?.iter();
            let linked = linked.filter(|peer| peer["state"] == "linked").count();
            let inbound = status["connections"].as_array()?.iter();
            let inbound = inbound.filter(|is| !is["peer"].is_null()).count();
            let now = (count("leases")?, count("connections")? - inbound, linked);
            let rest = now == (clients, clients, peers) && lab.is_ready(nse).await;
            (rest && lab.devices(nse) == peers + clients).then_some(())
        })
        .await;
    }
    for (program, gauge, count) in [
        ("ipam", "carrick_ipam_leases", prefixes),
        ("ipam", "carrick_ipam_streams", prefixes),
        ("registry-east", "carrick_registry_endpoints", prefixes),
        ("registry-east", "carrick_registry_services", 1),
    ] {
        let wanted = i64::try_from(count).unwrap();
        lab.wait_within(SETTLING, &format!("{gauge} is {count}"), async || {
            (value(lab, program, gauge).await? == wanted).then_some(())
        })
        .await;
    }
    for (pod, ..) in VISITORS {
        lab.wait_within(SETTLING, &format!("{pod} has no interface"), async || {
            ip::interfaces(lab.netns(pod)).is_empty().then_some(())
        })
        .await;
    }
}

/// Where the router of an endpoint sends what; the links' names differ from
/// one link to the next.
fn routes(lab: &Lab, nse: &str) -> BTreeSet<String> {
    let all = ip::routes(lab.router(nse)).into_iter();
    all.map(|route| route.split(" dev ").next().unwrap().to_owned())
        .collect()
}

async fn value(lab: &Lab, program: &str, gauge: &str) -> Option<i64> {
    let text = lab.metrics(program).await?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(gauge)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// What each program holds: descriptors and tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account(BTreeMap<(&'static str, &'static str), i64>);

impl Account {
    async fn of(lab: &Lab) -> Self {
        let mut held = BTreeMap::new();
        for program in PROGRAMS {
            let open = fs::read_dir(format!("/proc/{}/fd", lab.pid(program))).unwrap();
            let open = i64::try_from(open.count()).unwrap();
            held.insert((program, "descriptors"), open);
            let tasks = async || value(lab, program, "carrick_process_tasks").await;
            let tasks = lab.wait(&format!("{program} tells its tasks"), tasks).await;
            held.insert((program, "tasks"), tasks);
        }
        Self(held)
    }

    /// What is more than in `other`, by how much.
    fn beyond(&self, other: &Self) -> BTreeMap<(&'static str, &'static str), i64> {
        let more = self
            .0
            .iter()
            .map(|(key, count)| (*key, count - other.0[key]));
        more.filter(|(_, more)| *more > 0).collect()
    }

    /// Requires that no program holds much more than in `other`.
    pub(crate) fn is_near(&self, other: &Self) {
        let beyond = self.beyond(other);
        assert!(
            beyond.values().all(|more| *more <= SLACK),
            "{beyond:?}: {other:?}"
        );
    }

    /// Waits until no program holds more than in `before`.
    pub(crate) async fn returns_to(site: &Site, before: &Self) {
        let mut last = BTreeMap::new();
        let none = async || {
            last = Self::of(&site.lab).await.beyond(before);
            last.is_empty().then_some(())
        };
        site.lab
            .wait_within(SETTLING, "descriptors and tasks are given back", none)
            .await;
    }
}
