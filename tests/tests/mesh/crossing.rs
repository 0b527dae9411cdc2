//! Dials that cross.

use std::time::{Duration, SystemTime};

use carrick_grpc::{Security, Url, dial};
use carrick_registry::{Client, ClientOptions, Endpoint, EndpointQuery};
use carrick_tests::{Lab, PATIENCE};

/// A registry, its socket in the lab's directory.
fn start_registry(lab: &mut Lab, name: &str) -> String {
    let (netns, url) = (
        lab.node("one").namespace.path(),
        format!("unix://{}", lab.path(name)),
    );
    lab.start(
        name,
        &netns,
        &["registry"],
        &[("NSM_LISTEN_ON", url.clone())],
    );
    url
}

async fn client(url: &str) -> Client {
    let url: Url = url.parse().unwrap();
    let channel = dial(&url, &Security::insecure(), PATIENCE).await.unwrap();
    Client::new(channel, ClientOptions::default())
}

/// The endpoint of a registry, once it is there.
async fn endpoint_of(lab: &Lab, registry: &Client) -> Endpoint {
    lab.wait("an endpoint is registered", async || {
        let query = EndpointQuery::default();
        registry.find_endpoints(&query).await.ok()?.pop()
    })
    .await
}

/// Each endpoint sees the other one through a registry by which that one is
/// older than anything, so that both dial at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_dials_that_cross_one_link_is_left() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_ipam("one", "172.16.0.0/16");
    let mut seen_by = Vec::new();
    let mut own = Vec::new();
    let mut nses = Vec::new();
    for name in ["ant", "bee"] {
        let home = start_registry(&mut lab, &format!("{name}-home"));
        let away = start_registry(&mut lab, &format!("{name}-away"));
        let settings = [
            ("CARRICK_REGISTRY_URL", home.clone()),
            ("CARRICK_DOMAINS", format!("away:{away}")),
        ];
        lab.start_nse(name, "one", "one", "one", &settings);
        own.push(client(&home).await);
        seen_by.push(client(&away).await);
        nses.push(name.to_owned());
    }
    let mut endpoints = Vec::new();
    for registry in &own {
        let mut endpoint = endpoint_of(&lab, registry).await;
        endpoint.registered_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        endpoint.expires = None;
        endpoints.push(endpoint);
    }
    for nse in &nses {
        lab.ready(nse).await;
    }
    let (ant, bee) = tokio::join!(
        seen_by[1].register_endpoint(&endpoints[0]),
        seen_by[0].register_endpoint(&endpoints[1]),
    );
    ant.unwrap();
    bee.unwrap();
    lab.meshed(&nses, PATIENCE).await;
    let links = lab.settled(&nses, 0).await;
    let dials = dials(&lab, &nses).await;
    println!("{dials:?} dials; left: {links:?}");
    assert!(
        dials.iter().all(|count| *count >= 1),
        "both dialled: {dials:?}"
    );
    assert_eq!(links.len(), 1);
}

/// How often each endpoint has dialled.
async fn dials(lab: &Lab, nses: &[String]) -> Vec<u64> {
    let mut dials = Vec::new();
    for nse in nses {
        let status = lab.status(nse).await.unwrap();
        dials.push(status["peers"][0]["attempts"].as_u64().unwrap());
    }
    dials
}
