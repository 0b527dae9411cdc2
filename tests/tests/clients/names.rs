//! Names of workloads: `<pod>.<service>`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use carrick_tests::{Lab, PATIENCE};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::dns::{Over, Said, ask};
use crate::dual::both_families_of;

const NETWORKS: &str = "172.16.0.0/16,2001:db8::/64";

/// Three nodes: `red` and `green` with endpoints of domain east, `blue` with
/// one of domain west. Pods `ant` on red, `bee` on green, `cow` on blue.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["red", "green", "blue"]).await;
    lab.start_registry("east", "red");
    lab.start_registry("west", "blue");
    lab.start_ipam("red", NETWORKS);
    let domain = |lab: &Lab, name: &str, node: &str| {
        let address = lab.node(node).address;
        ("CARRICK_DOMAINS", format!("{name}:tcp://{address}:5002"))
    };
    let (west, east) = (domain(&lab, "west", "blue"), domain(&lab, "east", "red"));
    let both = both_families_of(&lab, "red");
    lab.start_nse(
        "nse-red",
        "red",
        "red",
        "red",
        &[west.clone(), both.clone()],
    );
    lab.start_nse("nse-green", "green", "red", "red", &[west, both.clone()]);
    lab.start_nse("nse-blue", "blue", "blue", "red", &[east, both]);
    for (pod, node) in [("ant", "red"), ("bee", "green"), ("cow", "blue")] {
        // Whoever vanishes is forgotten soon.
        let life = ("NSM_MAX_TOKEN_LIFETIME", "3s".to_owned());
        lab.start_nsc(pod, node, &format!("nse-{node}"), &[life])
            .await;
    }
    for nse in ["nse-red", "nse-green", "nse-blue"] {
        lab.linked(nse, 2).await;
    }
    lab
}

/// The name servers that a pod was told of: its endpoint's addresses.
async fn servers(lab: &Lab, pod: &str) -> Vec<IpAddr> {
    lab.address(pod).await;
    let status = lab.status(&format!("nsc-{pod}")).await.unwrap();
    let servers = status["connections"][0]["dns"][0]["server_ips"].clone();
    serde_json::from_value(servers).unwrap()
}

/// What `pod` is told by its first name server; waits for a server to answer.
async fn told(lab: &Lab, pod: &str, name: &str, kind: RecordType) -> Said {
    let server = servers(lab, pod).await[0];
    lab.wait("a name server answers", async || {
        ask(lab.netns(pod), server, name, kind, Over::Udp)
    })
    .await
}

fn here(address: &impl ToString) -> Said {
    Said {
        code: ResponseCode::NoError,
        data: vec![address.to_string()],
    }
}

/// Time from `begin` until nobody has the name any more, as seen by `pod`.
async fn gone(lab: &Lab, pod: &str, name: &str, begin: Instant) -> Duration {
    lab.wait_within(PATIENCE, &format!("{name} is gone"), async || {
        let said = told(lab, pod, name, RecordType::A).await;
        (said.code == ResponseCode::NXDomain).then_some(())
    })
    .await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_found_by_name_from_other_endpoints_and_domains_until_it_is_gone() {
    let mut lab = lab().await;
    for (asking, name) in [
        ("ant", "bee"),
        ("ant", "cow"),
        ("cow", "ant"),
        ("bee", "bee"),
    ] {
        let addresses = lab.addresses(name).await;
        let [v4, v6] = addresses[..] else {
            panic!("one address of each family: {addresses:?}");
        };
        let full = format!("{name}.vl3.");
        let a = told(&lab, asking, &full, RecordType::A).await;
        assert_eq!(a, here(&v4), "{asking} asks for {full}");
        let aaaa = told(&lab, asking, &full, RecordType::AAAA).await;
        assert_eq!(aaaa, here(&v6), "{asking} asks for {full}");
    }
    answers_of_every_kind(&lab).await;

    let begin = Instant::now();
    assert!(lab.stop("nsc-bee").await.success());
    let took = gone(&lab, "ant", "bee.vl3.", begin).await;
    println!("gone after an orderly end: {took:?}");
    assert!(took <= Duration::from_secs(2), "an orderly end: {took:?}");

    let begin = Instant::now();
    lab.kill("nsc-cow");
    let took = gone(&lab, "ant", "cow.vl3.", begin).await;
    println!("gone after SIGKILL: {took:?}");
    let most = Duration::from_secs(3 + 2);
    assert!(took <= most, "SIGKILL, and tokens that last 3 s: {took:?}");
}

/// `ant` asks for the other domain's pod over UDP and TCP, IPv4 and IPv6, and
/// backwards.
async fn answers_of_every_kind(lab: &Lab) {
    let (pod, cow) = (lab.netns("ant"), lab.addresses("cow").await);
    for server in servers(lab, "ant").await {
        for over in [Over::Tcp, Over::Udp] {
            let said = ask(pod, server, "cow.vl3.", RecordType::A, over);
            assert_eq!(said, Some(here(&cow[0])), "{server} over {over:?}");
        }
    }
    for address in cow {
        let name = hickory_proto::rr::Name::from(address).to_ascii();
        let said = told(lab, "ant", &name, RecordType::PTR).await;
        assert_eq!(said, here(&"cow.vl3."), "{name}");
    }
}
