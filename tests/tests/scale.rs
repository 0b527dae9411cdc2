//! Many endpoints, each a process of its own with links in the kernel.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by ending there"
)]

use std::fs;
use std::time::Duration;

use carrick_tests::{Lab, Namespace};
use nix::sys::signal::Signal;
use tokio::time::Instant;

/// Starts `count` endpoints on one node; their names, and how long it took from
/// the first start until each had a working link to each other one.
async fn mesh_of(count: usize, patience: Duration) -> (Lab, Vec<String>, Duration) {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.ready("registry-east").await;
    lab.ready("ipam").await;
    let before = Instant::now();
    let names: Vec<String> = (0..count).map(|number| format!("nse-{number}")).collect();
    for name in &names {
        let quiet = [("NSM_LOG_LEVEL", "WARN".to_owned())];
        lab.start_nse(name, "one", "one", "one", &quiet);
    }
    lab.meshed(&names, patience).await;
    let took = before.elapsed();
    println!("{count} endpoints meshed {took:?} after the first was started");
    (lab, names, took)
}

/// Lets one endpoint leave in order; how long its routes stayed in the router
/// that had them longest.
async fn one_leaves(lab: &mut Lab, names: &[String]) -> Duration {
    let (leaving, staying) = names.split_last().expect("there are endpoints");
    let network = lab.prefixes(leaving).await[0].clone();
    let routed = |name: &String| leads_to(lab.router(name), &network);
    assert!(staying.iter().all(routed));
    let before = Instant::now();
    lab.signal(leaving, Signal::SIGTERM);
    let mut with_routes: Vec<&String> = staying.iter().collect();
    let gone = lab
        .wait("its routes are gone everywhere", async || {
            with_routes.retain(|name| routed(name));
            with_routes.is_empty().then(|| before.elapsed())
        })
        .await;
    println!(
        "routes to one that left were gone at all {} after {gone:?}",
        staying.len()
    );
    let leaving = leaving.clone();
    let mut ended = None;
    while ended.is_none() {
        ended = carrick_tests::until_within(Duration::from_secs(20), || lab.ended(&leaving)).await;
    }
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    gone
}

/// Whether a router has a route to an IPv4 network, other than the one that
/// refuses what nobody claims.
fn leads_to(router: &Namespace, network: &str) -> bool {
    let address = network.split('/').next().unwrap_or_default();
    let address: std::net::Ipv4Addr = address.parse().expect("it is an IPv4 network");
    // Written as a number of the machine's byte order.
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let table = router.within(|| fs::read_to_string("/proc/thread-self/net/route"));
    let table = table.expect("the kernel tells its routes");
    table
        .lines()
        .skip(1)
        .any(|line| line.split('\t').nth(1) == Some(&wanted))
}

/// The mesh is whole, with one link per pair, and heals at once where one leaves.
async fn mesh_and_leave(count: usize) -> Duration {
    let (mut lab, names, took) = mesh_of(count, Duration::from_secs(120)).await;
    let links = lab.settled(&names, 0).await;
    assert_eq!(links.len(), names.len() * (names.len() - 1) / 2);
    let gone = one_leaves(&mut lab, &names).await;
    assert!(gone <= Duration::from_secs(1), "{gone:?}");
    took
}

/// `CARRICK_ENDPOINTS` is another number to measure with. The ten seconds are
/// for an optimized binary: without, the processes need six times the time.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_processes_mesh_and_the_routes_of_one_that_leaves_go_within_a_second() {
    let other = std::env::var("CARRICK_ENDPOINTS").ok();
    let count = other.map_or(50, |text| text.parse().expect("it is a number"));
    let took = mesh_and_leave(count).await;
    let is_measured = count <= 50 && !cfg!(debug_assertions);
    assert!(!is_measured || took <= Duration::from_secs(10), "{took:?}");
}

#[cfg(not(debug_assertions))]
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_processes_make_4950_links_and_the_routes_of_one_that_leaves_go_within_a_second()
{
    mesh_and_leave(100).await;
}
