//! Clients keep their addresses, whoever was killed and in whatever order all
//! come back.

use std::net::IpAddr;

use carrick_tests::Lab;

const PODS: [&str; 4] = ["ant", "bee", "cat", "dog"];

/// One node, one endpoint and [`PODS`].
async fn lab() -> (Lab, Vec<IpAddr>) {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    for pod in PODS {
        lab.start_nsc(pod, "one", "nse", &[]).await;
    }
    let addresses = addresses(&lab).await;
    (lab, addresses)
}

async fn addresses(lab: &Lab) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for pod in PODS {
        addresses.push(lab.address(pod).await);
    }
    addresses
}

async fn all_come_back_in(order: [&str; 5]) {
    let (mut lab, before) = lab().await;
    for name in order {
        lab.down(name);
    }
    for name in order {
        lab.up(name);
    }
    assert_eq!(addresses(&lab).await, before, "in the order {order:?}");
    let status = lab.status("nse").await.unwrap();
    let connections = status["connections"].as_array().unwrap();
    assert_eq!(connections.len(), PODS.len(), "nobody is there twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_when_the_endpoint_is_back_first() {
    all_come_back_in(["nse", "nsc-dog", "nsc-bee", "nsc-ant", "nsc-cat"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_when_the_endpoint_is_back_last() {
    all_come_back_in(["nsc-cat", "nsc-dog", "nsc-ant", "nsc-bee", "nse"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_when_the_endpoint_is_back_in_between() {
    all_come_back_in(["nsc-dog", "nsc-cat", "nse", "nsc-bee", "nsc-ant"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_endpoint_keeps_an_address_for_a_client_that_is_not_back_yet() {
    let (mut lab, before) = lab().await;
    lab.down("nsc-ant");
    lab.kill_and_restart("nse");
    lab.ready("nse").await;
    lab.start_nsc("eel", "one", "nse", &[]).await;
    let eel = lab.address("eel").await;
    assert!(!before.contains(&eel), "{eel} is somebody else's");
    lab.up("nsc-ant");
    assert_eq!(addresses(&lab).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_keep_their_addresses_when_the_endpoint_lost_its_store() {
    let (mut lab, before) = lab().await;
    lab.down("nse");
    std::fs::remove_file(lab.dir().join("state/nse.redb")).unwrap();
    lab.up("nse");
    lab.wait("the endpoint has its clients back", async || {
        let status = lab.status("nse").await?;
        (status["connections"].as_array()?.len() == PODS.len()).then_some(())
    })
    .await;
    assert_eq!(addresses(&lab).await, before);
}
