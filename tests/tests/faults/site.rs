//! Endpoints with clients that must notice nothing, whatever others do.

use std::collections::BTreeMap;

use carrick_tests::traffic::{Echo, Flow};
use carrick_tests::{Lab, ip};
use serde_json::Value;

/// A lab, and packets that go from pod `ant` to pod `bee` all the time.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    flow: Flow,
    _echo: Echo,
}

impl Site {
    /// Endpoint `nse` on node `one` with both pods.
    pub(crate) async fn one() -> Self {
        let mut lab = Lab::new(&["one"]).await;
        start_registry(&mut lab);
        lab.start_ipam("one", "172.16.0.0/16");
        lab.start_nse("nse", "one", "one", "one", &[]);
        lab.start_nsc("ant", "one", "nse", &[]).await;
        lab.start_nsc("bee", "one", "nse", &[]).await;
        Self::new(lab).await
    }

    /// Endpoint `nse` on node `one` with `ant`, endpoint `far` on node `two` with `bee`.
    pub(crate) async fn two() -> Self {
        Self::with(&[]).await
    }

    /// The same; the endpoints leave all to their next start when they end.
    pub(crate) async fn upgradable() -> Self {
        Self::with(&[("NSM_UNREGISTER_ITSELF", "false".to_owned())]).await
    }

    async fn with(more: &[(&str, String)]) -> Self {
        let mut lab = Lab::new(&["one", "two"]).await;
        start_registry(&mut lab);
        lab.start_ipam("one", "172.16.0.0/16");
        for (nse, node, pod) in [("nse", "one", "ant"), ("far", "two", "bee")] {
            lab.start_nse(nse, node, "one", "one", more);
            lab.start_nsc(pod, node, nse, &[]).await;
        }
        lab.linked("nse", 1).await;
        lab.linked("far", 1).await;
        Self::new(lab).await
    }

    async fn new(mut lab: Lab) -> Self {
        lab.address("ant").await;
        let bee = lab.address("bee").await;
        let echo = Echo::start(lab.pod("bee").await, b"bee");
        let ant = lab.pod("ant").await;
        let reached = carrick_tests::traffic::echoes(ant, bee, carrick_tests::PATIENCE);
        assert!(reached, "ant cannot reach bee");
        Self {
            flow: Flow::start(ant, bee),
            lab,
            _echo: echo,
        }
    }

    /// Ends it: not one packet was lost until now, nor of those that follow.
    pub(crate) async fn lost_nothing(self) {
        self.lost_nothing_and(async |_| {}).await;
    }

    /// The same, and then something that may stop the packets.
    pub(crate) async fn lost_nothing_and(mut self, then: impl AsyncFnOnce(&mut Lab)) {
        let until = self.flow.sent() + 20;
        let sent = async || (self.flow.sent() >= until).then_some(());
        self.lab.wait("20 packets more", sent).await;
        let loss = self.flow.stop();
        println!("{} packets sent, {} lost", loss.sent, loss.lost);
        assert_eq!(loss.lost, 0, "{loss:?}");
        then(&mut self.lab).await;
    }

    /// What an endpoint holds for its clients and peers.
    pub(crate) async fn held(&self, nse: &str) -> Held {
        held(&self.lab, nse).await
    }

    /// Waits until an endpoint holds again what it held.
    pub(crate) async fn holds_again(&self, nse: &str, before: &Held) {
        holds_again(&self.lab, nse, before).await;
    }

    /// The value of a metric; 0 while it has none.
    pub(crate) async fn metric(&self, nse: &str, sample: &str) -> u64 {
        let metrics = self.lab.metrics(nse).await.unwrap();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

/// Starts the registry on node `one`, also at a socket that this test reaches.
pub(crate) fn start_registry(lab: &mut Lab) {
    let node = lab.node("one");
    let listen = format!(
        "tcp://{}:5002,unix://{}",
        node.address,
        lab.socket("registry")
    );
    let netns = node.namespace.path();
    lab.start(
        "registry",
        &netns,
        &["registry"],
        &[("NSM_LISTEN_ON", listen)],
    );
}

/// What an endpoint holds: inside, and in the kernel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    connections: BTreeMap<String, Value>,
    leases: Vec<Value>,
    routes: Vec<String>,
    /// With their indices; the network's MTU may still be on its way to them.
    interfaces: BTreeMap<String, u64>,
}

impl Held {
    /// The routes of its router.
    pub(crate) fn routes(&self) -> &[String] {
        &self.routes
    }
}

/// What `nse` holds now.
pub(crate) async fn held(lab: &Lab, nse: &str) -> Held {
    let status = lab.status(nse).await.unwrap();
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let connection = |is: Value| (is["id"].to_string(), is["src_addrs"].clone());
    let lease = |is: Value| serde_json::json!([is["prefix"], is["connection"]]);
    let router = lab.router(nse);
    Held {
        connections: list("connections").into_iter().map(connection).collect(),
        leases: list("leases").into_iter().map(lease).collect(),
        routes: ip::routes(router),
        interfaces: ip::interfaces(router)
            .into_iter()
            .map(|(name, is)| (name, is.index))
            .collect(),
    }
}

/// Waits until `nse` holds again what it held.
pub(crate) async fn holds_again(lab: &Lab, nse: &str, before: &Held) {
    let mut now = before.clone();
    let same = carrick_tests::PATIENCE;
    let end = tokio::time::Instant::now() + same;
    lab.wait_within(same * 2, "nothing is left", async || {
        now = held(lab, nse).await;
        let late = tokio::time::Instant::now() > end;
        assert!(!late, "left: {now:#?}\nbefore: {before:#?}");
        (now == *before).then_some(())
    })
    .await;
}
