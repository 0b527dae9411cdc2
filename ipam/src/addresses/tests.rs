use carrick_chain::testing::{self, Fault, TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions, Selector};
use carrick_store::Store;
use carrick_types::{ExtraPrefixRequest, IpContext, IpNet, Route, State};
use futures::StreamExt;
use tokio::sync::watch;

use super::*;
use crate::{LeaseOptions, Prefixes};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn grants(prefixes: &[&str]) -> Arc<[Grant]> {
    prefixes
        .iter()
        .map(|text| Grant::from(prefix(text)))
        .collect()
}

/// An endpoint whose prefixes the test changes.
struct World {
    endpoint: Endpoint,
    addresses: Addresses,
    leases: Leases,
    prefixes: watch::Sender<Arc<[Grant]>>,
}

fn world_with(prefixes: &[&str], options: AddressOptions, fault: Option<(usize, Fault)>) -> World {
    let store = Store::in_memory().unwrap();
    let leases = Leases::open(&store, LeaseOptions::default()).unwrap();
    let (sender, receiver) = watch::channel(grants(prefixes));
    let addresses = Addresses::new(leases.clone(), Prefixes::watched(receiver), options);
    let mut chain = Chain::default().then(addresses.clone());
    if let Some((position, fault)) = fault {
        chain = chain.with_fault(position, fault);
    }
    World {
        endpoint: Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain),
        addresses,
        leases,
        prefixes: sender,
    }
}

fn world(prefixes: &[&str]) -> World {
    world_with(prefixes, AddressOptions::default(), None)
}

impl World {
    async fn request(&self, connection: Connection) -> Connection {
        self.endpoint.request(connection, soon()).await.unwrap()
    }
}

fn routes(routes: &[Route]) -> Vec<String> {
    routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect()
}

