use std::net::SocketAddr;
use std::time::Duration;

use carrick_types::IfName;

use super::walk::{Table, Walk};
use crate::dataplane::Local;

/// The balancer itself: where packets come in, and by what they are balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    /// Its name: what its state is kept under. A process of the same name
    /// takes over what this one left.
    pub name: String,
    /// The data plane.
    pub backend: Backend,
    /// Where the packet program is attached.
    pub hook: Hook,
    /// The interfaces by which packets of VIPs arrive.
    pub interfaces: Vec<IfName>,
    /// Its own addresses.
    pub local: Local,
    /// IPv4 flows that can be remembered; IPv6 ones an eighth of that.
    pub flows: u32,
    /// The same of flows that are translated (NAT).
    pub nat_flows: u32,
    /// New flows per second and CPU that are remembered; those beyond go by
    /// hash. `None` is no limit.
    pub flow_rate: Option<u32>,
    /// MTU of the way to the servers; `None` leaves too large packets to the kernel.
    pub mtu: Option<u16>,
    /// Where metrics and status are served.
    pub admin: Option<String>,
    /// Flow records for the other balancers.
    pub journal: Option<Journal>,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            name: "lb".to_owned(),
            backend: Backend::default(),
            hook: Hook::default(),
            interfaces: Vec::new(),
            local: Local::default(),
            flows: 1 << 20,
            nat_flows: 1 << 17,
            flow_rate: None,
            mtu: None,
            admin: None,
            journal: None,
        }
    }
}

/// A data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// eBPF where this process may load it, else nftables.
    #[default]
    Auto,
    /// The packet program.
    Ebpf,
    /// Rules of nftables.
    Nftables,
}

/// Where a packet program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hook {
    /// XDP where the interface takes it, else TC.
    #[default]
    Auto,
    /// Behind the queueing discipline: also for large segments of TCP.
    Tc,
    /// Before the kernel's own work: the fastest.
    Xdp,
}

/// Where flow records go and come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// The own address, UDP.
    pub listen: SocketAddr,
    /// The other balancers'.
    pub peers: Vec<SocketAddr>,
    /// How long a record waits for others to go with.
    pub interval: Duration,
}

const KEYS: [&str; 12] = [
    "address4",
    "address6",
    "admin",
    "dataplane",
    "flow-rate",
    "flows",
    "hook",
    "interfaces",
    "journal",
    "mtu",
    "name",
    "nat-flows",
];

const BACKENDS: [(&str, Backend); 3] = [
    ("auto", Backend::Auto),
    ("ebpf", Backend::Ebpf),
    ("nftables", Backend::Nftables),
];

const HOOKS: [(&str, Hook); 3] = [("auto", Hook::Auto), ("tc", Hook::Tc), ("xdp", Hook::Xdp)];

/// `translates`: some service is NAT.
pub(super) fn read(walk: &mut Walk, root: &Table<'_>, translates: bool) -> Balancer {
    let table = walk.sub(root, "balancer", &KEYS);
    let default = Balancer::default();
    let limits = 256..=16 << 20;
    let flows = walk.number_at(&table, "flows", limits.clone());
    let flows = flows.unwrap_or(default.flows);
    let nat_flows = walk.number_at(&table, "nat-flows", limits);
    Balancer {
        name: walk
            .text_at(&table, "name", NAME, name)
            .unwrap_or(default.name),
        backend: walk
            .word_at(&table, "dataplane", &BACKENDS)
            .unwrap_or_default(),
        hook: walk.word_at(&table, "hook", &HOOKS).unwrap_or_default(),
        interfaces: walk.texts_at(&table, "interfaces", "the name of an interface", |text| {
            IfName::new(text).ok()
        }),
        local: Local {
            v4: walk.text_at(&table, "address4", "an IPv4 address", |text| {
                text.parse().ok()
            }),
            v6: walk.text_at(&table, "address6", "an IPv6 address", |text| {
                text.parse().ok()
            }),
        },
        flows,
        nat_flows: nat_flows.unwrap_or(if translates { flows } else { flows / 8 }),
        flow_rate: walk.number_at(&table, "flow-rate", 1..=100_000_000),
        mtu: walk.number_at(&table, "mtu", 576..=65_535),
        admin: walk.text_at(
            &table,
            "admin",
            "unix:///path or tcp://address:port",
            |text| Some(text.to_owned()),
        ),
        journal: journal(walk, &table),
    }
}

const NAME: &str = "a name of 1 to 32 letters, digits, '-' or '_'";

fn name(text: &str) -> Option<String> {
    let fits = (1..=32).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    fits.then(|| text.to_owned())
}

fn journal(walk: &mut Walk, balancer: &Table<'_>) -> Option<Journal> {
    let value = balancer.get("journal")?;
    let table = walk.sub(balancer, "journal", &["interval", "listen", "peers"]);
    let expected = "an address and port, such as 192.0.2.1:7946";
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    if table.get("listen").is_none() {
        walk.wrong(
            table.at("listen"),
            value,
            "there; it is an address and port",
        );
    }
    let listen = walk.text_at(&table, "listen", expected, address);
    let peers = walk.texts_at(&table, "peers", expected, address);
    let interval = walk.time_at(&table, "interval");
    let interval = interval.unwrap_or(Duration::from_millis(1));
    if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&interval) {
        let field = table.get("interval").unwrap_or(value);
        walk.wrong(table.at("interval"), field, "a time of 1ms to 1s");
    }
    Some(Journal {
        listen: listen?,
        peers,
        interval,
    })
}
