//! More clients than one prefix holds.

use std::time::Duration;

use carrick_tests::traffic::{Echo, echoes, fetch};
use carrick_tests::{Lab, ip};
use carrick_types::{Connection, Prefix};
use futures::stream::{self, StreamExt};

use crate::hop::Hop;

/// Two nodes; the prefix server gives prefixes of `length` bits.
async fn lab(length: u8) -> Lab {
    let mut lab = Lab::new(&["red", "green"]).await;
    lab.start_registry("east", "red");
    let red = lab.node("red");
    let (netns, address) = (red.namespace.path(), red.address);
    let env = [
        ("NSM_LISTEN_ON", format!("tcp://{address}:5006")),
        ("NSM_PREFIX", "172.16.0.0/16".to_owned()),
        ("NSM_CLIENT_PREFIX_LEN", length.to_string()),
    ];
    lab.start("ipam", &netns, &["ipam"], &env);
    let more = [
        ("CARRICK_NETWORKS", "172.16.0.0/16".to_owned()),
        ("NSM_LOG_LEVEL", "INFO".to_owned()),
    ];
    lab.start_nse("nse-red", "red", "red", "red", &more);
    lab.start_nse("nse-green", "green", "red", "red", &more);
    lab.linked("nse-red", 1).await;
    lab.linked("nse-green", 1).await;
    lab
}

/// The answers to `count` clients of red, in pods `pod0`, `pod1`, …
async fn fill(lab: &mut Lab, count: usize) -> Vec<Connection> {
    let pods: Vec<String> = (0..count).map(|number| format!("pod{number}")).collect();
    for pod in &pods {
        lab.pod(pod).await;
    }
    let (lab, hop) = (&*lab, Hop::new(lab, "nse-red", "red").await);
    let ask = |pod: &String| {
        let wanted = hop.wanted(pod, lab.netns(pod));
        let hop = &hop;
        async move { hop.request(&wanted).await.unwrap() }
    };
    stream::iter(pods.iter().map(ask).collect::<Vec<_>>())
        .buffered(8)
        .collect()
        .await
}

async fn prefixes(lab: &Lab, nse: &str) -> Vec<Prefix> {
    let status = lab.status(nse).await.unwrap();
    serde_json::from_value(status["prefixes"].clone()).unwrap()
}

/// The first pod with an address in each of red's prefixes.
async fn one_of_each(lab: &Lab, answers: &[Connection]) -> Vec<String> {
    let prefixes = prefixes(lab, "nse-red").await;
    let pods = prefixes.iter().map(|prefix| {
        let inside = |answer: &Connection| {
            let addresses = &answer.context.ip.src_addrs;
            prefix.contains(addresses[0].addr())
        };
        let number = answers.iter().position(inside);
        format!("pod{}", number.expect("a prefix has clients"))
    });
    pods.collect()
}

/// The position of a pod's answer.
fn number(pod: &str) -> usize {
    pod["pod".len()..].parse().unwrap()
}

/// All of `pods` and `bee`, a pod of green, reach each other.
async fn all_reach_each_other(lab: &mut Lab, answers: &[Connection], pods: &[String]) {
    lab.start_nsc("bee", "green", "nse-green", &[]).await;
    let bee = lab.address("bee").await;
    let mut all = vec![("bee", bee)];
    for pod in pods {
        let answer = &answers[number(pod)];
        all.push((pod, answer.context.ip.src_addrs[0].addr()));
    }
    for (to, address) in &all {
        let _echo = Echo::start(lab.netns(to), to.as_bytes());
        for (from, _) in all.iter().filter(|(from, _)| from != to) {
            let udp = echoes(lab.netns(from), *address, Duration::from_secs(5));
            assert!(udp, "UDP from {from} to {to} at {address}");
            let tcp = fetch(lab.netns(from), *address).unwrap();
            assert_eq!(tcp, to.as_bytes(), "TCP from {from} to {to} at {address}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_endpoint_goes_on_with_further_prefixes() {
    let mut lab = lab(29).await;
    let answers = fill(&mut lab, 20).await;
    let prefixes = prefixes(&lab, "nse-red").await;
    assert!(prefixes.len() >= 3, "{prefixes:?}");
    let pods = one_of_each(&lab, &answers).await;
    all_reach_each_other(&mut lab, &answers, &pods).await;
    let green = ip::routes(lab.router("nse-green"));
    for prefix in prefixes {
        let to = format!("{prefix} ");
        assert!(
            green.iter().any(|route| route.starts_with(&to)),
            "{to} in {green:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_256th_client_has_an_address_of_a_further_prefix() {
    let mut lab = lab(24).await;
    let answers = fill(&mut lab, 256).await;
    let mut addresses: Vec<_> = answers
        .iter()
        .map(|answer| answer.context.ip.src_addrs[0].addr())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 256);
    let prefixes = prefixes(&lab, "nse-red").await;
    assert_eq!(prefixes.len(), 2, "{prefixes:?}");
    let pods = one_of_each(&lab, &answers).await;
    // Whoever has an address of the further prefix has a route to both.
    let last = number(&pods[1]);
    let own = answers[last].context.ip.dst_addrs[0].addr();
    let routes = ip::routes(lab.netns(&pods[1]));
    for prefix in &prefixes {
        let route = format!("{prefix} via {own} dev nsm-1");
        assert!(routes.contains(&route), "{route} in {routes:?}");
    }
    all_reach_each_other(&mut lab, &answers, &pods).await;
}
