use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use carrick_tests::traffic::{Echo, Flow, Loss, echoes};
use carrick_tests::{Lab, PATIENCE};

use crate::lots::Lots;

/// The endpoints and their nodes. The first has its links made by an agent of
/// its own, the others make them themselves.
pub(crate) const NSES: [(&str, &str); 3] =
    [("nse-one", "one"), ("nse-two", "two"), ("nse-three", "one")];

/// Clients that stay, with packets between them, and their endpoints.
pub(crate) const STAYING: [(&str, &str, &str); 2] =
    [("ant", "one", "nse-one"), ("bee", "two", "nse-two")];

/// Clients that come and go.
pub(crate) const VISITORS: [(&str, &str, &str); 6] = [
    ("cat", "one", "nse-one"),
    ("dog", "two", "nse-two"),
    ("eel", "one", "nse-three"),
    ("fox", "one", "nse-one"),
    ("gnu", "two", "nse-two"),
    ("hen", "one", "nse-three"),
];

/// What is restarted besides the endpoints.
const OTHERS: [&str; 5] = ["registry-east", "ipam", "agent", "nsc-ant", "nsc-bee"];

/// Packets that come and go between two disturbances.
const PACKETS: u32 = 30;

/// All programs.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    here: BTreeMap<&'static str, IpAddr>,
    addresses: Vec<IpAddr>,
    flow: Flow,
    tally: Tally,
    _echo: Echo,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    kills: u32,
    ends: u32,
    visits: u32,
    packets: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills,
            ends,
            visits,
            packets,
        } = self;
        write!(
            f,
            "{kills} programs killed, {ends} ended and started, {visits} visits, {packets} packets"
        )
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        let mut lab = Lab::new(&["one", "two"]).await;
        lab.start_registry("east", "one");
        lab.start_ipam("one", "172.16.0.0/16");
        let socket = format!("unix://{}", lab.path("agent.sock"));
        let netns = lab.node("one").namespace.path();
        lab.start(
            "agent",
            &netns,
            &["agent"],
            &[("NSM_LISTEN_ON", socket.clone())],
        );
        // An orderly end leaves to the next process what was served.
        let stays = ("NSM_UNREGISTER_ITSELF", "false".to_owned());
        for (nse, node) in NSES {
            let mut more = vec![stays.clone()];
            if nse == "nse-one" {
                more.push(("CARRICK_AGENT", socket.clone()));
            }
            lab.start_nse(nse, node, "one", "one", &more);
        }
        let stays = ("CARRICK_CLOSE_AT_EXIT", "false".to_owned());
        let mut addresses = Vec::new();
        for (pod, node, nse) in STAYING {
            lab.start_nsc(pod, node, nse, std::slice::from_ref(&stays))
                .await;
            addresses.push(lab.address(pod).await);
        }
        let echo = Echo::start(lab.pod("bee").await, b"bee");
        assert!(echoes(lab.pod("ant").await, addresses[1], PATIENCE));
        let flow = Flow::start(lab.pod("ant").await, addresses[1]);
        let mut site = Self {
            lab,
            here: BTreeMap::new(),
            addresses,
            flow,
            tally: Tally::default(),
            _echo: echo,
        };
        // What is opened for the first client and stays open is no leak.
        let mut lots = Lots::new();
        for visitor in VISITORS {
            site.come(visitor).await;
        }
        site.everybody_leaves(&mut lots).await;
        site
    }

    pub(crate) fn tally(&mut self) -> Tally {
        self.tally.packets = self.flow.sent();
        self.tally
    }

    /// The address of each client that stays.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        STAYING
            .iter()
            .map(|(pod, ..)| *pod)
            .zip(self.addresses.iter().copied())
    }

    /// Restarts one program, or has a client come or go. Who waits for nothing
    /// makes restarts overlap.
    pub(crate) async fn disturb(&mut self, lots: &mut Lots) {
        if lots.draw(&[true, false, false]) {
            return self.visit(lots).await;
        }
        let nses = NSES.map(|(nse, _)| nse);
        let victim = if lots.draw(&[true, false]) {
            lots.draw(&nses)
        } else {
            lots.draw(&OTHERS)
        };
        if lots.draw(&[true, false]) {
            self.lab.kill_and_restart(victim);
            self.tally.kills += 1;
        } else {
            let status = self.lab.restart(victim).await;
            assert!(
                status.success(),
                "{victim} ended with {status}: {}",
                self.lab.log(victim)
            );
            self.tally.ends += 1;
        }
        if nses.contains(&victim) && lots.draw(&[true, false]) {
            self.lab.ready(victim).await;
        }
    }

    /// Has a client come that is not there, or go.
    pub(crate) async fn visit(&mut self, lots: &mut Lots) {
        let visitor = lots.draw(&VISITORS);
        if self.here.contains_key(visitor.0) {
            self.leave(visitor.0, lots).await;
        } else {
            self.come(visitor).await;
        }
    }

    async fn come(&mut self, (pod, node, nse): (&'static str, &str, &str)) {
        // One that is killed is forgotten in a quarter of a minute.
        let short = [
            ("NSM_MAX_TOKEN_LIFETIME", "20s".to_owned()),
            ("NSM_REQUEST_TIMEOUT", "5s".to_owned()),
        ];
        self.lab.start_nsc(pod, node, nse, &short).await;
        let address = self.lab.address(pod).await;
        let mut taken = self.here.values().chain(&self.addresses);
        assert!(
            taken.all(|other| *other != address),
            "{pod} got {address} of another"
        );
        self.here.insert(pod, address);
        self.tally.visits += 1;
    }

    async fn leave(&mut self, pod: &'static str, lots: &mut Lots) {
        self.here.remove(pod);
        let nsc = format!("nsc-{pod}");
        // Half of them go without a word.
        if lots.draw(&[true, false]) {
            self.lab.kill(&nsc);
        } else {
            self.lab.stop(&nsc).await;
        }
    }

    /// Ends all clients but those that stay.
    pub(crate) async fn everybody_leaves(&mut self, lots: &mut Lots) {
        while let Some((&pod, _)) = self.here.first_key_value() {
            self.leave(pod, lots).await;
        }
    }

    /// Waits for some more packets between those that stay.
    pub(crate) async fn packets_go_on(&self) {
        let before = self.flow.sent();
        let more = async || (self.flow.sent() >= before + PACKETS).then_some(());
        self.lab.wait("packets go on", more).await;
    }

    /// Ends all programs: what was lost between those that stay.
    pub(crate) fn end(self) -> Loss {
        self.flow.stop()
    }
}
