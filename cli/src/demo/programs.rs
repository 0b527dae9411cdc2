//! The programs of the demo and their settings.

use std::collections::BTreeMap;

use super::fleet::Program;
use super::plan::{
    IPAM_PORT, NETWORK, NODES, NSE_PORT, Node, REGISTRY_PORT, SERVICE, client_admin, pods,
    registry_of,
};

/// All of them, in the order in which they are started. The order does not
/// matter to them: each waits for what it needs.
pub(crate) fn all() -> Vec<Program> {
    let registries = ["east", "west"]
        .iter()
        .filter_map(|domain| registry_of(domain))
        .map(registry);
    let endpoints = NODES.iter().map(endpoint);
    let clients = pods().flat_map(|(node, pod)| [client(node, pod), hello(pod)]);
    registries
        .chain([ipam()])
        .chain(endpoints)
        .chain(clients)
        .collect()
}

fn program<const N: usize>(
    name: String,
    netns: &str,
    args: &[&str],
    env: [(&'static str, String); N],
) -> Program {
    Program {
        name,
        netns: netns.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: BTreeMap::from(env),
    }
}

fn registry(node: &Node) -> Program {
    program(
        format!("registry-{}", node.domain),
        node.name,
        &["registry"],
        [
            (
                "NSM_LISTEN_ON",
                format!("tcp://{}:{REGISTRY_PORT}", node.underlay),
            ),
            ("NSM_INSECURE", "true".into()),
            ("CARRICK_STATE_DIR", state()),
            (
                "CARRICK_ADMIN",
                format!("unix:///run/carrick/registry-{}.admin", node.domain),
            ),
            ("NSM_NAME", format!("registry-{}", node.domain)),
        ],
    )
}

fn ipam() -> Program {
    let node = &NODES[0];
    program(
        "ipam".into(),
        node.name,
        &["ipam"],
        [
            (
                "NSM_LISTEN_ON",
                format!("tcp://{}:{IPAM_PORT}", node.underlay),
            ),
            ("NSM_PREFIX", NETWORK.into()),
            ("NSM_CLIENT_PREFIX_LEN", "24".into()),
            ("NSM_INSECURE", "true".into()),
            ("CARRICK_STATE_DIR", state()),
            ("CARRICK_ADMIN", "unix:///run/carrick/ipam.admin".into()),
        ],
    )
}

fn endpoint(node: &Node) -> Program {
    let registry = |domain| {
        let at = registry_of(domain).unwrap_or(node);
        format!("tcp://{}:{REGISTRY_PORT}", at.underlay)
    };
    let other = if node.domain == "east" {
        "west"
    } else {
        "east"
    };
    program(
        node.endpoint(),
        node.name,
        &["nse"],
        [
            ("NSM_NAME", node.endpoint()),
            ("NSM_SERVICE_NAMES", SERVICE.into()),
            (
                "NSM_LISTEN_ON",
                format!(
                    "tcp://{}:{NSE_PORT},unix://{}",
                    node.underlay,
                    node.socket()
                ),
            ),
            ("NSM_INSECURE", "true".into()),
            (
                "NSM_PREFIX_SERVER_URL",
                format!("tcp://{}:{IPAM_PORT}", NODES[0].underlay),
            ),
            ("CARRICK_REGISTRY_URL", registry(node.domain)),
            ("CARRICK_DOMAINS", format!("{other}:{}", registry(other))),
            ("CARRICK_TUNNEL_IP", node.underlay.to_string()),
            ("CARRICK_ROUTER", format!("carrick-{SERVICE}-{}", node.name)),
            ("CARRICK_STATE_DIR", state()),
            ("CARRICK_ADMIN", format!("unix://{}", node.admin())),
            ("NODE_NAME", node.name.into()),
        ],
    )
}

fn client(node: &Node, pod: &str) -> Program {
    program(
        format!("nsc-{pod}"),
        pod,
        &["nsc"],
        [
            ("NSM_NAME", format!("nsc-{pod}")),
            ("NSM_CONNECT_TO", format!("unix://{}", node.socket())),
            ("NSM_NETWORK_SERVICES", format!("kernel://{SERVICE}/nsm-1")),
            ("NSM_INSECURE", "true".into()),
            ("NSM_LOCAL_DNS_SERVER_ENABLED", "false".into()),
            ("CARRICK_STATE_DIR", state()),
            ("CARRICK_ADMIN", format!("unix://{}", client_admin(pod))),
            ("NODE_NAME", node.name.into()),
            ("POD_NAME", pod.into()),
        ],
    )
}

fn hello(pod: &str) -> Program {
    program(format!("hello-{pod}"), pod, &["hello", "--name", pod], [])
}

fn state() -> String {
    "/run/carrick-demo/state".into()
}
