use std::time::Duration;

use carrick_chain::testing::{TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions};
use carrick_grpc::{Security, Url, dial};
use carrick_store::Store;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{Network, Server, ServerOptions};
use crate::testing::{HandClock, Served, serve, served};
use crate::{AddressOptions, Addresses, EndpointMetrics, LeaseOptions, Leases};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn network(text: &str, length: u8) -> ServerOptions {
    ServerOptions::new(vec![Network::new(prefix(text), length).unwrap()])
}

async fn start(options: ServerOptions) -> Served {
    served(&Store::in_memory().unwrap(), options).await
}

fn options(owner: &str, servers: &[&Served]) -> PrefixOptions {
    let servers = servers
        .iter()
        .enumerate()
        .map(|(index, served)| PrefixServer {
            name: format!("server-{index}"),
            channel: served.channel.clone(),
            family: None,
        });
    PrefixOptions {
        back_off: Duration::from_millis(5),
        ..PrefixOptions::new(owner, servers.collect())
    }
}

fn lease(options: PrefixOptions, store: &Store) -> (Prefixes, PrefixClient) {
    Prefixes::lease(options, store).unwrap()
}

fn shown(prefixes: &Prefixes) -> Vec<String> {
    prefixes.current().iter().map(ToString::to_string).collect()
}

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_prefix_is_leased_and_freed_at_an_orderly_end() {
    let served = start(network("10.0.0.0/16", 24)).await;
    let store = Store::in_memory().unwrap();
    for _ in 0..3 {
        let (prefixes, client) = lease(options("nse", &[&served]), &store);
        assert!(
            shown(&prefixes).is_empty(),
            "nothing is guessed, and none is kept after a release"
        );
        assert!(prefixes.wait_ready().await);
        assert_eq!(shown(&prefixes), ["10.0.0.0/24"]);
        assert!(client.status()[0].connected);
        assert!(client.shutdown(true, GRACE).await);
        assert!(served.server.status().is_empty());
    }
}

#[tokio::test]
async fn a_restarted_endpoint_uses_its_prefix_at_once_while_the_lease_surely_holds() {
    let served = start(network("10.0.0.0/16", 24)).await;
    let store = Store::in_memory().unwrap();
    let clock = HandClock::default();
    let options = || PrefixOptions {
        clock: clock.clock(),
        ..options("nse", &[&served])
    };
    let (prefixes, client) = lease(options(), &store);
    assert!(prefixes.wait_ready().await);
    assert!(client.shutdown(false, GRACE).await);
    let (other, _client) = lease(
        self::options("other", &[&served]),
        &Store::in_memory().unwrap(),
    );
    assert!(other.wait_ready().await);
    assert_eq!(shown(&other), ["10.0.1.0/24"]);

    let (prefixes, client) = lease(options(), &store);
    assert_eq!(
        shown(&prefixes),
        ["10.0.0.0/24"],
        "before the server answered"
    );
    drop(client);
    clock.advance(Duration::from_secs(600));
    let (prefixes, _client) = lease(options(), &store);
    assert!(
        shown(&prefixes).is_empty(),
        "somebody else may have it by now"
    );
    assert!(prefixes.wait_ready().await);
    assert_eq!(shown(&prefixes), ["10.0.0.0/24"]);
}

#[tokio::test]
async fn a_server_that_is_away_takes_nothing_from_the_endpoint_and_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::Unix(directory.path().join("ipam.socket"));
    let store = Store::in_memory().unwrap();
    let first = network("10.0.0.0/16", 24);
    let stop = first.shutdown.clone();
    let (server, task) = serve(&store, &url, first).await;
    let channel = dial(&url, &Security::insecure(), GRACE).await.unwrap();
    let metrics = EndpointMetrics::default();
    let prefix_server = PrefixServer {
        name: url.to_string(),
        channel,
        family: None,
    };
    let options = PrefixOptions {
        back_off: Duration::from_millis(5),
        back_off_max: Duration::from_millis(20),
        metrics: metrics.clone(),
        ..PrefixOptions::new("nse", vec![prefix_server])
    };
    let (prefixes, client) = lease(options, &Store::in_memory().unwrap());
    assert!(prefixes.wait_ready().await);
    stop.cancel();
    task.await.unwrap();
    drop(server);
    while metrics.stream_failures.get() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&prefixes), ["10.0.0.0/24"]);
    assert!(!client.status()[0].connected && client.status()[0].last_error.is_some());

    let (server, _task) = serve(&store, &url, network("10.0.0.0/16", 24)).await;
    while !client.status()[0].connected || !server.status()[0].connected {
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&prefixes), ["10.0.0.0/24"]);
    assert_eq!(server.status().len(), 1);
}

