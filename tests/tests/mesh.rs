//! Endpoints of one service: each has exactly one link to each other one,
//! whatever happens, without any VPP on the machine.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by ending there"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use carrick_tests::ip::{self, Interface};
use carrick_tests::traffic::{Echo, echoes, fetch};
use carrick_tests::{Lab, PATIENCE};
use tokio::time::Instant;

mod mesh {
    mod crossing;
    mod domains;
    mod loss;
    mod refusal;
}

/// Name of the n-th endpoint.
fn nse(number: usize) -> String {
    format!("nse-{number}")
}

/// Name of the n-th pod.
fn pod(number: usize) -> String {
    format!("pod-{number}")
}

/// A lab with a registry and a prefix server on the first node.
async fn lab(nodes: &[&str]) -> Lab {
    let mut lab = Lab::new(nodes).await;
    lab.start_registry("east", nodes[0]);
    lab.start_ipam(nodes[0], "172.16.0.0/16");
    lab
}

/// Starts `count` endpoints, dealt out to the nodes; their names.
fn start(lab: &mut Lab, nodes: &[&str], count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(nse).collect();
    for (name, node) in names.iter().zip(nodes.iter().cycle()) {
        lab.start_nse(name, node, nodes[0], nodes[0], &[]);
    }
    names
}

/// Starts a client at each endpoint.
async fn start_pods(lab: &mut Lab, nodes: &[&str], count: usize) {
    for (number, node) in (0..count).zip(nodes.iter().cycle()) {
        lab.start_nsc(&pod(number), node, &nse(number), &[]).await;
    }
}

/// The addresses of the first `count` pods, once they are up.
async fn addresses(lab: &Lab, count: usize) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for number in 0..count {
        addresses.push(lab.address(&pod(number)).await);
    }
    addresses
}

/// Every pod pings every other one, gets its UDP packet back, and its text over TCP.
async fn everyone_reaches_everyone(lab: &Lab, addresses: &[IpAddr]) {
    let text = |number: usize| format!("hello from {}", pod(number)).into_bytes();
    let _servers: Vec<Echo> = (0..addresses.len())
        .map(|number| Echo::start(lab.pod_there(&pod(number)), &text(number)))
        .collect();
    for from in 0..addresses.len() {
        for to in (0..addresses.len()).filter(|&to| to != from) {
            let (name, target) = (pod(from), addresses[to]);
            let answer = lab.ping(&name, addresses[from], target).await;
            assert!(answer.is_some(), "{name} does not reach {target}");
            let namespace = lab.pod_there(&name);
            assert!(echoes(namespace, target, Duration::from_secs(3)));
            assert_eq!(fetch(namespace, target).unwrap(), text(to));
        }
    }
}

async fn five_endpoints_with_a_client_each(nodes: &[&str]) -> (Lab, Vec<String>) {
    let mut lab = lab(nodes).await;
    let nses = start(&mut lab, nodes, 5);
    start_pods(&mut lab, nodes, 5).await;
    let addresses = addresses(&lab, 5).await;
    lab.meshed(&nses, PATIENCE).await;
    let links = lab.settled(&nses, 1).await;
    assert_eq!(links.len(), 10);
    everyone_reaches_everyone(&lab, &addresses).await;
    (lab, nses)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_endpoints_of_one_node_make_ten_veth_links_and_every_client_reaches_every_client() {
    let (lab, nses) = five_endpoints_with_a_client_each(&["one"]).await;
    for nse in &nses {
        assert!(ip::kinds(lab.router(nse)).iter().all(|kind| kind == "veth"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_endpoints_of_five_nodes_make_ten_vxlan_links_and_every_client_reaches_every_client() {
    let nodes = ["one", "two", "three", "four", "five"];
    let (lab, nses) = five_endpoints_with_a_client_each(&nodes).await;
    for nse in &nses {
        let kinds = ip::kinds(lab.router(nse));
        let tunnels = kinds.iter().filter(|kind| *kind == "vxlan").count();
        assert_eq!(tunnels, 4, "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_mesh_within_five_seconds_though_no_client_ever_comes() {
    let nodes = ["one", "two"];
    let mut lab = lab(&nodes).await;
    let before = Instant::now();
    let nses = start(&mut lab, &nodes, 5);
    lab.meshed(&nses, Duration::from_secs(5)).await;
    let took = before.elapsed();
    println!("5 endpoints on 2 nodes meshed {took:?} after the first was started");
    assert!(took <= Duration::from_secs(5), "{took:?}");
    assert_eq!(lab.settled(&nses, 0).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_endpoints_started_in_one_second_make_190_links_and_no_second_one_between_two() {
    let mut lab = lab(&["one"]).await;
    lab.ready("registry-east").await;
    let before = Instant::now();
    let nses = start(&mut lab, &["one"], 20);
    let started = before.elapsed();
    lab.meshed(&nses, Duration::from_secs(15)).await;
    let took = before.elapsed();
    println!("20 endpoints, started within {started:?}, meshed after {took:?}");
    assert!(started <= Duration::from_secs(1), "{started:?}");
    assert!(took <= Duration::from_secs(15), "{took:?}");
    assert_eq!(lab.settled(&nses, 0).await.len(), 190);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_all_killed_at_once_go_on_with_the_same_links() {
    let nodes = ["one", "two"];
    let mut lab = lab(&nodes).await;
    let nses = start(&mut lab, &nodes, 5);
    lab.meshed(&nses, PATIENCE).await;
    let before = lab.settled(&nses, 0).await;
    let devices = |lab: &Lab| -> Vec<_> {
        let routers = nses.iter().map(|nse| lab.router(nse));
        routers
            .map(|router| (ip::interfaces(router), ip::routes(router)))
            .collect()
    };
    // Links that were made before the first tunnel came down to its MTU.
    let mtus = |interfaces: &BTreeMap<String, Interface>| -> BTreeSet<u64> {
        interfaces.values().map(|interface| interface.mtu).collect()
    };
    lab.wait("all links have one MTU", async || {
        let devices = devices(&lab);
        let all: BTreeSet<_> = devices.iter().flat_map(|(on, _)| mtus(on)).collect();
        (all.len() == 1).then_some(())
    })
    .await;
    let devices_before = devices(&lab);
    for nse in &nses {
        lab.down(nse);
    }
    for nse in &nses {
        lab.up(nse);
    }
    for nse in &nses {
        lab.ready(nse).await;
    }
    lab.meshed(&nses, PATIENCE).await;
    assert_eq!(lab.settled(&nses, 0).await, before);
    assert_eq!(devices(&lab), devices_before);
}
