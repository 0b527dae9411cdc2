use std::collections::BTreeMap;
use std::net::IpAddr;

use carrick_types::{ExtraPrefixRequest, ServiceName};

use super::*;

fn grants(prefixes: &[&str]) -> Arc<[Grant]> {
    let prefix = |text: &&str| Grant::from(text.parse::<Prefix>().unwrap());
    prefixes.iter().map(prefix).collect()
}

/// What a crash would leave.
#[derive(Clone, Debug, Default)]
struct Disk {
    leases: BTreeMap<Prefix, Lease>,
    history: BTreeMap<ClientId, Former>,
}

impl Disk {
    fn write(&mut self, plan: &Plan) {
        self.leases.extend(plan.put.iter().cloned());
        self.leases.extend(plan.give_back.iter().cloned());
        self.remove(&plan.remove);
    }

    fn remove(&mut self, prefixes: &[Prefix]) {
        for prefix in prefixes {
            self.leases.remove(prefix);
        }
    }

    fn open(&self, now: SystemTime) -> Book {
        let options = BookOptions {
            rest: Duration::from_secs(3),
            history: 8,
            history_age: Duration::from_secs(1000),
            return_time: Duration::from_secs(100),
            extra_prefixes: 2,
        };
        Book::new(
            options,
            self.leases.clone(),
            self.history.values().cloned(),
            now,
        )
    }
}

/// Of sixteen connections three and three are of one client; the rest have none.
fn client(connection: &ConnectionId) -> Option<ClientId> {
    let number: u8 = connection.as_str()[1..].parse().unwrap();
    (number < 9).then(|| ClientId {
        service: ServiceName::new("vl3").unwrap(),
        name: format!("nsc{}", number % 3),
        id: "0".into(),
    })
}

/// Notes an answer; an address may come from another connection only if that
/// was of the same client.
fn tell(told: &mut BTreeMap<IpAddr, ConnectionId>, to: &ConnectionId, addresses: &[IpAddr]) {
    for address in addresses {
        if let Some(holder) = told.get(address).filter(|holder| *holder != to) {
            let same = client(holder).is_some() && client(holder) == client(to);
            assert!(same, "{address} is told to {to}, but {holder} has it");
        }
    }
    told.retain(|_, holder| holder != to);
    told.extend(addresses.iter().map(|address| (*address, to.clone())));
}

/// Every step is one of a request, a release, an overdue sweep, a change of
/// prefixes or a crash; one write in eight is lost.
#[test]
fn no_address_has_two_holders_whatever_is_lost() {
    let steps = std::env::var("CARRICK_IPAM_STEPS").map_or(20_000, |steps| steps.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(5);
    let choices = [
        grants(&["10.0.0.0/28"]),
        grants(&["10.0.0.0/28", "10.0.1.0/29"]),
        grants(&["10.0.1.0/29", "2001:db8::/124"]),
    ];
    let (mut disk, mut now) = (Disk::default(), SystemTime::UNIX_EPOCH);
    let mut book = disk.open(now);
    let mut prefixes = Arc::clone(&choices[0]);
    // Whom an answer told what, until it closed or somebody took it over.
    let mut told: BTreeMap<IpAddr, ConnectionId> = BTreeMap::new();
    for step in 0..steps {
        now += Duration::from_secs(random.u64(..3));
        let connection = ConnectionId::new(format!("c{}", random.u8(..16))).unwrap();
        let written = random.u8(..8) != 0;
        match random.u8(..40) {
            0 => book = disk.open(now),
            1 => prefixes = Arc::clone(&choices[random.usize(..choices.len())]),
            2..4 => {
                let overdue = book.overdue(false, now);
                told.retain(|address, _| !overdue.contains(&host(*address)));
                disk.remove(&overdue);
                book.released(&overdue, None, now);
            }
            4..14 => {
                let release = book.release(&connection);
                if written || release.is_empty() {
                    disk.leases.extend(release.give_back.iter().cloned());
                    book.given_back(&release.give_back);
                    let former = book.former(&release.remove, now);
                    disk.remove(&release.remove);
                    disk.history
                        .extend(former.clone().map(|former| (former.client.clone(), former)));
                    book.released(&release.remove, former, now);
                    assert!(book.release(&connection).is_empty());
                    told.retain(|_, holder| *holder != connection);
                }
            }
            _ => {
                let claimed = [IpAddr::from([10, 0, random.u8(..2), random.u8(..20)])];
                let excluded = [Prefix::of([10, 0, 0, random.u8(..16)].into(), 30).unwrap()];
                let extra = [ExtraPrefixRequest {
                    family: IpFamily::V4,
                    prefix_length: 31,
                    required: 0,
                    requested: random.u32(..3),
                }];
                let ask = Ask {
                    connection: &connection,
                    client: client(&connection),
                    claimed: &claimed,
                    excluded: if random.u8(..4) == 0 { &excluded } else { &[] },
                    extra: if random.u8(..4) == 0 { &extra } else { &[] },
                };
                book.set_grants(&prefixes, now);
                if let Ok(plan) = book.request(&ask, now)
                    && (written || plan.is_written())
                {
                    disk.write(&plan);
                    book.written(&plan, now);
                    tell(&mut told, &connection, &plan.addresses);
                    let on_disk = |address: &IpAddr| &disk.leases[&host(*address)].connection;
                    assert!(
                        plan.addresses
                            .iter()
                            .all(|address| *on_disk(address) == connection)
                    );
                }
            }
        }
        let held: Vec<Prefix> = book.leases().map(|(prefix, _)| prefix).collect();
        assert_eq!(carrick_types::overlaps(&held), None, "step {step}");
        assert!(
            disk.leases.keys().all(|prefix| held.contains(prefix)),
            "step {step}: forgotten"
        );
    }
}
