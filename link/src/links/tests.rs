use std::sync::Arc;

use carrick_agent::{Agent, Change, Netns, Recording, Router};
use carrick_chain::testing::{Check, TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions, Kind};
use carrick_types::{Prefix, host};

use super::*;
use crate::testing::{ip, kernel, prefix, site, vxlan};

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn via(text: &str, next_hop: &str) -> Route {
    Route::via(prefix(text), ip(next_hop))
}

fn out(text: &str, next_hop: Option<&str>, source: Option<&str>) -> LinkRoute {
    LinkRoute {
        prefix: prefix(text),
        next_hop: next_hop.map(ip),
        source: source.map(ip),
    }
}

/// What an endpoint with 10.0.0.0/24 tells its first client.
fn first_client() -> IpContext {
    IpContext {
        src_addrs: nets(&["10.0.0.1/32"]),
        dst_addrs: nets(&["10.0.0.0/32"]),
        src_routes: vec![
            via("10.0.0.0/32", "10.0.0.0"),
            via("10.0.0.0/24", "10.0.0.0"),
            via("10.0.0.0/16", "10.0.0.0"),
        ],
        dst_routes: vec![Route::direct(prefix("10.0.0.1/32"))],
        ..IpContext::default()
    }
}

#[test]
fn a_client_reaches_the_endpoint_and_all_else_through_it() {
    let (own, hop) = (Some("10.0.0.1"), Some("10.0.0.0"));
    assert_eq!(
        own_end_routes(&first_client()),
        [
            out("10.0.0.0/32", None, own),
            out("10.0.0.0/24", hop, own),
            out("10.0.0.0/16", hop, own),
        ]
    );
}

#[test]
fn an_endpoint_reaches_a_client_directly_and_once() {
    let ip = first_client();
    let routes = routes(&ip.src_addrs, &ip.dst_routes, &ip.dst_addrs);
    assert_eq!(routes, [out("10.0.0.1/32", None, Some("10.0.0.0"))]);
}

#[test]
fn a_route_without_next_hop_goes_by_the_first_address_of_its_family() {
    let other = nets(&["10.0.1.0/32", "10.0.2.0/32", "2001:db8::1/128"]);
    let announced = [
        Route::direct(prefix("10.0.1.0/24")),
        Route::direct(prefix("2001:db8:1::/64")),
        via("10.0.2.0/24", "10.0.2.0"),
    ];
    assert_eq!(
        routes(&other, &announced, &[])[3..],
        [
            out("10.0.1.0/24", Some("10.0.1.0"), None),
            out("2001:db8:1::/64", Some("2001:db8::1"), None),
            out("10.0.2.0/24", Some("10.0.2.0"), None),
        ]
    );
}

#[test]
fn a_family_that_nobody_speaks_is_left_out() {
    let announced = [Route::direct(prefix("2001:db8::/64"))];
    let routes = routes(
        &nets(&["10.0.1.0/32"]),
        &announced,
        &nets(&["2001:db8::/128"]),
    );
    assert_eq!(routes, [out("10.0.1.0/32", None, None)]);
}

#[test]
fn sources_are_of_the_routes_family() {
    let own = nets(&["2001:db8::/128", "10.0.0.0/32"]);
    let routes = routes(&nets(&["10.0.1.0/32", "2001:db8::1/128"]), &[], &own);
    assert_eq!(
        routes,
        [
            out("10.0.1.0/32", None, Some("10.0.0.0")),
            out("2001:db8::1/128", None, Some("2001:db8::")),
        ]
    );
}

#[test]
fn a_prefix_is_routed_once() {
    let announced = [
        via("10.0.1.0/24", "10.0.1.0"),
        via("10.0.1.0/24", "10.0.1.1"),
        via("10.0.1.1/32", "10.0.1.0"),
    ];
    let routes = routes(&nets(&["10.0.1.0/32", "10.0.1.1/32"]), &announced, &[]);
    let prefixes: Vec<Prefix> = routes.iter().map(|route| route.prefix).collect();
    let expected = [
        host(ip("10.0.1.0")),
        host(ip("10.0.1.1")),
        prefix("10.0.1.0/24"),
    ];
    assert_eq!(prefixes, expected);
}

