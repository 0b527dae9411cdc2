use std::collections::HashMap;

use carrick_types::{ExtraPrefixRequest, IpFamily, ServiceName};

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn grants(prefixes: &[&str]) -> Arc<[Grant]> {
    prefixes
        .iter()
        .map(|text| Grant::from(prefix(text)))
        .collect()
}

fn id(text: &str) -> ConnectionId {
    ConnectionId::new(text).unwrap()
}

fn client(name: &str, id: &str) -> ClientId {
    ClientId {
        service: ServiceName::new("vl3").unwrap(),
        name: name.into(),
        id: id.into(),
    }
}

fn ask(connection: &ConnectionId) -> Ask<'_> {
    Ask {
        connection,
        client: None,
        claimed: &[],
        excluded: &[],
        extra: &[],
    }
}

fn leases(store: &Store) -> Leases {
    Leases::open(store, LeaseOptions::default()).unwrap()
}

async fn address(leases: &Leases, ask: &Ask<'_>, grants: &Arc<[Grant]>) -> String {
    leases.lease(ask, grants).await.unwrap().addresses[0].to_string()
}

#[tokio::test]
async fn a_connection_keeps_its_address_over_refresh_and_restart() {
    let store = Store::in_memory().unwrap();
    let grants = grants(&["10.0.0.0/24"]);
    let ids = ["a", "b", "c"].map(id);
    {
        let leases = leases(&store);
        for (i, id) in ids.iter().enumerate() {
            for _ in 0..3 {
                assert_eq!(
                    address(&leases, &ask(id), &grants).await,
                    format!("10.0.0.{}", i + 1)
                );
            }
        }
    }
    let leases = leases(&store);
    let new = id("new");
    assert_eq!(
        address(&leases, &ask(&new), &grants).await,
        "10.0.0.4",
        "before any came back"
    );
    for i in [2, 0, 1] {
        assert_eq!(
            address(&leases, &ask(&ids[i]), &grants).await,
            format!("10.0.0.{}", i + 1)
        );
    }
    assert!(leases.absent().is_empty());
}

#[tokio::test]
async fn a_refresh_writes_nothing() {
    let store = Store::in_memory().unwrap();
    let (leases, grants, id) = (leases(&store), grants(&["10.0.0.0/24"]), id("a"));
    address(&leases, &ask(&id), &grants).await;
    let commits = store.commits();
    for _ in 0..100 {
        address(&leases, &ask(&id), &grants).await;
    }
    assert_eq!(store.commits(), commits);
    assert_eq!(leases.metrics().leases.get(), 1);
}

#[tokio::test]
async fn a_client_that_heals_with_a_new_id_takes_its_address_along() {
    let store = Store::in_memory().unwrap();
    let (leases, grants) = (leases(&store), grants(&["10.0.0.0/24"]));
    let (old, new, other) = (id("old"), id("new"), id("other"));
    let of = |connection, name, id| Ask {
        client: Some(client(name, id)),
        ..ask(connection)
    };
    assert_eq!(
        address(&leases, &of(&old, "nsc", "nsc-0"), &grants).await,
        "10.0.0.1"
    );
    assert_eq!(
        address(&leases, &of(&other, "nsc", "nsc-1"), &grants).await,
        "10.0.0.2"
    );
    assert_eq!(
        address(&leases, &of(&new, "nsc", "nsc-0"), &grants).await,
        "10.0.0.1"
    );
    leases.release(&old).await.unwrap();
    assert_eq!(
        leases.all()[0].1.connection,
        new,
        "the old Close does not free it"
    );
    let third = id("third");
    assert_eq!(address(&leases, &ask(&third), &grants).await, "10.0.0.3");
}

#[tokio::test]
async fn a_heal_that_comes_to_nothing_leaves_the_address_where_it_was() {
    let store = Store::in_memory().unwrap();
    let (leases, grants) = (leases(&store), grants(&["10.0.0.0/24"]));
    let (old, new, other) = (id("old"), id("new"), id("other"));
    let of = |connection| Ask {
        client: Some(client("nsc", "nsc-0")),
        ..ask(connection)
    };
    for _ in 0..2 {
        assert_eq!(address(&leases, &of(&old), &grants).await, "10.0.0.1");
        assert_eq!(address(&leases, &of(&new), &grants).await, "10.0.0.1");
        leases.release(&new).await.unwrap();
        assert_eq!(leases.all()[0].1.connection, old);
    }
    assert_eq!(address(&leases, &ask(&other), &grants).await, "10.0.0.2");
    leases.release(&old).await.unwrap();
    assert_eq!(leases.all().len(), 1);
}

