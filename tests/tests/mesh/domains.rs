//! Several registries, each a domain of its own.

use std::time::Duration;

use carrick_tests::{Lab, PATIENCE};

use crate::{addresses, everyone_reaches_everyone, nse, start_pods};

const NODES: [&str; 3] = ["one", "two", "three"];

/// Three nodes, each with a registry of its own; the first has the prefix server.
async fn three_registries() -> Lab {
    let mut lab = Lab::new(&NODES).await;
    for node in NODES {
        lab.start_registry(node, node);
    }
    lab.start_ipam("one", "172.16.0.0/16");
    lab
}

/// Starts an endpoint in the domain of its node, which looks for peers in `others` too.
fn start_in_domain(lab: &mut Lab, name: &str, node: &str, others: &[&str]) {
    let url = |node: &str| format!("{node}:tcp://{}:5002", lab.node(node).address);
    let domains: Vec<_> = others.iter().map(|node| url(node)).collect();
    let domains = [("CARRICK_DOMAINS", domains.join(","))];
    lab.start_nse(name, node, node, "one", &domains);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pairs_of_pods_in_three_domains_answer() {
    let mut lab = three_registries().await;
    for (number, node) in NODES.iter().enumerate() {
        let others: Vec<_> = NODES.into_iter().filter(|other| other != node).collect();
        start_in_domain(&mut lab, &nse(number), node, &others);
    }
    start_pods(&mut lab, &NODES, 3).await;
    let nses: Vec<_> = (0..3).map(nse).collect();
    let addresses = addresses(&lab, 3).await;
    lab.meshed(&nses, PATIENCE).await;
    let links = lab.settled(&nses, 1).await;
    assert!(
        links.iter().all(|link| link.to.contains('@')),
        "all peers are of other domains: {links:?}"
    );
    everyone_reaches_everyone(&lab, &addresses).await;
}

/// An endpoint only lets in peers that one of its registries names.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_known_to_one_side_only_makes_no_link_and_no_harm() {
    let mut lab = three_registries().await;
    start_in_domain(&mut lab, "knows", "one", &["two"]);
    start_in_domain(&mut lab, "is-known", "two", &[]);
    start_in_domain(&mut lab, "sibling", "one", &["two"]);
    lab.ready("is-known").await;
    lab.wait("the dial is refused", async || {
        let status = lab.status("knows").await?;
        let peers = status["peers"].as_array()?;
        let peer = peers.iter().find(|peer| peer["name"] == "is-known@two")?;
        peer["last_error"].as_str().map(drop)
    })
    .await;
    let siblings = ["knows".to_owned(), "sibling".to_owned()];
    lab.meshed(&siblings, Duration::from_secs(10)).await;
    assert_eq!(lab.settled(&siblings, 0).await.len(), 1);
    assert!(carrick_tests::ip::interfaces(lab.router("is-known")).is_empty());
}
