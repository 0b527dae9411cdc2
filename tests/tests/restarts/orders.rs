//! Endpoint, client and prefix server killed in each order, and all else one by one.

use std::net::IpAddr;

use carrick_tests::traffic::{Echo, Flow, echoes};
use carrick_tests::{Lab, PATIENCE};

const PODS: [&str; 3] = ["ant", "bee", "cat"];

/// One node whose pods all are clients of `nse`.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    for pod in PODS {
        lab.start_nsc(pod, "one", "nse", &[]).await;
    }
    lab
}

async fn addresses(lab: &Lab) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for pod in PODS {
        addresses.push(lab.address(pod).await);
    }
    addresses
}

/// Waits until each pod has its address back, at its client and at the endpoint.
async fn are_back(lab: &Lab, before: &[IpAddr], what: &str) {
    assert_eq!(addresses(lab).await, before, "{what}");
    lab.wait(&format!("{what}: the endpoint serves all"), async || {
        let status = lab.status("nse").await?;
        let connections = status["connections"].as_array()?;
        let served = |address: &IpAddr| {
            let net = format!("{address}/32");
            let has = connections.iter().filter(|is| is["src_addrs"][0] == *net);
            has.count() == 1
        };
        (connections.len() == PODS.len() && before.iter().all(served)).then_some(())
    })
    .await;
    let leases = lab.status("nse").await.unwrap()["leases"].clone();
    assert_eq!(
        leases.as_array().map(Vec::len),
        Some(PODS.len()),
        "{leases}"
    );
}

/// Kills the programs of each round, starts them again in the same order, and
/// has packets of other pods flow meanwhile.
async fn survive(rounds: &[&[&str]], at_once: bool) {
    let mut lab = lab().await;
    let before = addresses(&lab).await;
    let _echo = Echo::start(lab.pod("cat").await, b"cat");
    // The pod whose client is killed has a flow, too: `ant` to `cat`.
    for pod in ["ant", "bee"] {
        assert!(echoes(lab.pod(pod).await, before[2], PATIENCE));
    }
    for round in rounds {
        let flows = [
            Flow::start(lab.pod("ant").await, before[2]),
            Flow::start(lab.pod("bee").await, before[2]),
        ];
        if at_once {
            for program in *round {
                lab.down(program);
            }
            for program in *round {
                lab.up(program);
            }
        } else {
            for program in *round {
                lab.kill_and_restart(program);
            }
        }
        are_back(&lab, &before, &round.join(", ")).await;
        lab.ready("nse").await;
        let until = flows[0].sent() + 15;
        let sent = async || (flows[0].sent() >= until).then_some(());
        lab.wait("15 packets more", sent).await;
        let [own, other] = flows.map(Flow::stop);
        println!("{round:?}: its pod {own:?}, another {other:?}");
        assert_eq!(other.lost, 0, "{round:?}: {other:?}");
        assert_eq!(own.lost, 0, "{round:?}: {own:?}");
    }
}

const ORDERS: [&[&str]; 6] = [
    &["nse", "nsc-ant", "ipam"],
    &["nse", "ipam", "nsc-ant"],
    &["nsc-ant", "nse", "ipam"],
    &["nsc-ant", "ipam", "nse"],
    &["ipam", "nse", "nsc-ant"],
    &["ipam", "nsc-ant", "nse"],
];

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_client_and_prefix_server_may_be_killed_in_any_order() {
    survive(&ORDERS, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_client_and_prefix_server_may_be_killed_at_once() {
    survive(&ORDERS, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_may_be_killed_at_any_time() {
    let all = [
        "registry-east",
        "ipam",
        "nse",
        "nsc-ant",
        "nsc-bee",
        "nsc-cat",
    ];
    let mut rounds: Vec<&[&str]> = all.iter().map(std::slice::from_ref).collect();
    rounds.push(&all);
    survive(&rounds, true).await;
}
