//! Scale from zero: an endpoint that a supplier starts when a client needs one
//! on its node, and that ends by itself when nobody does.

use std::time::Duration;

use carrick_tests::{Lab, PATIENCE, until_within};
use serde_json::Value;

async fn entries(lab: &Lab) -> Option<Vec<Value>> {
    let status = lab.status("registry-east").await?;
    status["network_service_endpoints"].as_array().cloned()
}

/// What a supplier does: the endpoint of the client's node, which ends when idle.
fn supply(lab: &mut Lab) {
    let idle = [("NSM_IDLE_TIMEOUT", "1s".to_owned())];
    lab.start_nse("nse", "one", "one", "one", &idle);
}

async fn ended_and_gone(lab: &mut Lab) {
    let ended = until_within(PATIENCE, || lab.ended("nse")).await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    let left = entries(lab).await.expect("the registry answers");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_nobody_needs_ends_and_the_next_one_goes_on() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    supply(&mut lab);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    let first = lab.address("ant").await;
    let entry = &entries(&lab).await.unwrap()[0];
    // What a supplier's template `nodeName: {{ .nodeName }}` looks for.
    assert_eq!(entry["labels"]["vl3"]["nodeName"], "one", "{entry}");

    // Refreshes or not, a client that is there keeps it.
    let gone = until_within(Duration::from_secs(3), || lab.ended("nse")).await;
    assert_eq!(gone, None, "it ended under its client");
    assert!(lab.stop("nsc-ant").await.success());
    ended_and_gone(&mut lab).await;

    lab.up("nse");
    lab.start_nsc("ant", "one", "nse", &[]).await;
    assert_eq!(lab.address("ant").await, first);
    assert!(lab.stop("nsc-ant").await.success());
    ended_and_gone(&mut lab).await;
}