#[tokio::test]
async fn a_client_that_closed_gets_its_address_again_unless_it_is_taken() {
    let store = Store::in_memory().unwrap();
    let grants = grants(&["10.0.0.0/24"]);
    let of = |connection, name| Ask {
        client: Some(client(name, "0")),
        ..ask(connection)
    };
    let [a, b, a2, b2, c] = ["a", "b", "a2", "b2", "c"].map(id);
    let first = leases(&store);
    assert_eq!(address(&first, &of(&a, "a"), &grants).await, "10.0.0.1");
    assert_eq!(address(&first, &of(&b, "b"), &grants).await, "10.0.0.2");
    first.release(&a).await.unwrap();
    first.release(&b).await.unwrap();
    first.release(&b).await.unwrap();
    let second = leases(&store);
    assert_eq!(
        address(&second, &of(&b2, "b"), &grants).await,
        "10.0.0.2",
        "after a restart too"
    );
    assert_eq!(address(&second, &of(&c, "c"), &grants).await, "10.0.0.1");
    assert_eq!(address(&second, &of(&a2, "a"), &grants).await, "10.0.0.3");
}

#[tokio::test]
async fn a_claimed_address_is_given_only_if_it_is_free() {
    let store = Store::in_memory().unwrap();
    let (leases, grants) = (leases(&store), grants(&["10.0.0.0/24"]));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(id);
    let seven = ["10.0.0.7".parse().unwrap()];
    let own = ["10.0.0.0".parse().unwrap()];
    let foreign = ["192.0.2.1".parse().unwrap()];
    let claims = |connection, claimed| Ask {
        claimed,
        ..ask(connection)
    };
    assert_eq!(
        address(&leases, &claims(&a, &seven), &grants).await,
        "10.0.0.7"
    );
    assert_eq!(
        address(&leases, &claims(&b, &seven), &grants).await,
        "10.0.0.1"
    );
    assert_eq!(
        address(&leases, &claims(&c, &own), &grants).await,
        "10.0.0.2"
    );
    assert_eq!(
        address(&leases, &claims(&d, &foreign), &grants).await,
        "10.0.0.3"
    );
}

#[tokio::test]
async fn an_excluded_address_is_never_given_and_replaced_once_it_becomes_excluded() {
    let store = Store::in_memory().unwrap();
    let (leases, grants, a) = (leases(&store), grants(&["10.0.0.0/30"]), id("a"));
    let excluding = |excluded| Ask {
        excluded,
        ..ask(&a)
    };
    assert_eq!(address(&leases, &excluding(&[]), &grants).await, "10.0.0.1");
    let first = [prefix("10.0.0.0/31")];
    assert_eq!(
        address(&leases, &excluding(&first), &grants).await,
        "10.0.0.2"
    );
    assert_eq!(leases.all().len(), 1, "the former one is given back");
    let all = [prefix("10.0.0.0/8")];
    let error = leases.lease(&excluding(&all), &grants).await.unwrap_err();
    assert!(
        matches!(error, Error::Lease(LeaseError::Excluded { .. })),
        "{error}"
    );
    assert_eq!(
        address(&leases, &excluding(&first), &grants).await,
        "10.0.0.2",
        "it kept it"
    );
}

#[tokio::test]
async fn without_a_prefix_there_is_the_error_that_nsm_knows() {
    let store = Store::in_memory().unwrap();
    let error = leases(&store)
        .lease(&ask(&id("a")), &grants(&[]))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "prefix pool is initializing");
}

#[tokio::test]
async fn a_connection_of_another_prefix_is_renumbered_and_gives_the_old_address_back() {
    let store = Store::in_memory().unwrap();
    let (leases, a) = (leases(&store), id("a"));
    assert_eq!(
        address(&leases, &ask(&a), &grants(&["12.0.0.0/24"])).await,
        "12.0.0.1"
    );
    assert_eq!(
        address(&leases, &ask(&a), &grants(&["11.0.0.0/24"])).await,
        "11.0.0.1"
    );
    assert_eq!(leases.all().len(), 1);
}

