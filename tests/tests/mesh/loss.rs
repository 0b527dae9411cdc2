//! What becomes of the others when an endpoint is lost.

use std::time::Duration;

use carrick_tests::traffic::{Echo, Flow, echoes};
use carrick_tests::{Lab, PATIENCE, ip};
use tokio::time::Instant;

use crate::{lab, nse, pod, start, start_pods};

const NODES: [&str; 3] = ["one", "two", "three"];

/// Three endpoints of three nodes, a client at the first and at the last.
async fn three_nodes() -> (Lab, Vec<String>) {
    let mut lab = lab(&NODES).await;
    let nses = start(&mut lab, &NODES, 3);
    start_pods(&mut lab, &NODES, 3).await;
    lab.meshed(&nses, PATIENCE).await;
    lab.settled(&nses, 1).await;
    (lab, nses)
}

/// Waits until the routers of the first two have a route to `prefix`, or have
/// none any more; how long that took since `start`.
async fn routed(lab: &Lab, prefix: &str, wanted: bool, start: Instant) -> Duration {
    for number in [0, 1] {
        let what = format!("{} has a route to {prefix}: {wanted}", nse(number));
        lab.wait(&what, async || {
            let routes = ip::routes(lab.router(&nse(number)));
            let there = routes.iter().any(|route| route.starts_with(prefix));
            (there == wanted).then_some(())
        })
        .await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_to_an_endpoint_whose_node_dies_go_within_two_seconds_and_return_within_five() {
    let (mut lab, nses) = three_nodes().await;
    let prefix = &lab.prefixes(&nses[2]).await[0];
    let address = lab.address(&pod(2)).await;
    lab.address(&pod(0)).await;
    let _echo = Echo::start(lab.pod_there(&pod(2)), b"");
    assert!(echoes(lab.pod_there(&pod(0)), address, PATIENCE));

    let died = Instant::now();
    lab.down(&nses[2]);
    carrick_tests::remove(&lab.router(&nses[2]).path()).unwrap();
    let gone = routed(&lab, prefix, false, died).await;
    assert!(gone <= Duration::from_secs(2), "{gone:?}");

    let returned = Instant::now();
    lab.up(&nses[2]);
    let back = routed(&lab, prefix, true, returned).await;
    println!("routes gone after {gone:?}, back {back:?} after the return");
    assert!(back <= Duration::from_secs(5), "{back:?}");
    lab.meshed(&nses, PATIENCE).await;
    lab.settled(&nses, 1).await;
    // Its clients as well: their links were in the namespace that is gone.
    assert!(echoes(lab.pod_there(&pod(0)), address, PATIENCE));
    println!(
        "its client answers {:?} after the return",
        returned.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_killed_and_started_again_three_times_loses_no_packet_and_keeps_its_links() {
    let (mut lab, nses) = three_nodes().await;
    let target = lab.address(&pod(2)).await;
    lab.address(&pod(0)).await;
    let _echo = Echo::start(lab.pod_there(&pod(2)), b"");
    assert!(echoes(lab.pod_there(&pod(0)), target, PATIENCE));
    let links = lab.settled(&nses, 1).await;
    let devices = lab
        .wait("the network's MTU has reached every link", async || {
            let devices = ip::interfaces(lab.router(&nses[2]));
            devices
                .values()
                .all(|device| device.mtu == 1450)
                .then_some(devices)
        })
        .await;

    let flow = Flow::start(lab.pod_there(&pod(0)), target);
    for _ in 0..3 {
        lab.kill_and_restart(&nses[2]);
        lab.ready(&nses[2]).await;
        lab.meshed(&nses, PATIENCE).await;
        assert_eq!(lab.settled(&nses, 1).await, links);
        lab.wait("the new process has probed its links", async || {
            let status = lab.status(&nses[2]).await?;
            let mut peers = status["peers"].as_array()?.iter();
            peers.all(|peer| peer["rtt_us"].is_u64()).then_some(())
        })
        .await;
    }
    let loss = flow.stop();

    println!("{loss:?} while the endpoint was killed and came back three times");
    assert_eq!(loss.lost, 0, "{loss:?}");
    assert!(loss.sent > 20, "{loss:?}");
    assert_eq!(ip::interfaces(lab.router(&nses[2])), devices);
}
