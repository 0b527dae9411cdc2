//! The endpoint's prefix, leased from the prefix server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use carrick_tests::Lab;
use carrick_tests::traffic::{Echo, Flow};
use carrick_types::{Prefix, overlaps};
use serde_json::Value;

/// One node with a registry and a prefix server that leases for 5 s.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    let node = lab.node("one");
    let (netns, address) = (node.namespace.path(), node.address);
    let env = [
        ("NSM_LISTEN_ON", format!("tcp://{address}:5006")),
        ("NSM_PREFIX", "172.16.0.0/16".to_owned()),
        ("CARRICK_LEASE", "5s".to_owned()),
    ];
    lab.start("ipam", &netns, &["ipam"], &env);
    lab
}

/// What the prefix server has granted.
async fn grants(lab: &Lab) -> Option<Vec<Value>> {
    lab.status("ipam").await?["prefixes"].as_array().cloned()
}

async fn grant_of(lab: &Lab, nse: &str) -> Option<Value> {
    grants(lab).await?.into_iter().find(|is| is["owner"] == nse)
}

/// The prefix that an endpoint serves.
async fn prefix(lab: &Lab, nse: &str) -> Prefix {
    lab.wait(&format!("{nse} has a prefix"), async || {
        let status = lab.status(nse).await?;
        status["prefixes"][0].as_str()?.parse().ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_endpoints_of_one_node_have_prefixes_of_their_own() {
    let mut lab = lab().await;
    let names = ["red", "green", "blue"];
    for name in names {
        lab.start_nse(name, "one", "one", "one", &[]);
        lab.start_nsc(&format!("pod-{name}"), "one", name, &[])
            .await;
    }
    let mut prefixes = Vec::new();
    let mut addresses = BTreeSet::new();
    for name in names {
        let prefix = prefix(&lab, name).await;
        assert_eq!(prefix.length(), 24);
        let address = lab.address(&format!("pod-{name}")).await;
        assert!(prefix.contains(address), "{address} in {prefix}");
        addresses.insert(address);
        prefixes.push(prefix);
    }
    assert_eq!(addresses.len(), 3);
    assert_eq!(overlaps(&prefixes), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_its_endpoint_lives_and_free_when_it_ends() {
    let mut lab = lab().await;
    lab.start_nse("nse", "one", "one", "one", &[]);
    let prefix = prefix(&lab, "nse").await;
    let begin = Instant::now();
    let mut expires = grant_of(&lab, "nse").await.unwrap()["expires"].clone();
    while begin.elapsed() < Duration::from_secs(6) {
        expires = lab
            .wait("the lease is renewed", async || {
                let grant = grant_of(&lab, "nse").await.expect("it is never free");
                assert_eq!(grant["prefix"], prefix.to_string());
                (grant["expires"] != expires).then(|| grant["expires"].clone())
            })
            .await;
    }
    assert!(lab.stop("nse").await.success());
    assert_eq!(grants(&lab).await.unwrap(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_while_the_prefix_server_is_down() {
    let mut lab = lab().await;
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.start_nsc("bee", "one", "nse", &[]).await;
    let (ant, bee) = (lab.address("ant").await, lab.address("bee").await);
    let own = prefix(&lab, "nse").await;
    let _echo = Echo::start(lab.netns("bee"), b"");
    let flow = Flow::start(lab.netns("ant"), bee);

    let begin = Instant::now();
    lab.down("ipam");
    lab.start_nsc("cat", "one", "nse", &[]).await;
    let cat = lab.address("cat").await;
    assert!(own.contains(cat), "{cat} in {own}");
    lab.wait(
        "the lease is over and the server was tried again",
        async || {
            let text = lab.metrics("nse").await?;
            let failures = text.lines().find_map(|line| {
                let value = line.strip_prefix("carrick_ipam_stream_failures_total ")?;
                value.parse::<u64>().ok()
            });
            (failures? >= 3 && begin.elapsed() > Duration::from_secs(6)).then_some(())
        },
    )
    .await;
    lab.start_nsc("dog", "one", "nse", &[]).await;
    let dog = lab.address("dog").await;
    assert!(own.contains(dog), "{dog} in {own}");

    lab.up("ipam");
    lab.wait("the prefix server has its endpoint back", async || {
        (grant_of(&lab, "nse").await?["connected"] == true).then_some(())
    })
    .await;
    assert_eq!(prefix(&lab, "nse").await, own);
    let again = [lab.address("ant").await, lab.address("bee").await];
    assert_eq!(again, [ant, bee]);
    let loss = flow.stop();
    assert!(loss.sent > 500 && loss.lost == 0, "{loss:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_prefix_server_knows_what_it_granted() {
    let mut lab = lab().await;
    lab.start_nse("red", "one", "one", "one", &[]);
    lab.start_nse("green", "one", "one", "one", &[]);
    let before = [prefix(&lab, "red").await, prefix(&lab, "green").await];
    // Red is away while the server restarts; what it has stays its own.
    lab.down("red");
    lab.kill_and_restart("ipam");
    let known = lab.wait("the server is back", async || grants(&lab).await);
    let known: BTreeSet<String> = known
        .await
        .iter()
        .map(|grant| grant["prefix"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(known, before.iter().map(ToString::to_string).collect());
    lab.start_nse("blue", "one", "one", "one", &[]);
    let blue = prefix(&lab, "blue").await;
    assert_eq!(overlaps(&[before[0], before[1], blue]), None);
    lab.up("red");
    lab.ready("red").await;
    let after = [prefix(&lab, "red").await, prefix(&lab, "green").await];
    assert_eq!(after, before);
}
