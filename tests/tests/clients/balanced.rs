//! A balancer that is a client of the network, as are its servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use carrick_tests::Lab;
use carrick_tests::balancer::{Held, Server};

use super::dual::both_families_of;

/// The port of the VIP, and of the servers.
const VIP_PORT: u16 = 80;
const SERVER_PORT: u16 = 8080;

/// One node with a network of both families, a balancer in it and a client.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    let node = lab.node("one");
    let (netns, address) = (node.namespace.path(), node.address);
    let registry = format!("unix://{}", lab.path("registry.sock"));
    let listen = format!("tcp://{address}:5002,{registry}");
    lab.start(
        "registry-east",
        &netns,
        &["registry"],
        &[("NSM_LISTEN_ON", listen)],
    );
    lab.start_ipam("one", "172.16.0.0/16,2001:db8::/96");
    let more = [
        both_families_of(&lab, "one"),
        ("CARRICK_ADVERTISE", format!("unix://{}", lab.socket("nse"))),
    ];
    lab.start_nse("nse", "one", "one", "one", &more);
    let balancer = lab.pod("lb").await.path();
    let settings = [
        ("NSM_CONNECT_TO", format!("unix://{}", lab.socket("nse"))),
        // As the chart of NSM's balancer has it.
        ("NSM_NETWORK_SERVICES", "memif://vl3/nsm-1".to_owned()),
        ("NSM_PORT", VIP_PORT.to_string()),
        ("NSM_TARGET_PORT", SERVER_PORT.to_string()),
        ("NSM_SELECTOR", "app:web".to_owned()),
        ("CARRICK_REGISTRY_URL", registry),
        ("POD_NAME", "lb".to_owned()),
    ];
    lab.start("lb", &balancer, &["lb", "vl3"], &settings);
    lab.start_nsc("client", "one", "nse", &[]).await;
    lab.address("client").await;
    lab
}

/// Joins a client of the network that is a server of the balancer.
async fn join(lab: &mut Lab, pod: &str) -> Server {
    let labels = [("NSM_LABELS", "app:web".to_owned())];
    lab.start_nsc(pod, "one", "nse", &labels).await;
    let addresses = lab.addresses(pod).await;
    let places = addresses.iter().map(|it| SocketAddr::new(*it, SERVER_PORT));
    Server::start(lab.netns(pod), pod, &places.collect::<Vec<_>>())
}

/// Waits until the balancer has that many servers with a weight; its VIPs.
async fn serving(lab: &Lab, servers: usize) -> Vec<SocketAddr> {
    lab.wait(&format!("{servers} servers are balanced"), async || {
        let status = lab.status("lb").await?;
        let services = status["balancer"]["services"].as_array()?.iter();
        let has = services.filter_map(|service| service["servers"].as_array());
        let active = has.flatten().filter(|server| server["weight"] != 0).count();
        // One server for each address of a client.
        (active == 2 * servers).then_some(())?;
        let own = status["connections"][0]["src_addrs"].as_array()?.clone();
        let own = own.iter().filter_map(|net| {
            let address: IpAddr = net.as_str()?.split('/').next()?.parse().ok()?;
            Some(SocketAddr::new(address, VIP_PORT))
        });
        Some(own.collect())
    })
    .await
}

/// Who answers how many of `count` connections of the client.
fn spread(lab: &Lab, vip: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let held = Held::open(lab.netns("client"), None, vip).unwrap();
        assert_eq!(held.first.peer.ip(), vip.ip(), "servers see the VIP");
        *spread.entry(held.first.server).or_default() += 1;
    }
    spread
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_network_are_servers_of_a_balancer_in_it() {
    let mut lab = lab().await;
    let _one = join(&mut lab, "web1").await;
    let _two = join(&mut lab, "web2").await;
    let vips = serving(&lab, 2).await;
    assert_eq!(vips.len(), 2, "a VIP of each family");
    for vip in &vips {
        let even = [("web1".to_owned(), 10), ("web2".to_owned(), 10)];
        assert_eq!(spread(&lab, *vip, 20), BTreeMap::from(even), "{vip}");
    }
    assert!(lab.is_ready("lb").await);
}

/// The reference stops all traffic when it is scaled.
#[tokio::test(flavor = "multi_thread")]
async fn connections_go_on_while_servers_join_and_leave_the_network() {
    let mut lab = lab().await;
    let _one = join(&mut lab, "web1").await;
    let vip = serving(&lab, 1).await[0];
    let mut held: Vec<Held> = (0..20)
        .map(|_| Held::open(lab.netns("client"), None, vip).unwrap())
        .collect();

    let two = join(&mut lab, "web2").await;
    serving(&lab, 2).await;
    for held in &mut held {
        assert_eq!(held.again().unwrap().server, "web1");
    }
    assert_eq!(spread(&lab, vip, 10)["web2"], 5);

    lab.stop("nsc-web2").await;
    drop(two);
    serving(&lab, 1).await;
    for held in &mut held {
        assert_eq!(held.again().unwrap().server, "web1");
    }
    let left = BTreeMap::from([("web1".to_owned(), 10)]);
    assert_eq!(spread(&lab, vip, 10), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_in_a_network_outlives_its_endpoint_and_leaves_nothing() {
    let mut lab = lab().await;
    let _one = join(&mut lab, "web1").await;
    let vip = serving(&lab, 1).await[0];
    let mut held = Held::open(lab.netns("client"), None, vip).unwrap();
    lab.down("nse");
    assert_eq!(held.again().unwrap().server, "web1");
    lab.up("nse");
    lab.ready("nse").await;
    assert_eq!(held.again().unwrap().server, "web1");

    // What came meanwhile is noticed: the stream is opened again.
    let _two = join(&mut lab, "web2").await;
    serving(&lab, 2).await;

    assert!(lab.stop("lb").await.success());
    let tables = lab.netns("lb").within(|| {
        let listed = std::process::Command::new("nft")
            .args(["list", "tables"])
            .output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    });
    assert!(!tables.contains("carrick"), "{tables}");
}
