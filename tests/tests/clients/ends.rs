//! What is left when clients have gone: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use carrick_tests::ip::{self, Interface};
use carrick_tests::{Lab, Namespace};
use futures::future::join_all;
use serde_json::Value;

use crate::addresses::gauges;
use crate::hop::Hop;

const CYCLES: usize = 1000;
/// Pods at once.
const LANES: usize = 8;

/// All that a client can leave behind.
#[derive(Debug, PartialEq)]
struct Remains {
    /// Interfaces and routes of the router and of every pod.
    kernel: Vec<(BTreeMap<String, Interface>, Vec<String>)>,
    connections: Value,
    leases: Value,
    registered: BTreeSet<String>,
    gauges: BTreeMap<String, String>,
    descriptors: usize,
}

async fn remains(lab: &Lab, pods: &[String]) -> Remains {
    let namespaces = pods.iter().map(|pod| lab.netns(pod));
    let seen = |side: &Namespace| (ip::interfaces(side), ip::routes(side));
    let status = lab.status("nse").await.unwrap();
    let registry = lab.status("registry-east").await.unwrap();
    let entries = registry["network_service_endpoints"].as_array().unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", lab.pid("nse"))).unwrap();
    Remains {
        kernel: namespaces.chain([lab.router("nse")]).map(seen).collect(),
        connections: status["connections"].clone(),
        leases: status["leases"].clone(),
        registered: entries.iter().map(|is| is["name"].to_string()).collect(),
        gauges: gauges(lab).await,
        descriptors: open.count(),
    }
}

/// A client of each pod comes and goes, one after the other, `times` times.
async fn cycle(lab: &Lab, hop: &Hop, pods: &[String], times: usize) {
    let lanes = pods.iter().map(async |pod| {
        for number in 0..times {
            let wanted = hop.wanted(&format!("{pod}-{number}"), lab.netns(pod));
            let answer = hop.request(&wanted).await.unwrap();
            assert_eq!(answer.context.ip.src_addrs.len(), 1);
            hop.close(&answer).await.unwrap();
        }
    });
    join_all(lanes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_came_and_went_leave_nothing() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    let quiet = [("NSM_LOG_LEVEL", "INFO".to_owned())];
    lab.start_nse("nse", "one", "one", "one", &quiet);
    lab.ready("nse").await;
    let pods: Vec<String> = (0..LANES).map(|number| format!("pod{number}")).collect();
    for pod in &pods {
        lab.pod(pod).await;
    }
    let hop = Hop::new(&lab, "nse", "one").await;
    // What is made once and kept is there from now on.
    cycle(&lab, &hop, &pods, 2).await;
    let before = remains(&lab, &pods).await;
    cycle(&lab, &hop, &pods, CYCLES / LANES).await;
    let mut last = None;
    let patience = carrick_tests::PATIENCE;
    let equal = tokio::time::timeout(patience, async {
        while last.as_ref() != Some(&before) {
            last = Some(remains(&lab, &pods).await);
        }
    });
    assert!(equal.await.is_ok(), "before: {before:#?}\nafter: {last:#?}");
}
