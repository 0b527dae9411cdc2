//! Requests that are wrong or hostile: refused with the right kind, counted, and
//! nothing is left of them; what may be served is served without what may not.

use carrick_chain::testing::soon;
use carrick_chain::{Endpoint, EndpointOptions, Error, Kind};
use carrick_grpc::Identity;
use carrick_types::{Connection, Labels, Mechanism, MechanismClass, MechanismType, Prefix, Route};
use carrick_vl3::recognise::PEER_LABEL;
use carrick_vl3::{Cause, Vl3};

use super::world::{Neighbor, World, announce, client, kernel, offering, vxlan};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Why a Request is refused, which leaves nothing.
async fn refused(world: &World, request: Connection) -> Error {
    // Not the one of the handle, which can be bound but once.
    let options = EndpointOptions::new("nse-1", world.parts.tokens.clone());
    let endpoint = Endpoint::new(options.journal(world.answers.clone()), world.chain());
    let error = endpoint.request(request, soon()).await.unwrap_err();
    assert_eq!(world.look(), World::nothing(), "{error}: {}", error.source);
    error
}

fn count(world: &World, cause: &'static str) -> (u64, u64) {
    let metrics = world.parts.vl3.metrics();
    let cause = Cause { cause };
    let forged = metrics.forged_peers.get_or_create(&cause).get();
    (forged, metrics.refused_prefixes.get_or_create(&cause).get())
}

#[tokio::test]
async fn a_mechanism_that_cannot_be_used_is_invalid() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let unknown = |kind: &str| {
        let kind = MechanismType::Other(kind.to_owned());
        Mechanism::new(MechanismClass::Local, kind)
    };
    let pod = || kernel("file:///proc/12/ns/net");
    let offers = [
        kernel(""),
        kernel("file:///etc/shadow"),
        kernel("file:///proc/self/ns/net"),
        kernel("file:///run/netns/../../etc/shadow"),
        kernel("file:///run/netns/carrick-service"),
        kernel("file:///var/run/netns/carrick-service"),
        pod().with(Mechanism::NAME, "a-name-that-is-too-long"),
        pod().with(Mechanism::NAME, "a/b"),
        pod().with(Mechanism::NODE_NAME, "node-b"),
        Mechanism::new(MechanismClass::Local, MechanismType::Memif),
        unknown("SRV6"),
        unknown(""),
        vxlan("nowhere", 9),
        vxlan("192.0.2.9", 0),
        vxlan("192.0.2.9", 1 << 24),
        // What only the agent can tell: ourselves, another family, a group.
        vxlan("192.0.2.1", 9),
        vxlan("2001:db8::9", 9),
        vxlan("224.0.0.9", 9),
        vxlan("0.0.0.0", 9),
    ];
    for offer in offers {
        let error = refused(&world, offering("1", offer.clone())).await;
        assert_eq!(error.kind, Kind::Invalid, "{offer:?}");
    }
    let mut none = client("1");
    none.preferences.clear();
    let error = refused(&world, none).await;
    assert_eq!((error.kind, error.element), (Kind::Invalid, "mechanism"));
}

#[tokio::test]
async fn a_path_that_is_wrong_is_invalid() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let mut beyond = client("1");
    beyond.path.index = 7;
    let mut endless = client("1");
    endless.path.segments[0].expires = None;
    let mut other = client("1");
    other.path.segments[0].id = "2".to_owned();
    for request in [beyond, endless, other] {
        assert_eq!(refused(&world, request).await.kind, Kind::Invalid);
    }
}

#[tokio::test]
async fn a_client_that_excludes_all_addresses_gets_none() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let mut picky = client("1");
    picky.context.ip.excluded_prefixes = vec![prefix("0.0.0.0/0")];
    assert_eq!(refused(&world, picky).await.kind, Kind::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn whoever_claims_to_be_a_peer_and_is_not_is_denied_and_counted() {
    let neighbor = Neighbor::new();
    let world = World::timed(&neighbor).await;
    let labelled = |mut request: Connection, label: &str| {
        request.labels = [(PEER_LABEL, label)].into_iter().collect::<Labels>();
        request
    };
    let offer = || vxlan("192.0.2.2", 7);
    let mut tokenless = neighbor.request(offer());
    tokenless.path.segments[0].token.clear();
    let stranger = Neighbor(Identity::generate());
    let mut itself = labelled(neighbor.request(offer()), "nse-1");
    itself.path.segments[0].name = "nse-1-too".to_owned();
    let claims = [
        (labelled(client("1"), "nse-2"), "mismatch"),
        (labelled(client("1"), "nsc"), "unregistered"),
        (itself, "mismatch"),
        (stranger.request(offer()), "bad_token"),
        (tokenless, "bad_token"),
    ];
    for (claim, cause) in claims {
        let before = count(&world, cause).0;
        let error = refused(&world, claim).await;
        assert_eq!(
            (error.kind, error.element),
            (Kind::PermissionDenied, "peer")
        );
        assert_eq!(count(&world, cause).0, before + 1, "{cause}");
    }
}

#[tokio::test]
async fn a_client_does_not_become_a_peer_by_saying_so_in_its_context() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let mut request = client("1");
    let extra = &mut request.context.extra;
    extra.insert(Vl3::PEER_KEY.to_owned(), "/nse-2".to_owned());
    let answer = world.endpoint().request(request, soon()).await.unwrap();
    assert_eq!(answer.context.extra.get(Vl3::PEER_KEY), None);
    let look = world.look();
    assert_eq!(
        (look.dialled.len(), look.workload, look.leases.len()),
        (0, 1, 1)
    );
}

