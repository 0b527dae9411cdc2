//! How evenly connections are spread.

use std::sync::Arc;

use anyhow::{Context, Result};
use carrick_traffic::{Client, Report, Spread, Verdict};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::netns::within;
use super::nft::{Choice, Rules};
use super::ours::{Config, Ours, Plane};
use super::world::{BALANCER, CLIENT, World, sources, target};
use super::{Options, Tell};

/// Names, and as the balancer's file has them.
const POLICIES: [(&str, &str); 6] = [
    ("weighted round robin", "weighted-round-robin"),
    ("least connections", "least-connections"),
    ("Maglev", "maglev"),
    ("source hash", "source-hash"),
    ("spill above 5", "{ name: spill, above: 5 }"),
    ("bounded load 125 %", "{ name: bounded-load, percent: 125 }"),
];

/// Policies that look at the flows of servers.
const COUNTING: [&str; 3] = ["least connections", "spill above 5", "bounded load 125 %"];

/// How one balancer spread the connections.
#[derive(Clone, Debug, Serialize)]
pub struct Distribution {
    /// The policy.
    pub policy: String,
    /// What balanced.
    pub balancer: String,
    /// Connections that were not made or not answered.
    pub failed: u64,
    /// How even.
    pub spread: Spread,
    /// What chi-square says.
    pub verdict: Verdict,
    /// Connections per second; for comparison within this run only.
    pub rate: f64,
}

pub(super) fn measure(
    options: &Options,
    world: &World,
    tell: &mut Tell,
) -> Result<Vec<Distribution>> {
    let mut rows = Vec::new();
    let kernel = [
        ("random", Choice::Random),
        ("hash (jhash)", Choice::Hash),
        ("in turn", Choice::InTurn),
    ];
    for (policy, choice) in kernel {
        tell(&format!("distribution: nftables, {policy}"));
        let rules = Rules::install(choice, world.servers())?;
        rows.push(Distribution::of(
            policy,
            "nftables",
            &connect(options)?,
            options,
        ));
        drop(rules);
    }
    for plane in [Plane::Xdp, Plane::Tc, Plane::Nftables] {
        // nftables cannot compare the loads of servers.
        let able = |name: &str| plane != Plane::Nftables || !COUNTING.contains(&name);
        for (name, policy) in POLICIES.into_iter().filter(|(name, _)| able(name)) {
            tell(&format!("distribution: {}, {name}", plane.name()));
            let config = config(plane, policy, world);
            let ours = match Ours::start(&options.carrick, BALANCER, &config) {
                Ok(ours) => ours,
                // A machine that cannot do it.
                Err(error) => {
                    tell(&format!("  left out: {error:#}"));
                    break;
                }
            };
            let report = connect(options)?;
            drop(ours);
            rows.push(Distribution::of(name, plane.name(), &report, options));
        }
    }
    Ok(rows)
}

impl Distribution {
    fn of(policy: &str, balancer: &str, report: &Report, options: &Options) -> Self {
        let spread = report.spread(options.servers as usize);
        let seconds = report.duration.as_secs_f64();
        Self {
            policy: policy.into(),
            balancer: balancer.into(),
            failed: report.failed_connects + report.failed_reads,
            spread,
            verdict: spread.verdict(),
            rate: crate::float(options.connections) / seconds,
        }
    }
}

/// NAT to all servers, as they need nothing but their own address for that.
fn config(plane: Plane, policy: &'static str, world: &World) -> Config {
    Config {
        plane,
        policy,
        mode: "nat",
        more: String::new(),
        servers: world.servers().map(|address| (address, 1)).collect(),
    }
}

/// Connects from the client, from other addresses each time.
fn connect(options: &Options) -> Result<Report> {
    let client = Client {
        connections: options.connections,
        sources: Some(sources()),
        seed: fastrand::u64(..),
        ..Client::new(target())
    };
    within(CLIENT, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = client.run(Arc::default(), CancellationToken::new());
        runtime.block_on(run).context("the client could not begin")
    })
}