fn nets(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_client_gets_an_address_and_the_routes_of_a_vl3() {
    let world = world(&["10.0.0.0/24"]);
    let first = world.request(request("nsc", "1")).await;
    let ip = &first.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.0.1/32"]);
    assert_eq!(nets(&ip.dst_addrs), ["10.0.0.0/32"]);
    assert_eq!(
        routes(&ip.src_routes),
        ["10.0.0.0/32", "10.0.0.0/24", "10.0.0.0/16"]
    );
    assert!(
        ip.src_routes
            .iter()
            .all(|route| route.next_hop == Some([10, 0, 0, 0].into()))
    );
    assert_eq!(ip.dst_routes, [Route::direct(prefix("10.0.0.1/32"))]);
    let mut last = first.clone();
    for _ in 0..10 {
        last = world.request(last).await;
        assert_eq!(last.context, first.context);
    }
}

#[tokio::test]
async fn after_a_change_of_prefix_a_refresh_says_only_the_new_one() {
    let world = world(&["12.0.0.0/24"]);
    let mut last = world.request(request("nsc", "1")).await;
    assert!(!world.addresses.is_stale(&last));
    world.prefixes.send_replace(grants(&["11.0.0.0/24"]));
    assert!(world.addresses.is_stale(&last));
    for _ in 0..10 {
        last = world.request(last).await;
        let ip = &last.context.ip;
        assert_eq!(nets(&ip.src_addrs), ["11.0.0.1/32"]);
        assert_eq!(nets(&ip.dst_addrs), ["11.0.0.0/32"]);
        assert_eq!(
            routes(&ip.src_routes),
            ["11.0.0.0/32", "11.0.0.0/24", "11.0.0.0/16"]
        );
        assert_eq!(routes(&ip.dst_routes), ["11.0.0.1/32"]);
    }
    assert!(!world.addresses.is_stale(&last));
}

#[tokio::test]
async fn after_close_the_next_clients_get_the_lowest_addresses_again() {
    let world = world(&["10.0.0.0/24"]);
    for round in 0..10 {
        for (name, address) in [("a", "10.0.0.1/32"), ("b", "10.0.0.2/32")] {
            let client = request(&format!("{name}{round}"), &format!("{name}{round}"));
            let answer = world.request(client).await;
            assert_eq!(nets(&answer.context.ip.src_addrs), [address]);
        }
        for name in ["a", "b"] {
            let client = request(&format!("{name}{round}"), &format!("{name}{round}"));
            let held = world.endpoint.connections();
            let own = held
                .iter()
                .find(|held| held.client_name() == client.client_name())
                .unwrap();
            world.endpoint.close_id(&own.id).await.unwrap();
        }
        assert!(world.leases.all().is_empty());
    }
}

#[tokio::test]
async fn dual_stack_routes_stand_in_the_order_of_nsm() {
    let world = world(&["10.0.0.0/24", "2001:db8::/112"]);
    let first = world.request(request("nsc", "1")).await;
    let ip = &first.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.0.1/32", "2001:db8::1/128"]);
    assert_eq!(nets(&ip.dst_addrs), ["10.0.0.0/32", "2001:db8::/128"]);
    let expected = [
        "10.0.0.0/32",
        "10.0.0.0/24",
        "2001:db8::/128",
        "2001:db8::/112",
        "2001:db8::/64",
        "10.0.0.0/16",
    ];
    assert_eq!(routes(&ip.src_routes), expected);
    assert_eq!(world.request(first.clone()).await.context, first.context);
}

fn peers() -> AddressOptions {
    AddressOptions {
        is_peer: Arc::new(|connection| connection.client_name() == Some("peer")),
        ..AddressOptions::default()
    }
}

fn peer_request(address: &str, own: &str) -> Connection {
    let mut request = request("peer", "1");
    let hop = address.parse::<IpNet>().unwrap().addr();
    request.context.ip.add_src_addr(address.parse().unwrap());
    request
        .context
        .ip
        .add_dst_route(Route::via(prefix(address), hop));
    request
        .context
        .ip
        .add_dst_route(Route::via(prefix(own), hop));
    request
}

#[tokio::test]
async fn a_peer_keeps_its_address_and_gets_none() {
    let world = world_with(&["10.0.0.0/24"], peers(), None);
    let first = world
        .request(peer_request("10.0.1.0/32", "10.0.1.0/24"))
        .await;
    let ip = &first.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.1.0/32"]);
    assert_eq!(nets(&ip.dst_addrs), ["10.0.0.0/32"]);
    assert_eq!(routes(&ip.dst_routes), ["10.0.1.0/32", "10.0.1.0/24"]);
    assert_eq!(
        routes(&ip.src_routes),
        ["10.0.0.0/32", "10.0.0.0/24", "10.0.0.0/16"]
    );
    assert_eq!(world.request(first.clone()).await.context, first.context);
    assert!(world.leases.all().is_empty());
    world.prefixes.send_replace(grants(&["10.0.5.0/24"]));
    assert!(world.addresses.is_stale(&first));
    let ip = world.request(first).await.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.1.0/32"]);
    assert_eq!(nets(&ip.dst_addrs), ["10.0.5.0/32"]);
    assert_eq!(
        routes(&ip.src_routes),
        ["10.0.5.0/32", "10.0.5.0/24", "10.0.0.0/16"]
    );
}

#[tokio::test]
async fn a_peer_cannot_have_an_address_of_our_clients() {
    let world = world_with(&["10.0.0.0/24"], peers(), None);
    world.request(request("nsc", "2")).await;
    let answer = world
        .request(peer_request("10.0.0.1/32", "10.0.1.0/24"))
        .await;
    assert!(answer.context.ip.src_addrs.is_empty());
}

#[tokio::test]
async fn what_another_endpoint_has_said_is_taken_out() {
    let world = world(&["10.0.0.0/24"]);
    let mut healed = request("nsc", "1");
    let other = [10, 0, 7, 0].into();
    healed.context.ip = IpContext {
        src_addrs: vec!["10.0.7.3/32".parse().unwrap()],
        dst_addrs: vec!["10.0.7.0/32".parse().unwrap()],
        src_routes: vec![
            Route::via(prefix("10.0.7.0/32"), other),
            Route::via(prefix("10.0.7.0/24"), other),
            Route::via(prefix("10.0.0.0/16"), other),
            Route::direct(prefix("192.0.2.0/24")),
        ],
        dst_routes: vec![Route::direct(prefix("10.0.7.3/32"))],
        ..IpContext::default()
    };
    let ip = world.request(healed).await.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.0.1/32"]);
    assert_eq!(nets(&ip.dst_addrs), ["10.0.0.0/32"]);
    assert_eq!(
        routes(&ip.src_routes),
        ["192.0.2.0/24", "10.0.0.0/32", "10.0.0.0/24", "10.0.0.0/16"]
    );
    assert_eq!(routes(&ip.dst_routes), ["10.0.0.1/32"]);
}

#[tokio::test]
async fn configured_routes_and_networks_and_extra_prefixes_are_in_the_answer() {
    let options = AddressOptions {
        networks: vec![prefix("10.0.0.0/12")],
        routes: vec![prefix("192.0.2.0/24"), prefix("2001:db8::/32")],
        ..AddressOptions::default()
    };
    let world = world_with(&["10.0.0.0/24"], options, None);
    let mut wants = request("nsc", "1");
    wants.context.ip.excluded_prefixes = vec![prefix("10.0.0.0/28")];
    wants.context.ip.extra_prefix_request = vec![ExtraPrefixRequest {
        family: IpFamily::V4,
        prefix_length: 28,
        required: 1,
        requested: 1,
    }];
    let answer = world.request(wants).await;
    let ip = &answer.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["10.0.0.16/32"]);
    assert_eq!(ip.extra_prefixes, [prefix("10.0.0.32/28")]);
    assert_eq!(
        routes(&ip.src_routes),
        ["10.0.0.0/32", "10.0.0.0/24", "10.0.0.0/12", "192.0.2.0/24"]
    );
    assert_eq!(routes(&ip.dst_routes), ["10.0.0.16/32", "10.0.0.32/28"]);
    assert_eq!(world.request(answer.clone()).await.context, answer.context);
    world.endpoint.close(answer).await.unwrap();
    assert!(world.leases.all().is_empty());
}

