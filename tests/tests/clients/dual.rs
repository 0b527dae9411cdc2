//! Both address families at once.

use std::net::IpAddr;
use std::time::Duration;

use carrick_tests::traffic::{Echo, echoes, fetch};
use carrick_tests::{Lab, ip};

/// The prefix server on `node`, to be asked for prefixes of both families.
pub(crate) fn both_families_of(lab: &Lab, node: &str) -> (&'static str, String) {
    let server = format!("tcp://{}:5006", lab.node(node).address);
    ("NSM_PREFIX_SERVER_URL", format!("{server},{server}"))
}

const V4: &str = "172.16.0.0/16";
const V6: &str = "2001:db8::/64";

/// Two nodes with an endpoint and a pod each, `ant` on red and `bee` on green.
async fn mesh(lab: &mut Lab, more: &[(&str, String)]) {
    lab.start_nse("nse-red", "red", "red", "red", more);
    lab.start_nse("nse-green", "green", "red", "red", more);
    lab.start_nsc("ant", "red", "nse-red", &[]).await;
    lab.start_nsc("bee", "green", "nse-green", &[]).await;
    lab.linked("nse-red", 1).await;
    lab.linked("nse-green", 1).await;
    for pod in ["ant", "bee"] {
        lab.addresses(pod).await;
    }
}

/// Both pods have an address of each family, and reach each other over both.
async fn both_families_work(lab: &Lab) {
    for (from, to) in [("ant", "bee"), ("bee", "ant")] {
        let addresses = lab.addresses(to).await;
        assert!(
            matches!(addresses[..], [IpAddr::V4(_), IpAddr::V6(_)]),
            "one of each family: {addresses:?}"
        );
        let _echo = Echo::start(lab.netns(to), to.as_bytes());
        for address in addresses {
            let udp = echoes(lab.netns(from), address, Duration::from_secs(10));
            assert!(udp, "UDP from {from} to {address}");
            let tcp = fetch(lab.netns(from), address);
            assert_eq!(tcp.unwrap(), to.as_bytes(), "TCP from {from} to {address}");
        }
        let routes = ip::routes(lab.netns(to));
        for network in [V4, V6] {
            let to_network = format!("{network} via ");
            let is_there = routes.iter().any(|route| route.starts_with(&to_network));
            assert!(is_there, "{to_network} in {routes:?}");
        }
    }
    let tunnels = ip::interfaces(lab.router("nse-red"));
    let vxlan = tunnels.values().filter(|link| link.mtu == 1450).count();
    assert!(vxlan > 0, "they are linked by VXLAN: {tunnels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_two_nodes_reach_each_other_over_both_families() {
    let mut lab = Lab::new(&["red", "green"]).await;
    lab.start_registry("east", "red");
    // One server per family, as NSM has it.
    let red = lab.node("red");
    let (netns, address) = (red.namespace.path(), red.address);
    for (name, network, length, port) in [("ipam-4", V4, "24", 5006), ("ipam-6", V6, "112", 5007)] {
        let env = [
            ("NSM_LISTEN_ON", format!("tcp://{address}:{port}")),
            ("NSM_PREFIX", network.to_owned()),
            ("NSM_CLIENT_PREFIX_LEN", length.to_owned()),
            ("CARRICK_STATE_DIR", lab.path(name)),
        ];
        lab.start(name, &netns, &["ipam"], &env);
    }
    let servers = format!("tcp://{address}:5006,tcp://{address}:5007");
    mesh(&mut lab, &[("NSM_PREFIX_SERVER_URL", servers)]).await;
    both_families_work(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_prefix_server_gives_prefixes_of_both_families() {
    let mut lab = Lab::new(&["red", "green"]).await;
    lab.start_registry("east", "red");
    lab.start_ipam("red", &format!("{V4},{V6}"));
    let servers = both_families_of(&lab, "red");
    mesh(&mut lab, &[servers]).await;
    both_families_work(&lab).await;
}
