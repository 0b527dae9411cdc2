//! Addresses and routes of clients, and that a refresh changes nothing.

use std::collections::BTreeMap;

use carrick_tests::traffic::{Echo, fetch};
use carrick_tests::{Lab, ip};
use carrick_types::{ExtraPrefixRequest, IpFamily, Prefix};
use serde_json::json;

use crate::hop::Hop;

/// One node with an endpoint `nse`.
async fn lab(more: &[(&str, String)]) -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", more);
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_address_and_a_route_to_the_network_by_way_of_its_endpoint() {
    let mut lab = lab(&[]).await;
    for pod in ["ant", "bee"] {
        lab.start_nsc(pod, "one", "nse", &[]).await;
    }
    let (ant, bee) = (lab.address("ant").await, lab.address("bee").await);
    let pod = lab.pod("ant").await;
    let _echo = Echo::start(pod, b"hello from ant");
    assert_eq!(
        ip::interfaces(pod)["nsm-1"].addresses,
        [format!("{ant}/32")]
    );
    let routes = [
        "172.16.0.0/16 via 172.16.0.0 dev nsm-1",
        "172.16.0.0/24 via 172.16.0.0 dev nsm-1",
        "172.16.0.0/32 dev nsm-1",
    ];
    assert_eq!(ip::routes(pod), routes);
    let hosts = ip::routes(lab.router("nse"));
    for address in [ant, bee] {
        let to = format!("{address}/32 dev ");
        let count = hosts.iter().filter(|route| route.starts_with(&to)).count();
        assert_eq!(count, 1, "{to} in {hosts:?}");
    }
    assert_eq!(fetch(lab.pod("bee").await, ant).unwrap(), b"hello from ant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refreshes_change_nothing() {
    let mut lab = lab(&[]).await;
    lab.ready("nse").await;
    lab.pod("ant").await;
    let hop = Hop::new(&lab, "nse", "one").await;
    let first = hop.request(&hop.wanted("ant", lab.pod("ant").await)).await;
    let first = first.unwrap();
    let before = (seen(&lab).await, first.context.clone());
    assert_eq!(gauges(&lab).await["nse_vl3_active_workload"], "1");
    let mut answer = first;
    for _ in 0..100 {
        answer = hop.request(&answer).await.unwrap();
        assert_eq!(answer.context, before.1);
    }
    assert_eq!(seen(&lab).await, before.0);
}

/// Everything that a refresh must leave alone.
async fn seen(lab: &Lab) -> impl PartialEq + std::fmt::Debug + use<> {
    let ends =
        [lab.netns("ant"), lab.router("nse")].map(|side| (ip::interfaces(side), ip::routes(side)));
    let status = lab.status("nse").await.unwrap();
    (
        ends,
        gauges(lab).await,
        status["leases"].clone(),
        status["connections"].clone(),
    )
}

/// The gauges of the endpoint but for ages; counters may count.
pub(crate) async fn gauges(lab: &Lab) -> BTreeMap<String, String> {
    let text = lab.metrics("nse").await.unwrap();
    let gauges: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
        .collect();
    let values = text.lines().filter_map(|line| line.split_once(' '));
    values
        .filter(|(name, _)| gauges.contains(&name.split('{').next().unwrap_or(name)))
        .filter(|(name, _)| !name.ends_with("_age_seconds"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_given_configured_routes_and_no_excluded_address() {
    let mut lab = lab(&[
        ("CARRICK_ROUTES", "203.0.113.0/24".to_owned()),
        ("CARRICK_EXCLUDED_PREFIXES", "172.16.0.0/30".to_owned()),
    ])
    .await;
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.start_nsc("bee", "one", "nse", &[]).await;
    let excluded: Prefix = "172.16.0.0/30".parse().unwrap();
    for name in ["ant", "bee"] {
        let address = lab.address(name).await;
        assert!(!excluded.contains(address), "{address}");
        let status = lab.status("nse").await.unwrap();
        let own = status["connections"][0]["dst_addrs"][0].as_str().unwrap();
        let own = own.trim_end_matches("/32");
        let route = format!("203.0.113.0/24 via {own} dev nsm-1");
        let routes = ip::routes(lab.pod(name).await);
        assert!(routes.contains(&route), "{route} in {routes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_exclude_addresses_and_ask_for_prefixes_of_its_own() {
    let mut lab = lab(&[]).await;
    lab.ready("nse").await;
    lab.pod("ant").await;
    let hop = Hop::new(&lab, "nse", "one").await;
    let mut wanted = hop.wanted("ant", lab.pod("ant").await);
    wanted.context.ip.excluded_prefixes = vec!["172.16.0.0/29".parse().unwrap()];
    wanted.context.ip.extra_prefix_request = vec![ExtraPrefixRequest {
        family: IpFamily::V4,
        prefix_length: 29,
        required: 2,
        requested: 2,
    }];
    let answer = hop.request(&wanted).await.unwrap();
    let ip = &answer.context.ip;
    let [address] = ip.src_addrs[..] else {
        panic!("one address: {ip:?}");
    };
    let [one, two] = ip.extra_prefixes[..] else {
        panic!("two prefixes: {ip:?}");
    };
    assert!(
        one.length() == 29 && two.length() == 29 && !one.overlaps(two),
        "{one} {two}"
    );
    for excluded in &wanted.context.ip.excluded_prefixes {
        assert!(!excluded.contains(address.addr()), "{address}");
        assert!(
            !excluded.overlaps(one) && !excluded.overlaps(two),
            "{one} {two}"
        );
    }
    let routes = ip::routes(lab.router("nse"));
    for prefix in [one, two] {
        assert!(!prefix.contains(address.addr()), "{prefix} {address}");
        let to = format!("{prefix} ");
        assert!(
            routes.iter().any(|route| route.starts_with(&to)),
            "{to} in {routes:?}"
        );
    }
    hop.close(&answer).await.unwrap();
    assert_eq!(lab.status("nse").await.unwrap()["leases"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_of_name_servers_and_zones() {
    let mut lab = lab(&[
        ("CARRICK_NAME_SERVERS", "192.0.2.53,2001:db8::53".to_owned()),
        (
            "CARRICK_DNS_ZONES",
            "example.com,corp.example.com".to_owned(),
        ),
    ])
    .await;
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.address("ant").await;
    let status = lab.status("nsc-ant").await.unwrap();
    let expected = json!([
        { "server_ips": ["172.16.0.0"], "search_domains": ["vl3"] },
        {
            "server_ips": ["192.0.2.53", "2001:db8::53"],
            "search_domains": ["example.com", "corp.example.com"],
        },
    ]);
    assert_eq!(status["connections"][0]["dns"], expected);
}