#[tokio::test]
async fn a_lease_is_renewed_well_before_its_end() {
    let lease_time = Duration::from_millis(60);
    let served = start(ServerOptions {
        lease: lease_time,
        ..network("10.0.0.0/16", 24)
    })
    .await;
    let metrics = EndpointMetrics::default();
    let options = PrefixOptions {
        metrics: metrics.clone(),
        ..options("nse", &[&served])
    };
    let (prefixes, _client) = lease(options, &Store::in_memory().unwrap());
    assert!(prefixes.wait_ready().await);
    let first = served.server.status()[0].record.expires;
    while metrics.renewals.get() < 5 {
        tokio::task::yield_now().await;
    }
    let now = served.server.status();
    assert_eq!(now.len(), 1);
    assert!(now[0].record.expires > first);
    assert_eq!(shown(&prefixes), ["10.0.0.0/24"]);
}

#[tokio::test]
async fn with_two_servers_nothing_is_published_before_both_have_granted() {
    let v4 = start(network("10.0.0.0/16", 24)).await;
    let v6 = start(network("2001:db8::/64", 112)).await;
    let (prefixes, _client) = lease(options("nse", &[&v4, &v6]), &Store::in_memory().unwrap());
    let mut changes = prefixes.changed();
    assert!(prefixes.wait_ready().await);
    assert_eq!(shown(&prefixes), ["10.0.0.0/24", "2001:db8::/112"]);
    assert_eq!(changes.borrow_and_update().len(), 2);
}

#[tokio::test]
async fn one_server_of_both_families_gives_each() {
    let networks = ["10.0.0.0/16", "2001:db8::/64"].map(prefix);
    let networks = [
        Network::new(networks[0], 24).unwrap(),
        Network::new(networks[1], 112).unwrap(),
    ];
    let served = start(ServerOptions::new(networks.to_vec())).await;
    let mut options = options("nse", &[&served, &served]);
    options.servers[0].family = Some(IpFamily::V4);
    options.servers[1].family = Some(IpFamily::V6);
    let (prefixes, _client) = lease(options, &Store::in_memory().unwrap());
    assert!(prefixes.wait_ready().await);
    assert_eq!(shown(&prefixes), ["10.0.0.0/24", "2001:db8::/112"]);
}

#[tokio::test]
async fn servers_whose_networks_overlap_are_not_both_believed() {
    let one = start(network("10.0.0.0/16", 24)).await;
    let two = start(network("10.0.0.0/16", 20)).await;
    let (prefixes, client) = lease(options("nse", &[&one, &two]), &Store::in_memory().unwrap());
    let complains = |status: &LinkStatus| {
        status
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("not valid"))
    };
    while !client.status().iter().any(complains) {
        tokio::task::yield_now().await;
    }
    // The second may be asked again by now, and grant what does not overlap.
    let current = prefixes.current();
    assert_eq!(carrick_types::overlaps(&current), None, "{current:?}");
}

async fn endpoint(served: &Served, most: usize) -> (Endpoint, Prefixes, PrefixClient) {
    let store = Store::in_memory().unwrap();
    let options = PrefixOptions {
        most,
        ..options("nse", &[served])
    };
    let (prefixes, client) = lease(options, &store);
    assert!(prefixes.wait_ready().await);
    let leases = Leases::open(&store, LeaseOptions::default()).unwrap();
    let addresses = Addresses::new(leases, prefixes.clone(), AddressOptions::default());
    let chain = Chain::default().then(addresses);
    let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
    (endpoint, prefixes, client)
}