async fn endpoint(mechanism: Mechanism, is_peer: bool) -> (Endpoint, Arc<Recording>) {
    let agent = Arc::new(Recording::new());
    let router = Router {
        netns: site().router,
        addresses: Vec::new(),
        unreachable: Vec::new(),
    };
    agent.apply(vec![Change::PutRouter(router)]).await.unwrap();
    let chain = Chain::default()
        .then(Check::new(move |connection| {
            connection.mechanism = Some(mechanism.clone());
            connection.context.ip = first_client();
            Ok(())
        }))
        .then(Links::new(
            site(),
            LinkBook::new(agent.clone()),
            move |_| is_peer,
        ));
    let options = EndpointOptions::new("nse-1", TestTokens::default());
    (Endpoint::new(options, chain), agent)
}

fn vxlan_answered() -> Mechanism {
    vxlan("192.0.2.2")
        .with(Mechanism::DST_IP, "192.0.2.1")
        .with(Mechanism::VNI, 7)
}

#[tokio::test]
async fn a_clients_link_is_dressed_at_both_ends() {
    let mechanism = kernel("file:///proc/12/ns/net").with(Mechanism::NAME, "nsm-1");
    let (endpoint, agent) = endpoint(mechanism, false).await;
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let links = agent.links();
    let [
        Link {
            kind: LinkKind::Veth { far },
            near,
            side,
            ..
        },
    ] = &links[..]
    else {
        panic!("{links:?} is not one veth");
    };
    assert_eq!(far.name.as_str(), "nsm-1");
    assert_eq!(far.netns, Netns::Path("/proc/12/ns/net".into()));
    assert_eq!(far.addresses, nets(&["10.0.0.1/32"]));
    assert_eq!(far.routes.len(), 3);
    assert_eq!((near.addresses.len(), near.routes.len()), (0, 1));
    assert_eq!(*side, Side::Endpoint);
}

#[tokio::test]
async fn a_peer_dresses_its_own_end() {
    let mechanism = kernel("file:///run/netns/router-2");
    let (endpoint, agent) = endpoint(mechanism, true).await;
    endpoint
        .request(request("nse-2", "1"), soon())
        .await
        .unwrap();
    let links = agent.links();
    assert!(
        matches!(&links[0].kind, LinkKind::VethOpen { netns, .. } if *netns == Netns::Path("/run/netns/router-2".into())),
        "{links:?}"
    );
}

#[tokio::test]
async fn a_tunnel_goes_from_our_underlay_address_to_the_clients() {
    let (endpoint, agent) = endpoint(vxlan_answered(), true).await;
    endpoint
        .request(request("nse-2", "1"), soon())
        .await
        .unwrap();
    let expected = LinkKind::Vxlan {
        vni: carrick_types::Vni::new(7).unwrap(),
        local: ip("192.0.2.1"),
        remote: ip("192.0.2.2"),
        port: 4789,
    };
    assert_eq!(agent.links()[0].kind, expected);
}

#[tokio::test]
async fn what_may_still_come_is_worth_another_try() {
    let (endpoint, agent) = endpoint(vxlan_answered(), true).await;
    endpoint
        .request(request("nse-2", "1"), soon())
        .await
        .unwrap();
    let second = endpoint.request(request("nse-3", "1"), soon()).await;
    assert_eq!(second.unwrap_err().kind, Kind::Unavailable, "VNI in use");
    agent.lose(&site().router);
    let third = endpoint.request(request("nse-3", "1"), soon()).await;
    assert_eq!(third.unwrap_err().kind, Kind::Unavailable, "no router");
}

#[tokio::test]
async fn a_mechanism_of_others_gets_no_link() {
    let memif = Mechanism::new(carrick_types::MechanismClass::Local, MechanismType::Memif);
    let (endpoint, agent) = endpoint(memif, false).await;
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert!(agent.links().is_empty());
}
