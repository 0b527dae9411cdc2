//! The endpoint's entry in the registry of its domain.

use std::time::{Duration, Instant};

use carrick_tests::{Lab, PATIENCE, until_within};
use nix::sys::signal::Signal;
use serde_json::Value;

/// One node; the registry forgets what is not registered again within 3 s.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    let node = lab.node("one");
    let (netns, address) = (node.namespace.path(), node.address);
    let env = [
        ("NSM_LISTEN_ON", format!("tcp://{address}:5002")),
        ("NSM_EXPIRE_PERIOD", "3s".to_owned()),
    ];
    lab.start("registry-east", &netns, &["registry"], &env);
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.ready("nse").await;
    lab
}

/// The endpoint's entry, if there is one; `None` also while nobody answers.
async fn entry(lab: &Lab) -> Option<Value> {
    entries(lab)
        .await?
        .into_iter()
        .find(|is| is["name"] == "nse")
}

async fn entries(lab: &Lab) -> Option<Vec<Value>> {
    let status = lab.status("registry-east").await?;
    status["network_service_endpoints"].as_array().cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_registered_and_stays_so() {
    let lab = lab().await;
    let first = entry(&lab).await.unwrap();
    assert_eq!(first["services"][0], "vl3");
    let mut last = first.clone();
    for _ in 0..3 {
        last = lab
            .wait("the registration is renewed", async || {
                let now = entry(&lab).await.expect("it is never missing");
                (now["expires"] != last["expires"]).then_some(now)
            })
            .await;
    }
    assert_eq!(last["registered_at"], first["registered_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registration_survives_a_restart_of_the_registry() {
    let mut lab = lab().await;
    let before = entry(&lab).await.unwrap();
    lab.kill_and_restart("registry-east");
    let first = lab.wait("the registry is back", async || entries(&lab).await);
    let first = first.await;
    assert_eq!(first.len(), 1, "the registry has its store: {first:?}");
    assert_eq!(first[0]["registered_at"], before["registered_at"]);
    lab.wait("the registration is renewed", async || {
        (entry(&lab).await?["expires"] != first[0]["expires"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_registers_anew_when_the_registry_lost_its_store() {
    let mut lab = lab().await;
    lab.down("registry-east");
    std::fs::remove_file(lab.dir().join("state/registry-east.redb")).unwrap();
    lab.up("registry-east");
    lab.wait_within(Duration::from_secs(5), "it is registered", async || {
        entry(&lab).await
    })
    .await;
    // The endpoint serves meanwhile, and is ready when it is registered.
    lab.ready("nse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_told_to_end_leaves_the_registry_within_a_second() {
    let mut lab = lab().await;
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.address("ant").await;
    let begin = Instant::now();
    lab.signal("nse", Signal::SIGTERM);
    lab.wait("it is no longer registered", async || {
        entries(&lab).await?.is_empty().then_some(())
    })
    .await;
    let took = begin.elapsed();
    println!("no longer registered after {took:?}");
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let ended = until_within(PATIENCE, || lab.ended("nse")).await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}