#[tokio::test]
async fn dual_stack_gives_both_or_none() {
    let store = Store::in_memory().unwrap();
    let (leases, grants) = (leases(&store), grants(&["10.0.0.0/24", "2001:db8::/127"]));
    let (a, b) = (id("a"), id("b"));
    let answer = leases.lease(&ask(&a), &grants).await.unwrap();
    assert_eq!(
        answer
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.0.0.1", "2001:db8::1"]
    );
    let error = leases.lease(&ask(&b), &grants).await.unwrap_err();
    assert!(matches!(
        error,
        Error::Lease(LeaseError::Full {
            family: IpFamily::V6,
            ..
        })
    ));
    assert_eq!(leases.all().len(), 2);
    leases.release(&a).await.unwrap();
    assert_eq!(leases.lease(&ask(&b), &grants).await.unwrap(), answer);
}

#[tokio::test]
async fn extra_prefixes_come_out_of_the_own_prefix_and_go_back_with_close() {
    let store = Store::in_memory().unwrap();
    let (leases, grants, a) = (leases(&store), grants(&["10.0.0.0/24"]), id("a"));
    let wish = |required, requested, prefix_length| {
        [ExtraPrefixRequest {
            family: IpFamily::V4,
            prefix_length,
            required,
            requested,
        }]
    };
    let extra = wish(1, 2, 28);
    let asking = Ask {
        extra: &extra,
        ..ask(&a)
    };
    for _ in 0..2 {
        let answer = leases.lease(&asking, &grants).await.unwrap();
        assert_eq!(answer.extra, ["10.0.0.16/28", "10.0.0.32/28"].map(prefix));
    }
    let few = leases.lease(&ask(&a), &grants).await.unwrap();
    assert!(few.extra.is_empty(), "no longer asked for");
    for (bad, full) in [
        (wish(17, 17, 28), false),
        (wish(1, 1, 24), false),
        (wish(16, 16, 28), true),
    ] {
        let error = leases
            .lease(
                &Ask {
                    extra: &bad,
                    ..ask(&a)
                },
                &grants,
            )
            .await
            .unwrap_err();
        assert_eq!(
            matches!(error, Error::Lease(LeaseError::Full { .. })),
            full,
            "{error}"
        );
        assert_eq!(leases.all().len(), 1);
    }
    leases.release(&a).await.unwrap();
    assert!(leases.all().is_empty());
}

/// A clock that is moved by hand.
fn clock() -> (Clock, Arc<Mutex<SystemTime>>) {
    let time = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
    let read = Arc::clone(&time);
    (Arc::new(move || *read.lock().unwrap()), time)
}

#[tokio::test]
async fn leases_of_an_earlier_run_wait_for_their_connections_but_not_for_ever() {
    let store = Store::in_memory().unwrap();
    let grants = grants(&["10.0.0.0/31"]);
    let (a, b) = (id("a"), id("b"));
    address(&leases(&store), &ask(&a), &grants).await;
    let (clock, time) = clock();
    let leases = Leases::open(
        &store,
        LeaseOptions {
            clock,
            ..LeaseOptions::default()
        },
    )
    .unwrap();
    assert_eq!(leases.absent(), std::slice::from_ref(&a));
    assert!(leases.lease(&ask(&b), &grants).await.is_err());
    *time.lock().unwrap() += Duration::from_secs(600);
    assert_eq!(address(&leases, &ask(&b), &grants).await, "10.0.0.1");
    assert!(leases.lease(&ask(&a), &grants).await.is_err(), "too late");
}

#[tokio::test]
async fn the_history_is_bounded() {
    let store = Store::in_memory().unwrap();
    let options = LeaseOptions {
        history: 10,
        ..LeaseOptions::default()
    };
    let (leases, grants) = (
        Leases::open(&store, options).unwrap(),
        grants(&["10.0.0.0/24"]),
    );
    for i in 0..50 {
        let id = id(&format!("id-{i}"));
        let client = Some(client(&format!("nsc-{i}"), "0"));
        leases
            .lease(&Ask { client, ..ask(&id) }, &grants)
            .await
            .unwrap();
        leases.release(&id).await.unwrap();
    }
    assert_eq!(store.table::<Former>(HISTORY).all().unwrap().len(), 10);
}