#[tokio::test]
async fn without_a_prefix_the_client_is_told_to_try_again() {
    let world = world(&[]);
    let error = world
        .endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(error.source.to_string(), "prefix pool is initializing");
    world.prefixes.send_replace(grants(&["10.0.0.0/24"]));
    world.request(request("nsc", "1")).await;
}

#[tokio::test]
async fn a_full_pool_without_a_further_prefix_says_so() {
    let world = world(&["10.0.0.0/31"]);
    world.request(request("a", "1")).await;
    let error = world
        .endpoint
        .request(request("b", "2"), soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted);
    assert_eq!(world.leases.metrics().exhausted.get(), 1);
}

#[tokio::test]
async fn a_further_prefix_shows_in_every_answer() {
    let world = world(&["10.0.0.0/31"]);
    let first = world.request(request("a", "1")).await;
    world
        .prefixes
        .send_replace(grants(&["10.0.0.0/31", "10.0.0.2/31"]));
    assert!(!world.addresses.is_stale(&first), "nothing of it is wrong");
    let second = world.request(request("b", "2")).await;
    assert_eq!(nets(&second.context.ip.src_addrs), ["10.0.0.3/32"]);
    assert_eq!(nets(&second.context.ip.dst_addrs), ["10.0.0.0/32"]);
    let expected = ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.2/31", "10.0.0.0/16"];
    assert_eq!(routes(&second.context.ip.src_routes), expected);
    let refreshed = world.request(first).await;
    assert_eq!(nets(&refreshed.context.ip.src_addrs), ["10.0.0.1/32"]);
    let mut shown = routes(&refreshed.context.ip.src_routes);
    shown.sort();
    assert_eq!(shown, {
        let mut expected = expected.map(str::to_owned);
        expected.sort();
        expected
    });
}

#[tokio::test]
async fn a_failed_first_request_leaves_nothing_and_a_failed_refresh_everything() {
    for (position, lost) in [(1, false), (0, true)] {
        let make = if lost {
            Fault::answer_lost
        } else {
            Fault::request
        };
        let fault = |at| Some((position, make(Kind::Unavailable).at(at)));
        let world = world_with(&["10.0.0.0/24"], AddressOptions::default(), fault(1));
        world
            .endpoint
            .request(request("nsc", "1"), soon())
            .await
            .unwrap_err();
        assert!(world.leases.all().is_empty());
        let world = world_with(&["10.0.0.0/24"], AddressOptions::default(), fault(2));
        let answer = world.request(request("nsc", "1")).await;
        world.endpoint.request(answer, soon()).await.unwrap_err();
        assert_eq!(world.leases.all().len(), 1);
    }
}

#[tokio::test]
async fn all_may_be_done_twice() {
    let build = async || {
        let world = world(&["10.0.0.0/24"]);
        (Chain::default().then(world.addresses), world.leases)
    };
    let look = async |leases: &Leases| leases.all().len();
    testing::may_be_done_twice(&request("nsc", "1"), build, look).await;
}

#[tokio::test]
async fn a_change_of_prefix_asks_the_affected_clients_for_a_refresh() {
    let world = world(&["12.0.0.0/24"]);
    let last = world.request(request("nsc", "1")).await;
    let mut events = world.endpoint.monitor(Selector::default());
    events.next().await.unwrap();
    let asked = async {
        world
            .prefixes
            .send_replace(grants(&["12.0.0.0/24", "12.0.1.0/24"]));
        tokio::task::yield_now().await;
        world.prefixes.send_replace(grants(&["11.0.0.0/24"]));
        events.next().await.unwrap()
    };
    let event = tokio::select! {
        biased;
        () = world.addresses.follow(&world.endpoint) => unreachable!("the prefixes may change"),
        event = asked => event,
    };
    assert_eq!(event.connections[0].state, State::RefreshRequested);
    let ip = world.request(last).await.context.ip;
    assert_eq!(nets(&ip.src_addrs), ["11.0.0.1/32"]);
}