#[tokio::test]
async fn the_256th_client_gets_an_address_of_a_further_prefix() {
    let served = start(network("10.0.0.0/16", 24)).await;
    let (endpoint, prefixes, _client) = endpoint(&served, 16).await;
    let mut last = None;
    for i in 1..=256 {
        let name = format!("nsc-{i}");
        last = Some(
            endpoint
                .request(request(&name, &name), soon())
                .await
                .unwrap(),
        );
    }
    let ip = last.unwrap().context.ip;
    assert_eq!(ip.src_addrs[0].to_string(), "10.0.1.1/32");
    assert_eq!(ip.dst_addrs[0].to_string(), "10.0.0.0/32");
    let routes: Vec<_> = ip
        .src_routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    assert_eq!(
        routes,
        ["10.0.0.0/32", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16"]
    );
    assert_eq!(shown(&prefixes), ["10.0.0.0/24", "10.0.1.0/24"]);
}

#[tokio::test]
async fn many_who_find_the_pool_full_at_once_ask_for_one_further_prefix() {
    let served = start(network("10.0.0.0/16", 28)).await;
    let (endpoint, prefixes, _client) = endpoint(&served, 16).await;
    let requests = (0..25).map(|i| {
        let endpoint = endpoint.clone();
        let name = format!("nsc-{i}");
        async move {
            endpoint
                .request(request(&name, &name), soon())
                .await
                .unwrap()
        }
    });
    let answers = futures::future::join_all(requests).await;
    let addresses: std::collections::BTreeSet<_> = answers
        .iter()
        .map(|answer| answer.context.ip.src_addrs[0])
        .collect();
    assert_eq!(addresses.len(), 25);
    assert_eq!(shown(&prefixes).len(), 2);
}

#[tokio::test]
async fn an_exhausted_server_fails_the_new_client_and_nobody_else() {
    let served = start(network("10.0.0.0/28", 28)).await;
    let (endpoint, prefixes, _client) = endpoint(&served, 16).await;
    for i in 1..=15 {
        let name = format!("nsc-{i}");
        endpoint
            .request(request(&name, &name), soon())
            .await
            .unwrap();
    }
    for _ in 0..2 {
        let error = endpoint
            .request(request("late", "late"), soon())
            .await
            .unwrap_err();
        assert_eq!(error.kind, carrick_chain::Kind::Exhausted);
    }
    assert_eq!(shown(&prefixes), ["10.0.0.0/28"]);
    assert_eq!(endpoint.connections().len(), 15);
}

#[tokio::test]
async fn fixed_prefixes_are_checked_and_never_grow() {
    assert!(Prefixes::fixed([]).is_err());
    assert!(Prefixes::fixed(["10.0.0.0/16", "10.0.1.0/24"].map(prefix)).is_err());
    assert!(Prefixes::fixed([prefix("10.0.0.1/32")]).is_err());
    let fixed = Prefixes::fixed([prefix("10.0.0.0/24")]).unwrap();
    assert!(fixed.wait_ready().await);
    let error = fixed
        .further(IpFamily::V4, &fixed.grants())
        .await
        .unwrap_err();
    assert_eq!(error, FurtherError::NoServer(IpFamily::V4));
}

#[test]
fn options_that_cannot_work_are_refused() {
    let store = Store::in_memory().unwrap();
    for owner in ["", "a b", "ü"] {
        assert!(Prefixes::lease(PrefixOptions::new(owner, Vec::new()), &store).is_err());
    }
    assert!(Prefixes::lease(PrefixOptions::new("nse", Vec::new()), &store).is_err());
}

/// Kill in any order: the store files stay, everything in memory goes.
#[tokio::test]
async fn addresses_outlive_kills_of_endpoint_and_server_in_any_order() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::Unix(directory.path().join("ipam.socket"));
    let (server_store, store) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    for round in 0..4 {
        let stop = CancellationToken::new();
        let server_options = ServerOptions {
            shutdown: stop.clone(),
            ..network("10.0.0.0/16", 24)
        };
        let (server, task): (Server, _) = serve(&server_store, &url, server_options).await;
        let channel = dial(&url, &Security::insecure(), GRACE).await.unwrap();
        let prefix_server = PrefixServer {
            name: "ipam".into(),
            channel,
            family: None,
        };
        let mut options = PrefixOptions::new("nse", vec![prefix_server]);
        options.back_off = Duration::from_millis(5);
        let (prefixes, client) = lease(options, &store);
        assert!(prefixes.wait_ready().await);
        let leases = Leases::open(&store, LeaseOptions::default()).unwrap();
        let addresses = Addresses::new(leases, prefixes, AddressOptions::default());
        let chain = Chain::default().then(addresses);
        let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
        let mut order = [1, 2, 3, 4];
        order.rotate_left(round);
        for i in order {
            let name = format!("nsc-{i}");
            let answer = endpoint
                .request(request(&name, &name), soon())
                .await
                .unwrap();
            let address = answer.context.ip.src_addrs[0].to_string();
            assert_eq!(address, format!("10.0.0.{i}/32"), "round {round}");
        }
        // Neither says good-bye to its clients or to its store.
        endpoint.stop(GRACE).await;
        if round % 2 == 0 {
            drop(client);
            stop.cancel();
        } else {
            stop.cancel();
            drop(client);
        }
        drop(server);
        task.await.unwrap();
    }
}