#[tokio::test]
async fn two_scopes_of_one_store_do_not_see_each_other() {
    let store = Store::in_memory().unwrap();
    let grants = grants(&["10.0.0.0/24"]);
    for scope in ["one", "two"] {
        let options = LeaseOptions {
            scope: scope.into(),
            ..LeaseOptions::default()
        };
        let leases = Leases::open(&store, options).unwrap();
        assert_eq!(
            address(&leases, &ask(&id(scope)), &grants).await,
            "10.0.0.1"
        );
        assert_eq!(leases.all().len(), 1);
    }
    assert_eq!(crate::inspect::report(&store).unwrap().leases.len(), 2);
}

/// Random requests, closes, heals, lost commits, changes of prefixes and
/// restarts; after each, no two connections have one address, and what is in
/// the book is on disk.
#[tokio::test]
async fn nothing_is_leased_twice_or_lost_whatever_happens() {
    let steps = std::env::var("CARRICK_IPAM_STEPS")
        .map_or(5_000, |steps| steps.parse::<u32>().unwrap() / 100);
    let mut random = fastrand::Rng::with_seed(11);
    let store = Store::in_memory().unwrap();
    let choices = [
        grants(&["10.0.0.0/28"]),
        grants(&["10.0.0.0/28", "10.0.1.0/29"]),
        grants(&["10.0.1.0/29"]),
        grants(&["10.0.0.0/29", "2001:db8::/124"]),
    ];
    let mut now = choices[0].clone();
    let mut book = leases(&store);
    let mut told: HashMap<ConnectionId, Vec<IpAddr>> = HashMap::new();
    for step in 0..steps {
        let number = random.u8(..24);
        let connection = id(&format!("c{number}"));
        match random.u8(..20) {
            0 => now = choices[random.usize(..choices.len())].clone(),
            1 => book = leases(&store),
            2..8 => {
                book.release(&connection).await.unwrap();
                told.remove(&connection);
            }
            _ => {
                let claimed = [IpAddr::from([10, 0, 0, random.u8(..20)])];
                let excluded = [Prefix::of([10, 0, 0, random.u8(..16)].into(), 31).unwrap()];
                let ask = Ask {
                    connection: &connection,
                    client: (number < 12).then(|| client(&format!("nsc{}", number % 4), "0")),
                    claimed: &claimed,
                    excluded: if random.u8(..4) == 0 { &excluded } else { &[] },
                    extra: &[],
                };
                if let Ok(leased) = book.lease(&ask, &now).await {
                    assert!(
                        leased.addresses.iter().all(|address| {
                            now.iter().any(|grant| {
                                grant.prefix.contains(*address)
                                    && grant.prefix.network() != *address
                            })
                        }),
                        "step {step}"
                    );
                    assert!(
                        !leased.addresses.iter().any(|address| {
                            ask.excluded
                                .iter()
                                .any(|excluded| excluded.contains(*address))
                        }),
                        "step {step}"
                    );
                    // A heal takes addresses along.
                    for addresses in told.values_mut() {
                        addresses.retain(|address| !leased.addresses.contains(address));
                    }
                    told.insert(connection, leased.addresses);
                }
            }
        }
        let held = book.all();
        for (connection, addresses) in &told {
            for address in addresses {
                let of = held.iter().find(|(prefix, _)| prefix.network() == *address);
                assert!(
                    of.is_some_and(|(_, lease)| lease.connection == *connection),
                    "step {step}"
                );
            }
        }
        if step % 50 == 0 {
            let mut disk = store.table::<Lease>(LEASES).all().unwrap();
            disk.sort_by_key(|(key, _)| key[1..].parse::<Prefix>().unwrap());
            let disk: Vec<_> = disk.into_iter().map(|(_, lease)| lease).collect();
            assert_eq!(
                disk,
                held.into_iter().map(|(_, lease)| lease).collect::<Vec<_>>()
            );
        }
    }
}