#[tokio::test]
async fn a_connection_that_was_a_clients_does_not_become_a_peers() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let endpoint = world.endpoint();
    let answer = endpoint.request(client("1"), soon()).await.unwrap();
    let mut turned = neighbor.request(kernel("file:///proc/12/ns/net"));
    turned.path.segments.push(answer.path.segments[1].clone());
    let up = world.look();
    let error = endpoint.request(turned, soon()).await.unwrap_err();
    assert_eq!(error.kind, Kind::PermissionDenied);
    assert_eq!((world.look(), count(&world, "turned_peer").0), (up, 1));
}

#[tokio::test]
async fn a_client_announces_no_routes() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let mut request = client("1");
    for prefix in [
        "0.0.0.0/0",
        "10.0.0.0/16",
        "10.0.1.0/24",
        "127.0.0.0/8",
        "10.0.0.0/32",
    ] {
        announce(&mut request, prefix);
    }
    request
        .context
        .ip
        .add_src_addr("10.0.0.0/32".parse().unwrap());
    let answer = world.endpoint().request(request, soon()).await.unwrap();
    assert_eq!(
        answer.context.ip.src_addrs,
        ["10.0.0.1/32".parse().unwrap()]
    );
    assert_eq!(routed(&world), [prefix("10.0.0.1/32")]);
}

/// What the only link takes packets for.
fn routed(world: &World) -> Vec<Prefix> {
    let links = world.agent.links();
    let [link] = &links[..] else {
        panic!("{links:?} is not one link");
    };
    link.near.routes.iter().map(|route| route.prefix).collect()
}

#[tokio::test]
async fn of_what_a_peer_announces_only_its_own_is_taken() {
    let neighbor = Neighbor::new();
    let hostile = [
        ("0.0.0.0/0", Some("outside")),
        ("172.16.0.0/12", Some("outside")),
        ("127.0.0.0/8", Some("outside")),
        ("224.0.0.0/4", Some("outside")),
        ("2001:db8::/64", Some("outside")),
        ("10.0.0.0/15", Some("outside")),
        ("10.0.0.0/24", Some("own")),
        ("10.0.0.0/23", Some("own")),
        ("10.0.0.1/32", Some("own")),
        // The whole network: Go endpoints announce it as their way out.
        ("10.0.0.0/16", None),
    ];
    for (announced, cause) in hostile {
        let world = World::new(&neighbor).await;
        let mut request = neighbor.request(vxlan("192.0.2.2", 7));
        let next_hop = prefix(announced)
            .network()
            .is_ipv4()
            .then_some([10, 0, 1, 0].into());
        request.context.ip.add_dst_route(Route {
            prefix: prefix(announced),
            next_hop,
        });
        world.endpoint().request(request, soon()).await.unwrap();
        assert_eq!(
            routed(&world),
            [prefix("10.0.1.0/32"), prefix("10.0.1.0/24")],
            "{announced}"
        );
        if let Some(cause) = cause {
            assert_eq!(count(&world, cause).1, 1, "{announced}");
        }
    }
}

#[tokio::test]
async fn a_peer_without_an_address_of_its_own_is_denied() {
    let neighbor = Neighbor::new();
    for address in [
        "10.0.0.0/32",
        "10.0.0.7/32",
        "127.0.0.1/32",
        "172.16.0.1/32",
        "0.0.0.0/32",
    ] {
        let world = World::new(&neighbor).await;
        let mut request = neighbor.request(vxlan("192.0.2.2", 7));
        request.context.ip.src_addrs = vec![address.parse().unwrap()];
        request.context.ip.dst_routes.clear();
        let error = refused(&world, request).await;
        assert_eq!(error.kind, Kind::PermissionDenied, "{address}");
    }
}

#[tokio::test]
async fn a_peer_does_not_take_what_a_linked_one_holds() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let endpoint = world.endpoint();
    let offer = || vxlan("192.0.2.2", 7);
    endpoint
        .request(neighbor.request(offer()), soon())
        .await
        .unwrap();
    let thief = Neighbor::new();
    world.parts.vl3.handle(thief.seen_as("nse-3"));
    let mut theft = thief.request_as("nse-3", vxlan("192.0.2.3", 8));
    let up = world.look();
    let error = endpoint.request(theft.clone(), soon()).await.unwrap_err();
    assert_eq!(error.kind, Kind::PermissionDenied);
    assert_eq!(
        (world.look().agent, count(&world, "held").1 > 0),
        (up.agent, true)
    );

    // With something of its own it is let in, without what is the other's.
    theft
        .context
        .ip
        .add_src_addr("10.0.2.0/32".parse().unwrap());
    let answer = endpoint.request(theft, soon()).await.unwrap();
    assert_eq!(
        answer.context.ip.src_addrs,
        ["10.0.2.0/32".parse().unwrap()]
    );
}
